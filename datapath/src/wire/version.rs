//! The differences between IPv4 and IPv6 headers, as a type parameter.

use super::checksum;

/// A version of the Internet Protocol.
pub trait Version: Copy {
    /// An address in wire order.
    type Address: Copy + PartialEq;
    /// Whether the version is IPv6.
    const V6: bool;
    /// Bytes of the fixed IP header.
    const HEADER: usize;

    /// The address as two words; IPv4 in the low half of the first.
    fn words(address: Self::Address) -> [u64; 2];
    /// The address from two words: the inverse of [`Version::words`].
    fn from_words(words: [u64; 2]) -> Self::Address;
    /// The address as schedulers hash it, in host order: an IPv6 address is the XOR of its four
    /// 32-bit words.
    fn folded(address: Self::Address) -> u32;
    /// The address's share in a checksum.
    fn sum(address: Self::Address) -> u32;
    /// Whether a client can have this address.
    fn may_be_client(address: Self::Address) -> bool;
    /// The loopback address.
    fn loopback() -> Self::Address;
}

/// IPv4.
#[derive(Clone, Copy, Debug)]
pub struct V4;
/// IPv6.
#[derive(Clone, Copy, Debug)]
pub struct V6;

impl Version for V4 {
    type Address = u32;
    const V6: bool = false;
    const HEADER: usize = 20;

    #[inline(always)]
    fn words(address: u32) -> [u64; 2] {
        [address as u64, 0]
    }

    #[inline(always)]
    fn from_words(words: [u64; 2]) -> u32 {
        words[0] as u32
    }

    #[inline(always)]
    fn folded(address: u32) -> u32 {
        u32::from_be(address)
    }

    #[inline(always)]
    fn sum(address: u32) -> u32 {
        address
    }

    #[inline(always)]
    fn may_be_client(address: u32) -> bool {
        let high = u32::from_be(address) >> 24;
        high != 0 && high != 127 && high < 224
    }

    #[inline(always)]
    fn loopback() -> u32 {
        0x7f00_0001u32.to_be()
    }
}

impl Version for V6 {
    type Address = [u64; 2];
    const V6: bool = true;
    const HEADER: usize = 40;

    #[inline(always)]
    fn words(address: [u64; 2]) -> [u64; 2] {
        address
    }

    #[inline(always)]
    fn from_words(words: [u64; 2]) -> [u64; 2] {
        words
    }

    #[inline(always)]
    fn folded(address: [u64; 2]) -> u32 {
        let both = address[0] ^ address[1];
        u32::from_be(both as u32 ^ (both >> 32) as u32)
    }

    #[inline(always)]
    fn sum(address: [u64; 2]) -> u32 {
        checksum::add(checksum::of_u64(address[0]), checksum::of_u64(address[1]))
    }

    #[inline(always)]
    fn may_be_client(address: [u64; 2]) -> bool {
        let multicast = address[0] as u8 == 0xff;
        // The unspecified address and the loopback address: zeros except for the last bit.
        let nobody = address[0] == 0 && u64::from_be(address[1]) <= 1;
        // RFC 4291, 2.5.5.2: an IPv4-mapped address stands for an IPv4 node and is not on the wire.
        let mapped = address[0] == 0 && address[1] as u32 == 0xffff_0000;
        // RFC 4291, 2.5.6: routers must not forward packets with a link-local source.
        let local = address[0] as u16 & 0xc0ff == 0x80fe;
        !multicast && !nobody && !mapped && !local
    }

    #[inline(always)]
    fn loopback() -> [u64; 2] {
        [0, 1u64.to_be()]
    }
}
