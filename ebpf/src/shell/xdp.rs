//! A frame of the XDP hook.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::generated::{
    bpf_xdp_adjust_head, bpf_xdp_adjust_tail, bpf_xdp_load_bytes, bpf_xdp_store_bytes,
};
use core::ffi::c_void;
use shunt_datapath::checksum;
use shunt_datapath::entry::Ways;
use shunt_datapath::frame::{Edit, Frame, Room, Transport, View};
use shunt_datapath::link;
use shunt_datapath::packet::{Extensions, Ports};
use shunt_datapath::tables::Tables;
use shunt_datapath::verdict::Word;

use super::calls;
use super::context::{opaque, place, pointer};
use super::fib;
use super::maps::{HELD, HELD_BYTES, Maps};
use super::shift::Stores;
use super::subprograms;
use super::sum::{self, Bytes};

pub struct XdpFrame(pub *mut xdp_md);

impl XdpFrame {
    #[inline(always)]
    fn data(&self) -> usize {
        // SAFETY: the kernel hands in a valid context; `data` is its first word of the two.
        unsafe { pointer::<0>(self.0.cast()) }
    }

    #[inline(always)]
    fn end(&self) -> usize {
        // SAFETY: as above, `data_end`.
        unsafe { pointer::<4>(self.0.cast()) }
    }

    /// Copies the frame to where the daemon finds it. False if there is no room.
    #[inline(always)]
    pub fn hold(&self) -> bool {
        // Less one, so that one more is at least one: before Linux 6.3 the verifier learns nothing
        // from "not zero". An empty frame is too long then.
        let rest = opaque(self.length().wrapping_sub(1));
        if rest >= HELD_BYTES {
            return false;
        }
        let length = rest + 1;
        let Some(mut entry) = HELD.reserve(0) else {
            return false;
        };
        let held = entry.as_mut_ptr();
        // SAFETY: the reserved record is ours until it is submitted; `length` fits in it.
        let copied = unsafe {
            (&raw mut (*held).interface).write(self.interface());
            (&raw mut (*held).length).write(length as u32);
            (&raw mut (*held).tag).write(0);
            (&raw mut (*held).tick).write(Maps.now());
            let to = (&raw mut (*held).bytes).cast::<c_void>();
            bpf_xdp_load_bytes(self.0, 0, to, length as u32)
        };
        if copied < 0 {
            entry.discard(0);
            return false;
        }
        entry.submit(0);
        true
    }
}

