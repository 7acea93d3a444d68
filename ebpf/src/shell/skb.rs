//! A frame of the tc hook: a socket buffer. Its checksum and segmentation may be left to a device.

use core::ffi::c_void;

use aya_ebpf::bindings::{
    __sk_buff, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, BPF_F_ADJ_ROOM_ENCAP_L3_IPV6,
    BPF_F_ADJ_ROOM_ENCAP_L4_GRE, BPF_F_ADJ_ROOM_ENCAP_L4_UDP, BPF_F_ADJ_ROOM_FIXED_GSO,
    BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR,
};
use aya_ebpf::helpers::generated::{
    bpf_l4_csum_replace, bpf_skb_adjust_room, bpf_skb_change_head, bpf_skb_change_proto,
    bpf_skb_change_tail, bpf_skb_load_bytes, bpf_skb_pull_data, bpf_skb_store_bytes,
    bpf_skb_vlan_pop,
};
use shunt_datapath::frame::{Edit, Frame, Over, Room, Transport, View};
use shunt_datapath::link;
use shunt_datapath::packet;
use shunt_datapath::table::Tables;
use shunt_datapath::wire::sctp;

use super::context::{opaque, place, pointer};
use super::crc;
use super::maps::{HELD, HELD_BYTES, Maps};
use super::shift::{self, Stores};
use super::sum::{self, Bytes};

/// Bytes that are brought into the linear part: an Ethernet header with two tags, an IPv4 header
/// with options or an IPv6 header with extension headers, a TCP header, and what an ICMP error
/// quotes of these.
const HEADERS: u32 = 192;

/// `PACKET_HOST` of `linux/if_packet.h`.
const PACKET_HOST: u32 = 0;

/// `BPF_ADJ_ROOM_MAC`: between the link header and the network header.
const BEHIND_LINK: u32 = 1;

/// A frame of the tc hook, by the program's context.
pub struct SkbFrame(pub *mut __sk_buff);

impl SkbFrame {
    /// Brings the headers into the linear part.
    #[inline(always)]
    pub fn new(skb: *mut __sk_buff) -> Self {
        let frame = Self(skb);
        let length = frame.length() as u32;
        let wanted = if length < HEADERS { length } else { HEADERS };
        if frame.end() - frame.data() < wanted as usize {
            frame.pull(wanted);
        }
        frame
    }

    /// Brings so many bytes into the linear part. If the helper fails, views of these bytes fail.
    #[inline(always)]
    fn pull(&self, bytes: u32) {
        // SAFETY: `self.0` is the program's own context, and the helper checks the length. The
        // verifier refuses a view that is used after the helper moved the frame.
        unsafe { bpf_skb_pull_data(self.0, bytes) };
    }

    #[inline(always)]
    fn data(&self) -> usize {
        // SAFETY: `self.0` is the program's own context, and `data` is its packet pointer at offset
        // 76.
        unsafe { pointer::<76>(self.0.cast()) }
    }

    #[inline(always)]
    fn end(&self) -> usize {
        // SAFETY: `self.0` is the program's own context, and `data_end` is its packet pointer at
        // offset 80.
        unsafe { pointer::<80>(self.0.cast()) }
    }

    /// The VLAN tag that the kernel keeps beside the frame's bytes, as `tag` of
    /// [`Held`](super::maps::Held).
    #[inline(always)]
    fn tag(&self) -> u32 {
        // SAFETY: `self.0` is the program's own context, which the kernel keeps valid while the
        // program runs.
        unsafe {
            if (*self.0).vlan_present == 0 {
                return 0;
            }
            (*self.0).vlan_proto & 0xffff | (*self.0).vlan_tci << 16
        }
    }

    /// Brings so many bytes into the linear part, or all if the frame is shorter.
    #[inline(always)]
    fn reach(&self, wanted: usize) {
        let length = self.length();
        let wanted = if wanted < length { wanted } else { length };
        if self.end() - self.data() < wanted {
            self.pull(wanted as u32);
        }
    }

    /// Puts an Ethernet header with zero addresses in front of a packet without a link header.
    #[inline(always)]
    pub fn head(&mut self, ethertype: u16) -> bool {
        // SAFETY: `self.0` is the program's own context; the helper makes the room and fills it
        // with zeros.
        if unsafe { bpf_skb_change_head(self.0, link::HEADER as u32, 0) } != 0 {
            return false;
        }
        self.reach(HEADERS as usize);
        let Some(mut header) = self.edit::<{ link::HEADER }>(0) else {
            return false;
        };
        header.set_u16::<12>(ethertype);
        true
    }

