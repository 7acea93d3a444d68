//! Frames of both hooks, with the part of [`Frame`] that a real server needs.

use core::ffi::c_void;

use aya_ebpf::bindings::{
    __sk_buff, BPF_F_ADJ_ROOM_DECAP_L3_IPV4, BPF_F_ADJ_ROOM_DECAP_L3_IPV6,
    BPF_F_ADJ_ROOM_FIXED_GSO, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, xdp_md,
};
use aya_ebpf::helpers::generated::{
    bpf_l4_csum_replace, bpf_skb_adjust_room, bpf_skb_load_bytes, bpf_skb_pull_data,
    bpf_skb_store_bytes, bpf_xdp_adjust_head, bpf_xdp_get_buff_len, bpf_xdp_load_bytes,
};
use shunt_datapath::checksum;
use shunt_datapath::clamp::Change;
use shunt_datapath::frame::{Edit, Frame, Room, Transport, View};
use shunt_datapath::link;
use shunt_datapath::packet;

use crate::context::pointer;
use crate::sum::{self, Bytes};

/// Bytes that are brought into the linear part: an Ethernet header with a tag, an outer header with
/// options, the header of the tunnel, and an inner header; or a TCP header with all its options.
const HEADERS: u32 = 192;
/// `BPF_ADJ_ROOM_MAC`: between the link header and the network header.
const BEHIND_LINK: u32 = 1;

/// The methods that both hooks share. `$data` and `$end` are the offsets of the packet pointers.
macro_rules! bytes {
    ($data:literal, $end:literal) => {
        #[inline(always)]
        fn view<const N: usize>(&self, offset: usize) -> Option<View<'_, N>> {
            // SAFETY: `self.0` is the program's own context, which has packet pointers at both
            // offsets.
            let (data, end) = unsafe {
                (
                    pointer::<$data>(self.0.cast()),
                    pointer::<$end>(self.0.cast()),
                )
            };
            let start = data.wrapping_add(offset);
            if start.wrapping_add(N) > end {
                return None;
            }
            // SAFETY: the comparison with the end proved that the frame has `N` bytes at `start`;
            // the verifier forgets `start` when a helper moves the frame.
            Some(unsafe { View::new(start as *const u8) })
        }

        #[inline(always)]
        fn edit<const N: usize>(&mut self, offset: usize) -> Option<Edit<'_, N>> {
            // SAFETY: `self.0` is the program's own context, which has packet pointers at both
            // offsets.
            let (data, end) = unsafe {
                (
                    pointer::<$data>(self.0.cast()),
                    pointer::<$end>(self.0.cast()),
                )
            };
            let start = data.wrapping_add(offset);
            if start.wrapping_add(N) > end {
                return None;
            }
            // SAFETY: the comparison with the end proved that the frame has `N` bytes at `start`;
            // `&mut self` keeps other views away.
            Some(unsafe { Edit::new(start as *mut u8) })
        }

        #[inline(always)]
        fn open(&mut self, _: usize, _: usize, _: Room) -> bool {
            // A real server wraps nothing.
            false
        }

        #[inline(always)]
        fn truncate(&mut self, _: usize) -> bool {
            false
        }

        #[inline(always)]
        fn insert(&mut self, _: usize, _: usize) -> bool {
            false
        }

        #[inline(always)]
        fn extend(&mut self, _: usize) -> bool {
            false
        }
    };
}

/// A frame of the XDP hook.
pub struct XdpFrame(pub *mut xdp_md);

impl Frame for XdpFrame {
    bytes!(0, 4);

    #[inline(always)]
    fn segment(&self) -> usize {
        0
    }

    // The programs are so small that this needs no subprogram.
    #[inline(always)]
    fn options(&self, l3: usize, header: usize) -> Option<u32> {
        packet::options(self, l3, header)
    }

    #[inline(always)]
    fn extensions(&self, l3: usize, first: u8) -> u64 {
        packet::extensions(self, l3, first).0
    }

    #[inline(always)]
    fn sum(&self, from: usize, length: usize) -> Option<u32> {
        sum::answer(sum_xdp(self.0, from as u32, length as u32))
    }

    #[inline(always)]
    fn refit(&mut self, _l3: usize, _old: usize, _new: usize, _v6: bool) -> bool {
        // Only a director does this.
        false
    }

