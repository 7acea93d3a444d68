//! A director between two wires, whose other ends this program holds.
//!
//! Every neighbour is a permanent entry, so that nothing is resolved on the wires and each frame
//! that comes out is the director's answer to one that went in. The bed is the same on this kernel
//! and on the one that has IPVS.

use std::fs;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use shunt_lab::{Family, Host, PacketSocket, Prefix, Route, Segment, until, veth};

use super::packet::{self, ETHERNET, Header, ICMP, ICMP6, Packet};
use super::scenario::{SERVERS, SLOTS, Slot, VIRTUALS};

/// The limit for an expected frame. It takes microseconds on an idle machine.
const LIMIT: Duration = Duration::from_secs(20);
const ROUTER: u8 = 1;
const DIRECTOR: u8 = 2;
/// A machine on the back segment that is not a server.
const NEIGHBOUR: u8 = 3;
/// Neighbour and router discovery and multicast listener reports, which come at any time.
const CHATTER: [u8; 6] = [130, 131, 132, 133, 135, 143];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Side {
    /// The side of the clients.
    Front,
    /// The side of the servers.
    Back,
}

impl Side {
    pub(super) const BOTH: [Side; 2] = [Side::Front, Side::Back];

    fn device(self) -> &'static str {
        match self {
            Side::Front => "front",
            Side::Back => "back",
        }
    }

    fn segment(self) -> Segment {
        match self {
            Side::Front => Segment::Front,
            Side::Back => Segment::Back,
        }
    }

    /// A machine at the other end, for frames whose sender does not matter.
    fn stranger(self) -> u8 {
        match self {
            Side::Front => ROUTER,
            Side::Back => NEIGHBOUR,
        }
    }

    /// The director's MAC address on this side.
    pub(super) fn director(self) -> [u8; 6] {
        [2, 0, 0, 0, 2, self as u8]
    }
}

/// A frame that came out of the director.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Out {
    pub side: Side,
    pub frame: Vec<u8>,
}

pub(super) struct Bed {
    pub director: Host,
    _outside: Host,
    ends: [PacketSocket; 2],
    fences: u16,
}

/// The router's MAC address, by which all clients are reached.
pub(super) const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 0, ROUTER];

/// The MAC address of the machine on the back segment with this address.
pub(super) fn mac_of(address: IpAddr) -> [u8; 6] {
    let last = match address {
        IpAddr::V4(v4) => v4.octets()[3],
        IpAddr::V6(v6) => v6.octets()[15],
    };
    [2, 0, 0, 0, 1, last]
}

/// An address of the director itself.
pub(super) fn director_address(family: Family) -> IpAddr {
    Segment::Front.host(family, DIRECTOR)
}

impl Bed {
    /// Marks of packets survive a device pair only if both of its ends are in one namespace
    /// (`skb_scrub_packet`).
    pub(super) fn new(keeps_marks: bool) -> Result<Bed> {
        let (director, outside) = (Host::new("director")?, Host::new("outside")?);
        outside.sysctls(&[
            ("net.ipv6.conf.all.disable_ipv6", "1"),
            ("net.ipv6.conf.default.disable_ipv6", "1"),
        ])?;
        director.sysctls(&[
            ("net.ipv4.ip_forward", "1"),
            ("net.ipv6.conf.all.forwarding", "1"),
        ])?;
        let far = |side: Side| match (side, keeps_marks) {
            (Side::Front, true) => (&director, "far"),
            _ => (&outside, side.device()),
        };
        for side in Side::BOTH {
            let (host, device) = far(side);
            veth(&director, side.device(), host, device)?;
            director.wire(side.device())?;
            host.wire(device)?;
            director.set_mac(side.device(), side.director())?;
        }
        if keeps_marks {
            director.sysctl("net.ipv6.conf.far.disable_ipv6", "1")?;
        }
        for family in Family::BOTH {
            address(&director, family)?;
        }
        until("the director's addresses to be usable", LIMIT, || {
            usable(&director)
        })?;
        let open = |side: Side| {
            let (host, device) = far(side);
            PacketSocket::open(host, device)
        };
        let ends = [open(Side::Front)?, open(Side::Back)?];
        let mut bed = Bed {
            director,
            _outside: outside,
            ends,
            fences: 0,
        };
        // The first frames of a device may wait for its carrier.
        bed.settle()?;
        Ok(bed)
    }