    /// Whether the checksum at `field`, which is 0, is left to the device. No field of the context
    /// shows it. But the helper adds a change outside the pseudo-header only to a finished
    /// checksum, so a field that stays 0 is left to the device. The caller must write over a field
    /// that changed.
    #[inline(always)]
    fn leaves(&mut self, field: usize) -> bool {
        // SAFETY: `self.0` is the program's own context; the helper checks the offset.
        unsafe { bpf_l4_csum_replace(self.0, field as u32, 0, 1, 0) };
        self.view::<4>(field)
            .is_none_or(|field| field.u32::<0>() == 0)
    }

    /// Turns the frame into a frame of the other family, whose headers are longer by so many bytes.
    #[inline(always)]
    fn change(&mut self, bytes: i32, v6: bool) -> bool {
        const GROWTH: i32 = 20;
        let (protocol, growth) = if v6 {
            (link::IPV6, GROWTH)
        } else {
            (link::IPV4, -GROWTH)
        };
        // The helper also changes the kind of segmentation to that of the other family.
        // SAFETY: `self.0` is the program's own context; the helper checks the frame, and opens or
        // closes the room.
        if unsafe { bpf_skb_change_proto(self.0, protocol, 0) } != 0 {
            return false;
        }
        let more = bytes - growth;
        let flags = BPF_F_ADJ_ROOM_FIXED_GSO.into();
        // SAFETY: `self.0` is the program's own context; the helper checks the room.
        more == 0 || unsafe { bpf_skb_adjust_room(self.0, more, BEHIND_LINK, flags) } == 0
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
            (&raw mut (*held).tag).write(self.tag());
            (&raw mut (*held).tick).write(Maps.now());
            let to = (&raw mut (*held).bytes).cast::<c_void>();
            bpf_skb_load_bytes(self.0.cast(), 0, to, length as u32)
        };
        if copied < 0 {
            entry.discard(0);
            return false;
        }
        entry.submit(0);
        true
    }
}