    #[inline(always)]
    fn carry(&mut self, transport: Transport, pseudo: u32, other: u32) {
        if let Some(mut field) = self.edit::<2>(transport.field) {
            let old = field.view().u16::<0>();
            let new = checksum::update(old, checksum::add(pseudo, other));
            field.set_u16::<0>(if transport.optional && new == 0 {
                0xffff
            } else {
                new
            });
        }
    }

    #[inline(always)]
    fn association(&self, _l4: usize, _end: usize) -> u64 {
        // A real server reads no ports of SCTP.
        0
    }

    #[inline(always)]
    fn carry_crc(&mut self, _field: usize, _changed: u16, _behind: u32) {
        // A real server rewrites no port.
    }

    #[inline(always)]
    fn length(&self) -> usize {
        // SAFETY: `self.0` is the program's own context, which the helper takes.
        unsafe { bpf_xdp_get_buff_len(self.0) as usize }
    }

    #[inline(always)]
    fn close(&mut self, l3: usize, bytes: usize, _: bool) -> bool {
        // The link header moves to the inner packet, its last bytes first.
        if move_link(self, l3, bytes).is_none() {
            return false;
        }
        // SAFETY: `self.0` is the program's own context; the helper checks the bounds, and `&mut
        // self` proves that no view of the frame is left.
        unsafe { bpf_xdp_adjust_head(self.0, bytes as i32) == 0 }
    }