    /// Lets native XDP send frames to the other ends.
    pub(super) fn pass_xdp(&self) -> Result<()> {
        for side in Side::BOTH {
            self._outside.pass_xdp(side.device())?;
        }
        Ok(())
    }

    pub(super) fn send(&self, side: Side, frame: &[u8], mark: u32) -> Result<()> {
        let end = &self.ends[side as usize];
        end.mark(mark)?;
        end.send(frame)
    }

    /// Returns all frames that came out, once the director has handled everything that went in.
    ///
    /// An echo request on each side follows the frames before it, so its answer comes after theirs.
    /// A second echo follows, because GRO may hold TCP segments until the first echo has passed.
    pub(super) fn settle(&mut self) -> Result<Vec<Out>> {
        let mut outs = Vec::new();
        for side in [Side::BOTH, Side::BOTH].concat() {
            self.fences = self.fences.wrapping_add(1);
            let number = self.fences;
            let target = side.segment().host(Family::V4, DIRECTOR);
            let header = Header {
                source: side.segment().host(Family::V4, side.stranger()),
                target,
                protocol: ICMP,
                ttl: 64,
                traffic_class: 0,
                dont_fragment: false,
                identification: 0,
            };
            let echo = packet::echo(header, number);
            let source = [2, 0, 0, 0, side as u8, side.stranger()];
            self.send(side, &packet::frame(side.director(), source, &echo), 0)?;
            let end = &mut self.ends[side as usize];
            end.receive(LIMIT, |captured| {
                let frame = &captured.frame;
                if captured.outgoing || packet::is_echo_reply(frame, number) {
                    return !captured.outgoing;
                }
                if !is_chatter(frame) {
                    let frame = frame.clone();
                    outs.push(Out { side, frame });
                }
                false
            })?
            .with_context(|| format!("the director does not answer on its {side:?} side"))?;
        }
        Ok(outs)
    }
}

/// Whether no IPv6 address is tentative. The kernel checks each address in its own time, also
/// without duplicate address detection, and silently drops packets to a tentative address (RFC
/// 4862, 5.4).
fn usable(director: &Host) -> Result<bool> {
    const TENTATIVE: u8 = 0x40;
    let path = "/proc/thread-self/net/if_inet6";
    let text = director.run(|| fs::read_to_string(path).context(path))?;
    let is_tentative = |line: &str| {
        let flags = line.split_whitespace().nth(4);
        let flags = flags.and_then(|flags| u8::from_str_radix(flags, 16).ok());
        flags.is_none_or(|flags| flags & TENTATIVE != 0)
    };
    Ok(!text.lines().any(is_tentative))
}

fn is_chatter(frame: &[u8]) -> bool {
    let Some(packet) = Packet::read(frame.get(ETHERNET..).unwrap_or_default()) else {
        return true;
    };
    let kind = packet.payload.first().copied().unwrap_or(0);
    // A multicast listener report begins with a hop-by-hop header.
    packet.protocol == 0 || (packet.protocol == ICMP6 && CHATTER.contains(&kind))
}

fn address(director: &Host, family: Family) -> Result<()> {
    let length = match family {
        Family::V4 => 24,
        Family::V6 => 64,
    };
    for side in Side::BOTH {
        let address = side.segment().host(family, DIRECTOR);
        director.address(side.device(), Prefix { address, length })?;
        let stranger = side.segment().host(family, side.stranger());
        let mac = [2, 0, 0, 0, side as u8, side.stranger()];
        director.neighbour(side.device(), stranger, mac)?;
    }
    for slot in (0..SLOTS).map(Slot) {
        for number in 0..VIRTUALS {
            director.address("lo", slot.virtual_address(family, number))?;
        }
        for number in 0..SERVERS {
            let server = slot.server(family, number);
            director.neighbour(Side::Back.device(), server, mac_of(server))?;
        }
    }
    director.route(&Route::default_via(Segment::Front.host(family, ROUTER)))
}
