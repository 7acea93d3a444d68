//! A frame of the XDP hook.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::generated::{
    bpf_xdp_adjust_head, bpf_xdp_adjust_tail, bpf_xdp_load_bytes, bpf_xdp_store_bytes,
};
use core::ffi::c_void;
use shunt_datapath::checksum;
use shunt_datapath::frame::{Edit, Frame, Room, Transport, View};
use shunt_datapath::link;
use shunt_datapath::packet;
use shunt_datapath::table::Tables;
use shunt_datapath::wire::sctp;

use super::context::{opaque, place, pointer};
use super::crc;
use super::maps::{HELD, HELD_BYTES, Maps};
use super::shift::{self, Stores};
use super::sum::{self, Bytes};

/// A frame of the XDP hook, by the program's context.
pub struct XdpFrame(pub *mut xdp_md);

impl XdpFrame {
    #[inline(always)]
    fn data(&self) -> usize {
        // SAFETY: `self.0` is the program's own context, and `data` is its packet pointer at offset
        // 0.
        unsafe { pointer::<0>(self.0.cast()) }
    }

    #[inline(always)]
    fn end(&self) -> usize {
        // SAFETY: `self.0` is the program's own context, and `data_end` is its packet pointer at
        // offset 4.
        unsafe { pointer::<4>(self.0.cast()) }
    }

    /// Moves the first byte of the frame by so many bytes towards the end, or, if negative, towards
    /// the front. False if there is no room.
    #[inline(always)]
    fn adjust_head(&mut self, bytes: i32) -> bool {
        // SAFETY: `self.0` is the program's own context; the helper refuses a move out of the
        // buffer, and `&mut self` proves that no view of the frame is left.
        unsafe { bpf_xdp_adjust_head(self.0, bytes) == 0 }
    }

    /// Moves the end of the frame by so many bytes towards the end of its buffer, or, if negative,
    /// towards the front. False if there is no room.
    #[inline(always)]
    fn adjust_tail(&mut self, bytes: i32) -> bool {
        // SAFETY: `self.0` is the program's own context; the helper refuses a move out of the
        // buffer, and `&mut self` proves that no view of the frame is left.
        unsafe { bpf_xdp_adjust_tail(self.0, bytes) == 0 }
    }

    /// Copies the frame into `HELD` for the daemon. False if there is no room.
    #[inline(always)]
    pub fn hold(&self) -> bool {
        // The verifier must see that the length is at least one, and before Linux 6.3 it learns
        // nothing from "not zero". So one is subtracted here and added below. The length of an
        // empty frame wraps around and is refused as too long.
        let rest = opaque(self.length().wrapping_sub(1));
        if rest >= HELD_BYTES {
            return false;
        }
        let length = rest + 1;
        let Some(mut entry) = HELD.reserve(0) else {
            return false;
        };
        let held = entry.as_mut_ptr();
        // SAFETY: `held` points to the reserved record, which this program owns until it submits
        // it; `length` is at most `HELD_BYTES`.
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
        // SAFETY: the comparison with the end proved that the frame has `N` bytes at `start`; the
        // verifier forgets `start` when a helper moves the frame.
        Some(unsafe { View::new(start as *const u8) })
    }