    #[inline(always)]
    fn interface(&self) -> u32 {
        // SAFETY: `self.0` is the program's own context, which the kernel keeps valid while the
        // program runs.
        unsafe { (*self.0).ingress_ifindex }
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

/// Copies the link header, which ends at `l3`, by `bytes` towards the end, up to the next header.
#[inline(always)]
fn move_link(frame: &mut XdpFrame, l3: usize, bytes: usize) -> Option<()> {
    let front = frame.view::<{ link::HEADER }>(0)?;
    let (a, b, c) = (front.u64::<0>(), front.u32::<8>(), front.u16::<12>());
    if l3 > link::HEADER {
        // Both headers are longer than the tags, so nothing is overwritten that is still needed.
        let first = frame.view::<4>(link::HEADER)?.u32::<0>();
        if l3 > link::HEADER + 4 {
            let second = frame.view::<4>(link::HEADER + 4)?.u32::<0>();
            frame
                .edit::<4>(bytes + link::HEADER + 4)?
                .set_u32::<0>(second);
        }
        frame.edit::<4>(bytes + link::HEADER)?.set_u32::<0>(first);
    }
    let mut moved = frame.edit::<{ link::HEADER }>(bytes)?;
    moved.set_u64::<0>(a);
    moved.set_u32::<8>(b);
    moved.set_u16::<12>(c);
    Some(())
}

/// A frame of the tc hook: a socket buffer.
pub struct SkbFrame(pub *mut __sk_buff);

impl SkbFrame {
    /// Brings the headers into the linear part.
    #[inline(always)]
    pub fn new(skb: *mut __sk_buff) -> Self {
        let frame = Self(skb);
        // SAFETY: `skb` is the program's own context, with packet pointers at offsets 76 and 80.
        let (data, end) = unsafe { (pointer::<76>(skb.cast()), pointer::<80>(skb.cast())) };
        let length = frame.length() as u32;
        let wanted = if length < HEADERS { length } else { HEADERS };
        if end.wrapping_sub(data) < wanted as usize {
            // SAFETY: `skb` is the program's own context, and the helper checks the length. If it
            // fails, views fail.
            unsafe { bpf_skb_pull_data(skb, wanted) };
        }
        frame
    }

    /// Writes a segment size.
    ///
    /// It uses helpers. If the program wrote to frames itself, the kernel would copy the headers of
    /// each frame that leaves, because TCP keeps a clone of it.
    #[inline(always)]
    pub fn announce(&self, change: &Change) {
        let field = change.transport.field as u32;
        let segment = u64::from(change.segment);
        // A checksum that is left to the device does not cover the option yet. The helper handles
        // this.
        // SAFETY: `self.0` is the program's own context, and `from` points to the two low bytes of
        // `segment`; the helpers check the offsets.
        unsafe {
            let from = (&raw const segment).cast();
            if bpf_skb_store_bytes(self.0, change.at as u32, from, 2, 0) == 0 {
                bpf_l4_csum_replace(self.0, field, 0, change.sum.into(), 0);
            }
        }
    }
}

impl Frame for SkbFrame {
    bytes!(76, 80);

    #[inline(always)]
    fn segment(&self) -> usize {
        // SAFETY: `self.0` is the program's own context, which the kernel keeps valid while the
        // program runs.
        unsafe { (*self.0).gso_size as usize }
    }

    // The programs are so small that this needs no subprogram.
    #[inline(always)]
    fn options(&self, l3: usize, header: usize) -> Option<u32> {
        packet::options(self, l3, header)
    }

    #[inline(always)]
    fn extensions(&self, l3: usize, first: u8) -> u64 {
        packet::extensions(self, l3, first).0
    }

    #[inline(always)]
    fn sum(&self, from: usize, length: usize) -> Option<u32> {
        sum::answer(sum_tc(self.0, from as u32, length as u32))
    }

    #[inline(always)]
    fn refit(&mut self, _l3: usize, _old: usize, _new: usize, _v6: bool) -> bool {
        // Only a director does this.
        false
    }

    #[inline(always)]
    fn carry(&mut self, transport: Transport, pseudo: u32, other: u32) {
        let (field, zero) = (transport.field as u32, transport.optional);
        let zero = if zero { BPF_F_MARK_MANGLED_0 } else { 0 };
        // A checksum that is left to the device covers only the pseudo-header. The helper handles
        // this.
        // SAFETY: `self.0` is the program's own context; the helper checks the offset.
        unsafe {
            if pseudo != 0 {
                let flags = zero | BPF_F_PSEUDO_HDR;
                bpf_l4_csum_replace(self.0, field, 0, pseudo.into(), flags.into());
            }
            if other != 0 {
                bpf_l4_csum_replace(self.0, field, 0, other.into(), zero.into());
            }
        }
    }

    #[inline(always)]
    fn association(&self, _l4: usize, _end: usize) -> u64 {
        // A real server reads no ports of SCTP.
        0
    }

    #[inline(always)]
    fn carry_crc(&mut self, _field: usize, _changed: u16, _behind: u32) {
        // A real server rewrites no port.
    }

    #[inline(always)]
    fn length(&self) -> usize {
        // SAFETY: `self.0` is the program's own context, which the kernel keeps valid while the
        // program runs.
        unsafe { (*self.0).len as usize }
    }

    #[inline(always)]
    fn close(&mut self, l3: usize, bytes: usize, inner_v6: bool) -> bool {
        // The kernel keeps one tag beside the bytes. It would take a second tag for a network
        // header.
        if l3 != link::HEADER {
            return false;
        }
        let v6 = match self.view::<{ link::HEADER }>(0) {
            Some(header) => header.u16::<12>() == link::IPV6,
            None => return false,
        };
        // Kernels before 6.3 have no flag for an inner packet of the other family, and refuse it.
        let change = match (v6, inner_v6) {
            (true, false) => BPF_F_ADJ_ROOM_DECAP_L3_IPV4,
            (false, true) => BPF_F_ADJ_ROOM_DECAP_L3_IPV6,
            (true, true) | (false, false) => 0,
        };
        // `FIXED_GSO` keeps the segment size.
        let flags = (change | BPF_F_ADJ_ROOM_FIXED_GSO).into();
        // SAFETY: `self.0` is the program's own context; the helper checks the bounds.
        let done = unsafe { bpf_skb_adjust_room(self.0, -(bytes as i32), BEHIND_LINK, flags) };
        done == 0
    }

    #[inline(always)]
    fn interface(&self) -> u32 {
        // SAFETY: `self.0` is the program's own context, which the kernel keeps valid while the
        // program runs.
        unsafe { (*self.0).ingress_ifindex }
    }
}

impl Bytes for SkbFrame {
    #[inline(always)]
    fn load(&self, from: u32, to: *mut c_void, length: u32) -> i64 {
        // SAFETY: `self.0` is the program's own context. The helper checks `from` and `length`
        // against the frame; the verifier checks that `to` has `length` bytes.
        unsafe { bpf_skb_load_bytes(self.0.cast(), from, to, length) }
    }
}

/// The checksum of `length` bytes from offset `from` on, or [`sum::MISSING`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn sum_xdp(context: *mut xdp_md, from: u32, length: u32) -> u64 {
    sum::of(&XdpFrame(context), from, length)
}

/// The checksum of `length` bytes from offset `from` on, or [`sum::MISSING`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn sum_tc(context: *mut __sk_buff, from: u32, length: u32) -> u64 {
    sum::of(&SkbFrame(context), from, length)
}
