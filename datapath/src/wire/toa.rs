//! Reads, on the real server, the option of a SYN in which a director of full NAT names the client
//! ([`crate::translate::announce`] writes it).

use super::frame::Frame;
use super::packet::TCP;

/// The kind of the option (RFC 4727: for experiments).
pub const KIND: u8 = 254;

/// The ends of a connection as the server's sockets know them. Addresses in wire order, IPv4
/// mapped into IPv6.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ends {
    /// The director's local address.
    pub peer: [u64; 2],
    /// The server's address.
    pub own: [u64; 2],
    /// Both ports: see [`ports`].
    pub ports: u64,
}
const _: () = assert!(size_of::<Ends>() == 40);

/// A client, as the option names it.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Client {
    /// Wire order, IPv4 mapped into IPv6.
    pub address: [u64; 2],
    /// Wire order.
    pub port: u64,
}
const _: () = assert!(size_of::<Client>() == 24);

/// What a packet reveals of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It is no SYN that opens a connection.
    Nothing,
    /// A SYN that names no client.
    Silent(Ends),
    /// A SYN that names its client.
    Told(Ends, Client),
}

/// Limit of the TCP options that are read.
const OPTIONS: usize = 10;

/// The peer's port and the server's, wire order, in a word.
#[inline(always)]
#[must_use]
pub fn ports(peer: u16, own: u16) -> u64 {
    peer as u64 | (own as u64) << 16
}

/// An IPv4 address, in wire order, mapped into IPv6 (RFC 4291, 2.5.5.2).
#[inline(always)]
#[must_use]
pub fn mapped(address: u32) -> [u64; 2] {
    const PREFIX: u64 = 0xffff_0000u64;
    [0, PREFIX | (address as u64) << 32]
}

/// The IPv4 address that was mapped, if it was one.
#[inline(always)]
#[must_use]
pub fn unmapped(address: [u64; 2]) -> Option<u32> {
    let [a, b] = address;
    if a == 0 && b as u32 == 0xffff_0000 {
        Some((b >> 32) as u32)
    } else {
        None
    }
}

/// Reads a packet that begins with its network header.
#[inline(always)]
pub fn hear<P: Frame>(packet: &P) -> Heard {
    heard(packet).unwrap_or(Heard::Nothing)
}

#[inline(always)]
fn heard<P: Frame>(packet: &P) -> Option<Heard> {
    let (mut ends, l4) = network(packet)?;
    let tcp = packet.view::<20>(l4)?;
    const SYN: u8 = 0x02;
    const RST: u8 = 0x04;
    const ACK: u8 = 0x10;
    if tcp.u8::<13>() & (SYN | RST | ACK) != SYN {
        return None;
    }
    ends.ports = ports(tcp.u16::<0>(), tcp.u16::<2>());
    let header = ((tcp.u8::<12>() >> 4) as usize) << 2;
    let mut at = 20usize;
    for _ in 0..OPTIONS {
        at &= 0x3f;
        if at.wrapping_add(2) > header {
            break;
        }
        let option = packet.view::<2>(l4.wrapping_add(at))?;
        let (kind, length) = (option.u8::<0>(), option.u8::<1>() as usize);
        if kind == KIND {
            let told = client(packet, l4.wrapping_add(at), length);
            return Some(told.map_or(Heard::Silent(ends), |client| Heard::Told(ends, client)));
        }
        // RFC 9293, 3.2: End of Option List and No-Operation have no length.
        if kind == 0 || kind != 1 && length < 2 {
            break;
        }
        at = at.wrapping_add(if kind == 1 { 1 } else { length & 0x3f });
    }
    Some(Heard::Silent(ends))
}

