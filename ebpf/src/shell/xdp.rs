//! A frame of the XDP hook.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::generated::{
    bpf_loop, bpf_xdp_adjust_head, bpf_xdp_adjust_tail, bpf_xdp_load_bytes,
};
use core::ffi::c_void;
use shunt_datapath::checksum;
use shunt_datapath::entry::Ways;
use shunt_datapath::frame::{Edit, Frame, Transport, View};
use shunt_datapath::link;
use shunt_datapath::packet::Ports;
use shunt_datapath::tables::Tables;
use shunt_datapath::verdict::Word;

use super::context::{opaque, place, pointer};
use super::fib;
use super::maps::{HELD, HELD_BYTES};
use super::parts;

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
    fn open<const BYTES: usize>(&mut self, l3: usize, _outer_v6: bool) -> bool {
        // SAFETY: the helper checks the room in front.
        if unsafe { bpf_xdp_adjust_head(self.0, -(BYTES as i32)) } != 0 {
            return false;
        }
        // The link header moves to the new front: addresses and type, then at most two tags.
        let Some(old) = self.view::<14>(BYTES) else {
            return false;
        };
        let (a, b, c) = (old.u64::<0>(), old.u32::<8>(), old.u16::<12>());
        let Some(mut front) = self.edit::<14>(0) else {
            return false;
        };
        front.set_u64::<0>(a);
        front.set_u32::<8>(b);
        front.set_u16::<12>(c);
        l3 == link::HEADER || move_tags(self, l3, BYTES).is_some()
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
    fn begin<T: Tables>(&self, _tables: &T, ports: Ports, server: u32) -> Word {
        let both = ports.source as u32 | (ports.target as u32) << 16;
        Word(parts::begin_xdp(self.0, both, ports.flags as u32, server))
    }

    #[inline(always)]
    fn first<T: Tables>(&self, _tables: &T) {
        parts::first_xdp(self.0);
    }

    #[inline(always)]
    fn later<T: Tables>(&self, _tables: &T) -> Word {
        Word(parts::later_xdp(self.0))
    }

    #[inline(always)]
    fn interface(&self) -> u32 {
        // SAFETY: the kernel hands in a valid context.
        unsafe { (*self.0).ingress_ifindex }
    }

    #[inline(always)]
    fn route(&self, v6: bool, address: [u64; 2]) -> Option<Ways> {
        let [a, b] = address;
        fib::answer(parts::route_xdp(self.0, v6 as u32, a, b))
    }

    #[inline(always)]
    fn sum(&self, from: usize) -> Option<u32> {
        let length = self.length() - from;
        let mut job = Sum {
            frame: self.0,
            from,
            sum: 0,
        };
        // SAFETY: the callback gets back the job, which lives until the loop is over.
        unsafe {
            bpf_loop(
                (length >> 2) as u32,
                add_word as *mut c_void,
                (&raw mut job).cast(),
                0,
            );
        }
        let mut sum = job.sum;
        // What is left, up to three bytes, counts as if followed by zeros (RFC 1071, 4.1).
        let mut rest = 0u32;
        for at in 0..3usize {
            let offset = from + (length & !3) + at;
            if at < length & 3 {
                if let Some(byte) = self.view::<1>(opaque(offset) & 0xfff) {
                    rest |= (byte.u8::<0>() as u32) << (8 * at as u32);
                }
            }
        }
        sum = checksum::add(sum, rest);
        Some(sum)
    }
}

#[repr(C, align(8))]
struct Sum {
    frame: *mut xdp_md,
    from: usize,
    sum: u32,
}

unsafe extern "C" fn add_word(index: u32, job: *mut Sum) -> i64 {
    // SAFETY: `sum` passes its own job.
    let job = unsafe { &mut *job };
    let frame = XdpFrame(job.frame);
    let at = (job.from + ((index as usize) << 2)) & 0xfff;
    match frame.view::<4>(at) {
        Some(word) => {
            job.sum = checksum::add(job.sum, word.u32::<0>());
            0
        }
        None => 1,
    }
}

/// Moves the bytes between the MAC addresses' type and the network header to the new front.
#[inline(always)]
pub fn move_tags<P: Frame>(frame: &mut P, l3: usize, bytes: usize) -> Option<()> {
    let first = frame.view::<4>(link::HEADER + bytes)?.u32::<0>();
    frame.edit::<4>(link::HEADER)?.set_u32::<0>(first);
    if l3 > link::HEADER + 4 {
        let second = frame.view::<4>(link::HEADER + 4 + bytes)?.u32::<0>();
        frame.edit::<4>(link::HEADER + 4)?.set_u32::<0>(second);
    }
    Some(())
}
