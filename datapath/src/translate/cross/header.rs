//! Writes a network header for the other family (RFC 7915, 4.1 and 5.1).

use crate::method::set_ethertype;
use crate::table::Tables;
use crate::wire::checksum;
use crate::wire::frame::Frame;
use crate::wire::link;
use crate::wire::packet::FRAGMENT;

/// Bytes of an IPv6 header without extension headers.
pub const BYTES6: u32 = 40;
/// Bytes of a fragment header of IPv6.
pub const FRAGMENT6: u32 = 8;
/// Bytes of an IPv4 header without options.
pub const BYTES4: u32 = 20;

/// The fields that both families have.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    /// Type of service, traffic class.
    pub service: u8,
    /// TTL or hop limit to be written.
    pub ttl: u8,
    /// Protocol number of the transport header.
    pub protocol: u8,
    /// Bytes behind the header.
    pub length: u32,
    /// The identification in wire order; for IPv4 in the high half. For IPv6 it is written only
    /// into a fragment header.
    pub identification: u32,
    /// Flags and fragment offset as in an IPv4 header, in wire order.
    pub cut: u16,
}

/// Replaces `old` bytes at `l3` by room for `new` bytes, and writes the ethertype. Returns the
/// offset of that room.
#[inline(always)]
pub fn refit<P: Frame, T: Tables>(
    frame: &mut P,
    tables: &T,
    l3: usize,
    (old, new): (usize, usize),
    v6: bool,
) -> Option<usize> {
    // Lengths are bounded again: the verifier does not remember earlier comparisons.
    let old = tables.blur(old) & 0x3ff;
    let new = tables.blur(new) & 0x7f;
    if !frame.refit(l3, old, new, v6) {
        return None;
    }
    let ethertype = if v6 { link::IPV6 } else { link::IPV4 };
    set_ethertype(frame, l3, ethertype)?;
    Some(l3)
}

/// Writes an IPv4 header, which sums to nothing.
#[inline(always)]
pub fn write4<P: Frame>(
    frame: &mut P,
    at: usize,
    header: &Header,
    source: u32,
    target: u32,
) -> Option<()> {
    let service = 0x45u16 | (header.service as u16) << 8;
    let total = (header.length.wrapping_add(BYTES4) as u16).to_be();
    let identification = (header.identification >> 16) as u16;
    let life = header.ttl as u16 | (header.protocol as u16) << 8;
    let sum = (service as u32)
        .wrapping_add(total as u32)
        .wrapping_add(identification as u32)
        .wrapping_add(header.cut as u32)
        .wrapping_add(life as u32);
    let sum = checksum::add(sum, checksum::add(source, target));
    let mut ip = frame.edit::<20>(at)?;
    ip.set_u16::<0>(service);
    ip.set_u16::<2>(total);
    ip.set_u16::<4>(identification);
    ip.set_u16::<6>(header.cut);
    ip.set_u16::<8>(life);
    ip.set_u16::<10>(!checksum::fold(sum));
    ip.set_u32::<12>(source);
    ip.set_u32::<16>(target);
    Some(())
}

/// Writes an IPv6 header, and a fragment header behind it if `is_cut`.
#[inline(always)]
pub fn write6<P: Frame>(
    frame: &mut P,
    at: usize,
    header: &Header,
    (source, target): ([u64; 2], [u64; 2]),
    is_cut: bool,
) -> Option<()> {
    let (length, next) = if is_cut {
        (header.length.wrapping_add(FRAGMENT6), FRAGMENT)
    } else {
        (header.length, header.protocol)
    };
    let length = (length as u16).to_be();
    let life = next as u16 | (header.ttl as u16) << 8;
    let ([a, b], [c, d]) = (source, target);
    let mut ip = frame.edit::<40>(at)?;
    ip.set_u32::<0>(first6(header));
    ip.set_u16::<4>(length);
    ip.set_u16::<6>(life);
    ip.set_u64::<8>(a);
    ip.set_u64::<16>(b);
    ip.set_u64::<24>(c);
    ip.set_u64::<32>(d);
    if is_cut {
        let mut fragment = frame.edit::<8>(at.wrapping_add(BYTES6 as usize))?;
        fragment.set_u16::<0>(header.protocol as u16);
        fragment.set_u16::<2>(cut6(header.cut));
        fragment.set_u32::<4>(header.identification);
    }
    Some(())
}

#[inline(always)]
fn first6(header: &Header) -> u32 {
    (0x6000_0000u32 | (header.service as u32) << 20).to_be()
}

/// The sum of an IPv6 header without the addresses.
#[inline(always)]
pub fn fixed6(header: &Header) -> u32 {
    let life = header.protocol as u16 | (header.ttl as u16) << 8;
    let length = (header.length as u16).to_be();
    checksum::add(first6(header), (length as u32).wrapping_add(life as u32))
}

/// Converts fragment offset and M flag from IPv4 to IPv6, which has them in the opposite order (RFC
/// 8200, 4.5).
#[inline(always)]
fn cut6(cut: u16) -> u16 {
    let cut = u16::from_be(cut);
    ((cut & 0x1fff) << 3 | cut >> 13 & 1).to_be()
}

/// Converts fragment offset and M flag from IPv6 to IPv4.
#[inline(always)]
#[must_use]
pub fn cut4(cut: u16) -> u16 {
    let cut = u16::from_be(cut);
    (cut >> 3 | (cut & 1) << 13).to_be()
}

/// IPv4's "don't fragment" bit, in wire order.
pub const WHOLE: u16 = 0x4000u16.to_be();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_of_a_fragment_is_the_same_in_both_families() {
        for (four, six) in [(0x2000u16, 0x0001u16), (0x2003, 0x0019), (0x1fff, 0xfff8)] {
            assert_eq!(u16::from_be(cut6(four.to_be())), six);
            assert_eq!(u16::from_be(cut4(six.to_be())), four);
        }
        assert_eq!(cut6(WHOLE), 0);
    }
}
