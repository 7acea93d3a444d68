//! The Ethernet header, and VLAN tags.

use crate::table::entry::Ways;
use crate::verdict::{Drop, Pass, Word};
use crate::wire::frame::Frame;

/// The ethertype of IPv4, in wire order.
pub const IPV4: u16 = 0x0800u16.to_be();
/// The ethertype of IPv6, in wire order.
pub const IPV6: u16 = 0x86ddu16.to_be();
/// IEEE 802.1Q and 802.1ad tags.
const VLAN: u16 = 0x8100u16.to_be();
const SERVICE_VLAN: u16 = 0x88a8u16.to_be();

/// Bytes of an Ethernet header without tags.
pub const HEADER: usize = 14;
const TAG: usize = 4;
/// The bits of a tag that are the VLAN's identifier.
const IDENTIFIER: u16 = 0xfff;

/// The network header's offset in the frame and its protocol.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// Wire order.
    pub ethertype: u16,
    /// Offset of the network header in the frame, in bytes.
    pub l3: usize,
}

/// Whether the frame may contain an IP packet, with or without VLAN tags.
#[inline(always)]
pub fn may_be_ip<P: Frame>(frame: &P) -> bool {
    let Some(header) = frame.view::<HEADER>(0) else {
        return false;
    };
    let ethertype = header.u16::<12>();
    ethertype == IPV4 || ethertype == IPV6 || is_tag(ethertype)
}

/// Reads the Ethernet header of a frame that [`untag`] has checked.
#[inline(always)]
pub fn parse<P: Frame>(frame: &P) -> Option<Link> {
    let header = frame.view::<HEADER>(0)?;
    Some(Link {
        ethertype: header.u16::<12>(),
        l3: HEADER,
    })
}

#[inline(always)]
fn is_tag(ethertype: u16) -> bool {
    ethertype == VLAN || ethertype == SERVICE_VLAN
}

/// Passes a frame of a VLAN to the kernel, which removes the tag and delivers the frame to the
/// VLAN's device, which has a program of its own. Removes a tag of VLAN 0, which only gives the
/// frame's priority (IEEE 802.1Q, 9.6). `None` if the walk goes on with the frame.
#[inline(always)]
pub fn untag<P: Frame>(frame: &mut P) -> Option<Word> {
    let header = frame.view::<HEADER>(0)?;
    let beside = frame.beside();
    let (tag, behind) = if beside != 0 {
        (beside as u16, header.u16::<12>())
    } else if is_tag(header.u16::<12>()) {
        let Some(tagged) = frame.view::<{ HEADER + TAG }>(0) else {
            return Some(Word::pass(Pass::NotIp));
        };
        (u16::from_be(tagged.u16::<14>()), tagged.u16::<16>())
    } else {
        return None;
    };
    if tag & IDENTIFIER != 0 || is_tag(behind) {
        return Some(Word::pass(Pass::Tagged));
    }
    if frame.untag() {
        None
    } else {
        Some(Word::drop(Drop::NoRoom))
    }
}

/// Reads the Ethernet header and at most two tags (802.1Q, QinQ), which stay in the frame. For the
/// frames of a real server, whose device may leave tags in them.
#[inline(always)]
pub fn tags<P: Frame>(frame: &P) -> Option<Link> {
    let header = frame.view::<HEADER>(0)?;
    let ethertype = header.u16::<12>();
    if ethertype != VLAN && ethertype != SERVICE_VLAN {
        return Some(Link {
            ethertype,
            l3: HEADER,
        });
    }
    let tagged = frame.view::<{ HEADER + TAG }>(0)?;
    let ethertype = tagged.u16::<16>();
    if ethertype != VLAN && ethertype != SERVICE_VLAN {
        return Some(Link {
            ethertype,
            l3: HEADER + TAG,
        });
    }
    let twice = frame.view::<{ HEADER + 2 * TAG }>(0)?;
    Some(Link {
        ethertype: twice.u16::<20>(),
        l3: HEADER + 2 * TAG,
    })
}

/// Writes the MAC addresses of a next hop. Each word has an address in its low 48 bits.
#[inline(always)]
pub fn address<P: Frame>(frame: &mut P, target: u64, source: u64) -> Option<()> {
    let mut header = frame.edit::<HEADER>(0)?;
    header.set_u64::<0>((target & 0xffff_ffff_ffff) | source << 48);
    header.set_u32::<8>((source >> 16) as u32);
    Some(())
}

/// The next hop that leads back to the sender of this frame.
#[inline(always)]
pub fn came_from<P: Frame>(frame: &P) -> Option<Ways> {
    // Ethernet's MTU in bytes. The frame proves that the sender is a neighbour on this interface.
    const MTU: u64 = 1500;
    let header = frame.view::<HEADER>(0)?;
    let ours = header.u64::<0>() & 0xffff_ffff_ffff;
    let theirs = header.u16::<6>() as u64 | (header.u32::<8>() as u64) << 16;
    Some(Ways {
        target: theirs | MTU << 48,
        source: ours | 1 << 48,
        interface: frame.interface(),
    })
}

/// Swaps the MAC addresses, so that the frame goes back to its sender.
#[inline(always)]
pub fn turn<P: Frame>(frame: &mut P) -> Option<()> {
    let header = frame.view::<HEADER>(0)?;
    let target = header.u64::<0>() & 0xffff_ffff_ffff;
    let source = header.u16::<6>() as u64 | (header.u32::<8>() as u64) << 16;
    address(frame, source, target)
}