    #[inline(always)]
    fn edit<const N: usize>(&mut self, offset: usize) -> Option<Edit<'_, N>> {
        let start = place(self.data(), offset);
        if start + N > self.end() {
            return None;
        }
        // SAFETY: the comparison with the end proved that the frame has `N` bytes at `start`; `&mut
        // self` keeps other views away.
        Some(unsafe { Edit::new(start as *mut u8) })
    }

    #[inline(always)]
    fn length(&self) -> usize {
        // `opaque` keeps the compiler from mixing pointers and 32-bit numbers in later sums.
        opaque(self.end() - self.data())
    }

    #[inline(always)]
    fn segment(&self) -> usize {
        0
    }

    #[inline(always)]
    fn open(&mut self, _l3: usize, bytes: usize, _room: Room) -> bool {
        if !self.adjust_head(-(bytes as i32)) {
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
        self.adjust_tail(length as i32 - now as i32)
    }

    #[inline(always)]
    fn extend(&mut self, length: usize) -> bool {
        let now = self.length();
        if length <= now {
            return true;
        }
        self.adjust_tail(length as i32 - now as i32)
    }

    #[inline(always)]
    fn insert(&mut self, at: usize, bytes: usize) -> bool {
        // The frame grows at the front, where there is always room. The kernel's own buffers may
        // have no room behind the frame.
        if !self.adjust_head(-(bytes as i32)) {
            return false;
        }
        let bytes = bytes as u32;
        shift_xdp(self.0, bytes, 0u32.wrapping_sub(bytes), at as u32) != 0
    }

    #[inline(always)]
    fn refit(&mut self, _l3: usize, old: usize, new: usize, _v6: bool) -> bool {
        let bytes = new as i32 - old as i32;
        // The masks give the verifier the bounds.
        if bytes > 0 {
            let bytes = opaque(bytes as usize) & 0x3f;
            return self.adjust_head(-(bytes as i32)) && move_link(self, bytes).is_some();
        }
        let bytes = opaque(old.wrapping_sub(new)) & 0x3ff;
        move_link_back(self, bytes).is_some() && self.adjust_head(bytes as i32)
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
        association_xdp(self.0, l4 as u32, end as u32)
    }

    #[inline(always)]
    fn carry_crc(&mut self, field: usize, changed: u16, behind: u32) {
        let change = crc::crc_change(changed.into(), behind);
        if let Some(mut field) = self.edit::<4>(field) {
            let old = field.view().u32::<0>();
            field.set_u32::<0>(old ^ change);
        }
    }

    #[inline(always)]
    fn options(&self, l3: usize, header: usize) -> Option<u32> {
        sum::answer(options_xdp(self.0, l3 as u32, header as u32))
    }

    #[inline(always)]
    fn extensions(&self, l3: usize, first: u8) -> u64 {
        extensions_xdp(self.0, l3 as u32, first as u32)
    }

    #[inline(always)]
    fn interface(&self) -> u32 {
        // SAFETY: `self.0` is the program's own context, which the kernel keeps valid while the
        // program runs.
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
        self.adjust_head(4)
    }

    #[inline(always)]
    fn sum(&self, from: usize, length: usize) -> Option<u32> {
        sum::answer(sum_xdp(self.0, from as u32, length as u32))
    }
}

impl Bytes for XdpFrame {
    #[inline(always)]
    fn load(&self, from: u32, to: *mut c_void, length: u32) -> i64 {
        // SAFETY: `self.0` is the program's own context. The helper checks `from` and `length`
        // against the frame; the verifier checks that `to` has `length` bytes.
        unsafe { bpf_xdp_load_bytes(self.0, from, to, length) }
    }
}

impl Stores for XdpFrame {
    #[inline(always)]
    fn store(&self, to: u32, from: *const c_void, length: u32) -> i64 {
        // SAFETY: `self.0` is the program's own context. The helper checks `to` and `length`
        // against the frame; the verifier checks that `from` has `length` bytes.
        unsafe { bpf_xdp_store_bytes(self.0, to, from.cast_mut(), length) }
    }
}

/// Copies the link header from offset `bytes` to the front of the frame.
#[inline(always)]
fn move_link(frame: &mut XdpFrame, bytes: usize) -> Option<()> {
    let old = frame.view::<{ link::HEADER }>(bytes)?;
    let (a, b, c) = (old.u64::<0>(), old.u32::<8>(), old.u16::<12>());
    put_link(frame, 0, a, b, c)
}

/// Copies the link header from the front of the frame to offset `bytes`.
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

// What the verifier checks apart from the callers: see `steps`.

/// The ports and chunk events of an SCTP packet, or 0.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn association_xdp(context: *mut xdp_md, l4: u32, end: u32) -> u64 {
    sctp::read(&XdpFrame(context), (l4 & 1023) as usize, end as usize)
}

/// The checksum of the options of an IPv4 header, or [`sum::MISSING`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn options_xdp(context: *mut xdp_md, l3: u32, header: u32) -> u64 {
    packet::options(&XdpFrame(context), near(l3), near(header)).map_or(sum::MISSING, u64::from)
}

/// Reads the extension headers of an IPv6 packet.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn extensions_xdp(context: *mut xdp_md, l3: u32, first: u32) -> u64 {
    packet::extensions(&XdpFrame(context), near(l3), first as u8).0
}

/// The checksum of `length` bytes from offset `from` on, or [`sum::MISSING`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn sum_xdp(context: *mut xdp_md, from: u32, length: u32) -> u64 {
    sum::of(&XdpFrame(context), from, length)
}

/// Moves `length` bytes at offset `from` by `bytes` ([`shift::by`]).
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn shift_xdp(context: *mut xdp_md, from: u32, bytes: u32, length: u32) -> u32 {
    shift::by(&XdpFrame(context), from, bytes, length)
}

/// An offset in the headers, which is always below 64. The mask gives the verifier the bound, since
/// it does not know the callers.
#[inline(always)]
fn near(place: u32) -> usize {
    (place & 63) as usize
}