impl Frame for XdpFrame {
    #[inline(always)]
    fn view<const N: usize>(&self, offset: usize) -> Option<View<'_, N>> {
        let start = place(self.data(), offset);
        if start + N > self.end() {
            return None;
        }
        // SAFETY: checked just above; the verifier holds us to it.
        Some(unsafe { View::new(start as *const u8) })
    }

    #[inline(always)]
    fn edit<const N: usize>(&mut self, offset: usize) -> Option<Edit<'_, N>> {
        let start = place(self.data(), offset);
        if start + N > self.end() {
            return None;
        }
        // SAFETY: as above.
        Some(unsafe { Edit::new(start as *mut u8) })
    }

    #[inline(always)]
    fn length(&self) -> usize {
        // The difference at once: the compiler would else mix pointers and 32-bit numbers.
        opaque(self.end() - self.data())
    }

    #[inline(always)]
    fn segment(&self) -> usize {
        0
    }

    #[inline(always)]
    fn open(&mut self, _l3: usize, bytes: usize, _room: Room) -> bool {
        // SAFETY: the helper checks the room in front.
        if unsafe { bpf_xdp_adjust_head(self.0, -(bytes as i32)) } != 0 {
            return false;
        }
        move_link(self, bytes).is_some()
    }

    #[inline(always)]
    fn close(&mut self, _l3: usize, _bytes: usize, _inner_v6: bool) -> bool {
        // A director never decapsulates.
        false
    }

    #[inline(always)]
    fn truncate(&mut self, length: usize) -> bool {
        let now = self.length();
        if length >= now {
            return true;
        }
        // SAFETY: the helper checks the bounds.
        unsafe { bpf_xdp_adjust_tail(self.0, length as i32 - now as i32) == 0 }
    }

    #[inline(always)]
    fn extend(&mut self, length: usize) -> bool {
        let now = self.length();
        if length <= now {
            return true;
        }
        // SAFETY: the helper checks the room behind.
        unsafe { bpf_xdp_adjust_tail(self.0, length as i32 - now as i32) == 0 }
    }

    #[inline(always)]
    fn insert(&mut self, at: usize, bytes: usize) -> bool {
        // Room in front is always there; behind, the kernel's own buffers may have none.
        // SAFETY: the helper checks the room in front.
        if unsafe { bpf_xdp_adjust_head(self.0, -(bytes as i32)) } != 0 {
            return false;
        }
        let bytes = bytes as u32;
        subprograms::shift_xdp(self.0, bytes, 0u32.wrapping_sub(bytes), at as u32) != 0
    }

    #[inline(always)]
    fn refit(&mut self, _l3: usize, old: usize, new: usize, _v6: bool) -> bool {
        let bytes = new as i32 - old as i32;
        // By masks, for the verifier.
        if bytes > 0 {
            let bytes = opaque(bytes as usize) & 0x3f;
            // SAFETY: the helper checks the room in front.
            return unsafe { bpf_xdp_adjust_head(self.0, -(bytes as i32)) } == 0
                && move_link(self, bytes).is_some();
        }
        let bytes = opaque(old.wrapping_sub(new)) & 0x3ff;
        move_link_back(self, bytes).is_some()
            // SAFETY: the helper checks what is left.
            && unsafe { bpf_xdp_adjust_head(self.0, bytes as i32) } == 0
    }

    #[inline(always)]
    fn carry(&mut self, transport: Transport, pseudo: u32, other: u32) {
        let Some(mut field) = self.edit::<2>(transport.field) else {
            return;
        };
        let old = field.view().u16::<0>();
        if transport.optional && old == 0 {
            return;
        }
        let new = checksum::update(old, checksum::add(pseudo, other));
        field.set_u16::<0>(if transport.optional && new == 0 {
            0xffff
        } else {
            new
        });
    }

    #[inline(always)]
    fn association(&self, l4: usize, end: usize) -> u64 {
        subprograms::association_xdp(self.0, l4 as u32, end as u32)
    }

    #[inline(always)]
    fn carry_crc(&mut self, field: usize, changed: u16, behind: u32) {
        let change = subprograms::crc_change(changed.into(), behind);
        if let Some(mut field) = self.edit::<4>(field) {
            let old = field.view().u32::<0>();
            field.set_u32::<0>(old ^ change);
        }
    }

    #[inline(always)]
    fn begin<T: Tables>(&self, _tables: &T, ports: Ports, server: u32, service: u32) -> Word {
        let both = ports.source as u32 | (ports.target as u32) << 16;
        let flags = ports.flags as u32;
        Word(subprograms::begin_xdp(self.0, both, flags, server, service))
    }

    #[inline(always)]
    fn start<T: Tables>(&self, _tables: &T, ports: Ports, server: u32, service: u32) -> Word {
        Word(calls::start_xdp(self.0, ports.both(), server, service))
    }

    #[inline(always)]
    fn taken<T: Tables>(&self, _tables: &T, ports: u32, id: u32) -> bool {
        subprograms::taken_xdp(self.0, ports, id) != 0
    }

    #[inline(always)]
    fn identify<T: Tables>(&self, _tables: &T, from: usize, length: u32) -> u32 {
        calls::identify_xdp(self.0, from as u32, length)
    }

    #[inline(always)]
    fn forwarded<T: Tables>(&self, _tables: &T, service: u32, source: [u64; 2]) -> bool {
        subprograms::forwarded_xdp(self.0, service, source[0], source[1]) != 0
    }

    #[inline(always)]
    fn first<T: Tables>(&self, _tables: &T) {
        subprograms::first_xdp(self.0);
    }

    #[inline(always)]
    fn later<T: Tables>(&self, _tables: &T) -> Word {
        Word(subprograms::later_xdp(self.0))
    }

    #[inline(always)]
    fn origin<T: Tables>(&self, _tables: &T, word: u32) -> u32 {
        subprograms::origin_xdp(self.0, word)
    }

    #[inline(always)]
    fn one_packet<T: Tables>(&self, _tables: &T, server: u32) -> Word {
        Word(subprograms::one_packet_xdp(self.0, server))
    }

    #[inline(always)]
    fn options(&self, l3: usize, header: usize) -> Option<u32> {
        sum::answer(subprograms::options_xdp(self.0, l3 as u32, header as u32))
    }

    #[inline(always)]
    fn extensions(&self, l3: usize, first: u8) -> Extensions {
        Extensions(subprograms::extensions_xdp(self.0, l3 as u32, first as u32))
    }

    #[inline(always)]
    fn interface(&self) -> u32 {
        // SAFETY: the kernel hands in a valid context.
        unsafe { (*self.0).ingress_ifindex }
    }

    #[inline(always)]
    fn untag(&mut self) -> bool {
        let Some(header) = self.view::<12>(0) else {
            return false;
        };
        let (a, b) = (header.u64::<0>(), header.u32::<8>());
        let Some(mut behind) = self.edit::<16>(0) else {
            return false;
        };
        behind.set_u64::<4>(a);
        behind.set_u32::<12>(b);
        // SAFETY: the helper checks what is left.
        unsafe { bpf_xdp_adjust_head(self.0, 4) == 0 }
    }

    #[inline(always)]
    fn route(&self, v6: bool, source: [u64; 2], target: [u64; 2]) -> Option<Ways> {
        let ([a, b], [c, d]) = (source, target);
        fib::answer(match v6 {
            true => subprograms::route6_xdp(self.0, a, b, c, d),
            false => subprograms::route4_xdp(self.0, a as u32, c as u32),
        })
    }

    #[inline(always)]
    fn sum(&self, from: usize, length: usize) -> Option<u32> {
        sum::answer(subprograms::sum_xdp(self.0, from as u32, length as u32))
    }
}