/// The addresses of a TCP packet, and the offset of its transport header. `None` for a fragment or
/// a packet with extension headers: no director's SYN is one.
#[inline(always)]
fn network<P: Frame>(packet: &P) -> Option<(Ends, usize)> {
    let version = packet.view::<1>(0)?.u8::<0>() >> 4;
    if version == 4 {
        let ip = packet.view::<20>(0)?;
        let fragment = ip.u16::<6>() & 0x3fffu16.to_be() != 0;
        let header = ((ip.u8::<0>() & 15) as usize) << 2;
        if ip.u8::<9>() != TCP || fragment || header < 20 {
            return None;
        }
        let ends = Ends {
            peer: mapped(ip.u32::<12>()),
            own: mapped(ip.u32::<16>()),
            ports: 0,
        };
        return Some((ends, header));
    }
    let ip = packet.view::<40>(0)?;
    if version != 6 || ip.u8::<6>() != TCP {
        return None;
    }
    let ends = Ends {
        peer: [ip.u64::<8>(), ip.u64::<16>()],
        own: [ip.u64::<24>(), ip.u64::<32>()],
        ports: 0,
    };
    Some((ends, 40))
}

#[inline(always)]
fn client<P: Frame>(packet: &P, at: usize, length: usize) -> Option<Client> {
    if length == 8 {
        let option = packet.view::<8>(at)?;
        return Some(Client {
            address: mapped(option.u32::<4>()),
            port: option.u16::<2>() as u64,
        });
    }
    if length != 20 {
        return None;
    }
    let option = packet.view::<20>(at)?;
    Some(Client {
        address: [option.u64::<4>(), option.u64::<12>()],
        port: option.u16::<2>() as u64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{Hook, HostFrame};
    use std::vec::Vec;

    fn syn(v6: bool, flags: u8, options: &[u8]) -> HostFrame {
        let mut packet = Vec::new();
        if v6 {
            packet.extend([0x60, 0, 0, 0, 0, 20, 6, 64]);
            packet.extend([0x20; 16]);
            packet.extend([0x21; 16]);
        } else {
            packet.extend([0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0]);
            packet.extend([10, 1, 0, 99, 10, 1, 0, 7]);
        }
        let words = 5 + options.len() as u8 / 4;
        packet.extend([0x13, 0x88, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0]);
        packet.extend([words << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
        packet.extend(options);
        HostFrame::new(Hook::Tc, &packet)
    }

    const TOLD4: [u8; 8] = [254, 8, 0x9c, 0x40, 198, 51, 100, 9];

    #[test]
    fn the_first_option_that_names_a_client_is_believed() {
        let nothings = [1, 1, 2, 4, 5, 180, 1, 1];
        let lie = [254, 8, 0, 1, 1, 2, 3, 4];
        for options in [
            &TOLD4[..],
            &[&nothings[..], &TOLD4].concat(),
            &[&TOLD4[..], &lie].concat(),
        ] {
            let Heard::Told(ends, client) = hear(&syn(false, 2, options)) else {
                panic!("{options:?}");
            };
            assert_eq!(
                unmapped(ends.peer),
                Some(u32::from_le_bytes([10, 1, 0, 99]))
            );
            assert_eq!(ends.ports, ports(5000u16.to_be(), 80u16.to_be()));
            let address = u32::from_le_bytes([198, 51, 100, 9]);
            assert_eq!(unmapped(client.address), Some(address));
            assert_eq!(client.port, 40_000u16.to_be() as u64);
        }
        let told6 = [&[254, 20, 0, 9][..], &[0x2a; 16]].concat();
        let Heard::Told(_, client) = hear(&syn(true, 2, &told6)) else {
            panic!("no client");
        };
        assert_eq!(client.address, [0x2a2a_2a2a_2a2a_2a2a; 2]);
    }

    #[test]
    fn what_names_no_client_is_silent_and_what_opens_nothing_says_nothing() {
        let silent = |frame: &HostFrame| matches!(hear(frame), Heard::Silent(_));
        for options in [
            &[][..],
            &[2, 4, 5, 180],
            &[254, 7, 1, 2, 3, 4, 5, 6],
            &[0, 254, 8, 1, 2, 3, 4, 5],
            &[3, 0, 254, 8],
            &[254, 8, 1, 2],
        ] {
            let heard = hear(&syn(false, 2, options));
            assert!(!matches!(heard, Heard::Told(..)), "{options:?}: {heard:?}");
        }
        assert!(silent(&syn(false, 2, &[2, 4, 5, 180])));
        for flags in [0x12, 0x10, 0x04, 0x06, 0x11] {
            assert_eq!(hear(&syn(false, flags, &TOLD4)), Heard::Nothing);
        }
    }
}