impl Frame for SkbFrame {
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
        // SAFETY: `self.0` is the program's own context, which the kernel keeps valid while the
        // program runs.
        unsafe { (*self.0).len as usize }
    }

    #[inline(always)]
    fn segment(&self) -> usize {
        // SAFETY: `self.0` is the program's own context, which the kernel keeps valid while the
        // program runs.
        unsafe { (*self.0).gso_size as usize }
    }

    #[inline(always)]
    fn open(&mut self, _l3: usize, bytes: usize, room: Room) -> bool {
        let flags = announced(room).into();
        // SAFETY: `self.0` is the program's own context; the helper checks the room in front.
        let done = unsafe { bpf_skb_adjust_room(self.0, bytes as i32, BEHIND_LINK, flags) };
        if done != 0 {
            return false;
        }
        self.reach(link::HEADER + bytes + 60);
        true
    }

    #[inline(always)]
    fn close(&mut self, _l3: usize, _bytes: usize, _inner_v6: bool) -> bool {
        // A director never decapsulates.
        false
    }

    #[inline(always)]
    fn truncate(&mut self, length: usize) -> bool {
        let now = self.length();
        // SAFETY: `self.0` is the program's own context; the helper checks the length.
        if length < now && unsafe { bpf_skb_change_tail(self.0, length as u32, 0) } != 0 {
            return false;
        }
        true
    }

    #[inline(always)]
    fn extend(&mut self, length: usize) -> bool {
        // SAFETY: `self.0` is the program's own context; the helper checks the length.
        if self.length() < length && unsafe { bpf_skb_change_tail(self.0, length as u32, 0) } != 0 {
            return false;
        }
        self.reach(HEADERS as usize);
        true
    }

    #[inline(always)]
    fn insert(&mut self, at: usize, bytes: usize) -> bool {
        let before = self.length();
        if before < at || !self.extend(before + bytes) {
            return false;
        }
        // The bytes behind `at` move towards the end, so that the kernel's offset of a checksum
        // that is left to the device stays right.
        let rest = (before - at) as u32;
        let done = shift_tc(self.0, at as u32, bytes as u32, rest) != 0;
        self.reach(HEADERS as usize);
        done
    }

    #[inline(always)]
    fn refit(&mut self, _l3: usize, old: usize, new: usize, v6: bool) -> bool {
        let done = self.change(new as i32 - old as i32, v6);
        self.reach(HEADERS as usize);
        done
    }

    #[inline(always)]
    fn carry(&mut self, transport: Transport, pseudo: u32, other: u32) {
        let zero = if transport.optional {
            BPF_F_MARK_MANGLED_0
        } else {
            0
        };
        let field = transport.field as u32;
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
    fn association(&self, l4: usize, end: usize) -> u64 {
        association_tc(self.0, l4 as u32, end as u32)
    }

    #[inline(always)]
    fn carry_crc(&mut self, field: usize, changed: u16, behind: u32) {
        let Some(before) = self.view::<4>(field).map(|field| field.u32::<0>()) else {
            return;
        };
        if before == 0 && self.leaves(field) {
            return;
        }
        let change = crc::crc_change(changed.into(), behind);
        if let Some(mut field) = self.edit::<4>(field) {
            field.set_u32::<0>(before ^ change);
        }
    }

    #[inline(always)]
    fn options(&self, l3: usize, header: usize) -> Option<u32> {
        sum::answer(options_tc(self.0, l3 as u32, header as u32))
    }

    #[inline(always)]
    fn extensions(&self, l3: usize, first: u8) -> u64 {
        extensions_tc(self.0, l3 as u32, first as u32)
    }

    #[inline(always)]
    fn interface(&self) -> u32 {
        // SAFETY: `self.0` is the program's own context, which the kernel keeps valid while the
        // program runs.
        unsafe { (*self.0).ingress_ifindex }
    }

    #[inline(always)]
    fn is_host(&self) -> bool {
        // SAFETY: `self.0` is the program's own context, which the kernel keeps valid while the
        // program runs.
        unsafe { (*self.0).pkt_type == PACKET_HOST }
    }

    #[inline(always)]
    fn beside(&self) -> u32 {
        // SAFETY: `self.0` is the program's own context, which the kernel keeps valid while the
        // program runs.
        let (present, tag) = unsafe { ((*self.0).vlan_present, (*self.0).vlan_tci) };
        if present == 0 { 0 } else { 1 << 16 | tag }
    }

    #[inline(always)]
    fn untag(&mut self) -> bool {
        // SAFETY: `self.0` is the program's own context; the helper checks the frame.
        if unsafe { bpf_skb_vlan_pop(self.0) } != 0 {
            return false;
        }
        self.reach(HEADERS as usize);
        true
    }

    #[inline(always)]
    fn sum(&self, from: usize, length: usize) -> Option<u32> {
        sum::answer(sum_tc(self.0, from as u32, length as u32))
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

impl Stores for SkbFrame {
    #[inline(always)]
    fn store(&self, to: u32, from: *const c_void, length: u32) -> i64 {
        // SAFETY: `self.0` is the program's own context. The helper checks `to` and `length`
        // against the frame; the verifier checks that `from` has `length` bytes.
        unsafe { bpf_skb_store_bytes(self.0, to, from, length, 0) }
    }
}

/// The flags that describe an outer header to the kernel for segmentation. `FIXED_GSO` keeps the
/// segment size: the segments fit with the outer header
/// ([`shunt_datapath::method::does_not_fit`]), and datagrams must be cut where their sender cut
/// them.
#[inline(always)]
fn announced(room: Room) -> u32 {
    let Room::Tunnel { v6, over } = room else {
        return 0;
    };
    let outer = if v6 {
        BPF_F_ADJ_ROOM_ENCAP_L3_IPV6
    } else {
        BPF_F_ADJ_ROOM_ENCAP_L3_IPV4
    };
    outer
        | BPF_F_ADJ_ROOM_FIXED_GSO
        | match over {
            Over::Ip => 0,
            Over::Udp => BPF_F_ADJ_ROOM_ENCAP_L4_UDP,
            Over::Gre => BPF_F_ADJ_ROOM_ENCAP_L4_GRE,
        }
}

// What the verifier checks apart from the callers: see `steps`.

/// The ports and chunk events of an SCTP packet, or 0.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn association_tc(context: *mut __sk_buff, l4: u32, end: u32) -> u64 {
    sctp::read(&SkbFrame(context), (l4 & 1023) as usize, end as usize)
}

/// The checksum of the options of an IPv4 header, or [`sum::MISSING`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn options_tc(context: *mut __sk_buff, l3: u32, header: u32) -> u64 {
    packet::options(&SkbFrame(context), near(l3), near(header)).map_or(sum::MISSING, u64::from)
}

/// Reads the extension headers of an IPv6 packet.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn extensions_tc(context: *mut __sk_buff, l3: u32, first: u32) -> u64 {
    packet::extensions(&SkbFrame(context), near(l3), first as u8).0
}

/// The checksum of `length` bytes from offset `from` on, or [`sum::MISSING`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn sum_tc(context: *mut __sk_buff, from: u32, length: u32) -> u64 {
    sum::of(&SkbFrame(context), from, length)
}

/// Moves `length` bytes at offset `from` by `bytes` ([`shift::by`]).
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn shift_tc(context: *mut __sk_buff, from: u32, bytes: u32, length: u32) -> u32 {
    shift::by(&SkbFrame(context), from, bytes, length)
}

/// An offset in the headers, which is always below 64. The mask gives the verifier the bound, since
/// it does not know the callers.
#[inline(always)]
fn near(place: u32) -> usize {
    (place & 63) as usize
}