impl Bytes for XdpFrame {
    #[inline(always)]
    fn load(&self, from: u32, to: *mut c_void, length: u32) -> i64 {
        // SAFETY: the helper checks the place in the frame, the verifier that in memory.
        unsafe { bpf_xdp_load_bytes(self.0, from, to, length) }
    }
}

impl Stores for XdpFrame {
    #[inline(always)]
    fn store(&self, to: u32, from: *const c_void, length: u32) -> i64 {
        // SAFETY: the helper checks the place in the frame, the verifier that in memory.
        unsafe { bpf_xdp_store_bytes(self.0, to, from.cast_mut(), length) }
    }
}

/// Copies the link header from behind `bytes` of room to the front.
#[inline(always)]
fn move_link(frame: &mut XdpFrame, bytes: usize) -> Option<()> {
    let old = frame.view::<{ link::HEADER }>(bytes)?;
    let (a, b, c) = (old.u64::<0>(), old.u32::<8>(), old.u16::<12>());
    put_link(frame, 0, a, b, c)
}

/// Copies the link header towards the end by so many bytes.
#[inline(always)]
fn move_link_back(frame: &mut XdpFrame, bytes: usize) -> Option<()> {
    let old = frame.view::<{ link::HEADER }>(0)?;
    let (a, b, c) = (old.u64::<0>(), old.u32::<8>(), old.u16::<12>());
    put_link(frame, bytes, a, b, c)
}

#[inline(always)]
fn put_link(frame: &mut XdpFrame, at: usize, a: u64, b: u32, c: u16) -> Option<()> {
    let mut link = frame.edit::<{ link::HEADER }>(at)?;
    link.set_u64::<0>(a);
    link.set_u32::<8>(b);
    link.set_u16::<12>(c);
    Some(())
}
