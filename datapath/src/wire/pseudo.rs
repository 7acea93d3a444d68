//! The pseudo-header, which a transport checksum covers besides the packet (RFC 9293, 3.1).

use super::checksum;
use super::frame::Frame;
use super::packet::Packet;
use super::version::Version;

/// Whether the checksum of a whole packet, `field`, is left to a device to complete.
#[inline(always)]
pub fn is_left_to_device<F: Version, P: Frame>(
    frame: &P,
    packet: &Packet<F>,
    field: u16,
) -> Option<bool> {
    let length = packet
        .length
        .wrapping_sub(packet.l4.wrapping_sub(packet.l3) as u32);
    let pseudo = sum(packet, length);
    if field != checksum::fold(pseudo) {
        return Some(false);
    }
    // One complete checksum in 65,536 looks the same. The sum over the packet tells them apart.
    let whole = frame.sum(packet.l4, length as usize)?;
    Some(checksum::fold(checksum::add(whole, pseudo)) != 0xffff)
}

/// The sum of the pseudo-header of a packet, and of its answer, with `length` bytes from the
/// transport header on.
#[inline(always)]
pub fn sum<F: Version>(packet: &Packet<F>, length: u32) -> u32 {
    let addresses = checksum::add(F::sum(packet.source), F::sum(packet.target));
    let rest = ((length as u16).to_be() as u32).wrapping_add((packet.protocol as u32) << 8);
    checksum::add(addresses, rest)
}
