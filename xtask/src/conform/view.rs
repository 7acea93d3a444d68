//! The result of a step on one side, in a form that is equal if both sides did the same.
//!
//! The form leaves out what is not behaviour: numbers that a kernel draws at random, and the order
//! of an unordered listing.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::bed::{Out, Side};
use super::packet::{self, ETHERNET, GRE, GUE_PORT, ICMP, ICMP6, IPIP, IPV6, Packet, TCP, UDP};
use super::record::{FIRST, Record};
use super::scenario::{Slot, Step};

/// The hop limit of packets that a director makes itself.
pub(super) const OWN_TTL: u8 = 64;

/// One step, in a form that is equal if both sides did the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct View {
    pub said: Vec<String>,
    pub frames: BTreeMap<Side, Vec<Seen>>,
    /// The time since the beginning of the scenario.
    pub elapsed_s: u64,
}

/// A frame without the numbers that a kernel draws at random.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub frame: Vec<u8>,
}

impl View {
    pub(super) fn of(step: &Step, record: &Record, slot: Slot) -> View {
        let mut said = Vec::new();
        if let Step::Command { line, .. } = step {
            said.push(format!("exit {}", record.status.unwrap_or(-1)));
            let lines = record.output.lines().map(str::to_owned);
            if line.contains("-Lnc") {
                said.extend(connections(lines, slot));
            } else {
                said.extend(lines);
            }
            said.extend(record.error.lines().map(|line| format!("stderr: {line}")));
        }
        let mut frames: BTreeMap<Side, Vec<Seen>> = BTreeMap::new();
        for side in Side::BOTH {
            let ours = record.frames.iter().filter(|out| out.side == side);
            frames.insert(side, whole(ours));
        }
        View {
            said,
            frames,
            elapsed_s: record.elapsed_ms / 1000,
        }
    }

    /// The lines that only one side has.
    pub(super) fn without(&self, other: &View) -> View {
        let said = self.said.iter().filter(|line| !other.said.contains(line));
        let mut frames = self.frames.clone();
        for (side, seen) in &mut frames {
            seen.retain(|one| other.frames.get(side).is_none_or(|all| !all.contains(one)));
        }
        View {
            said: said.cloned().collect(),
            frames,
            elapsed_s: self.elapsed_s,
        }
    }

    pub(super) fn show(&self) -> String {
        let mut text = String::new();
        for line in &self.said {
            let _ = writeln!(text, "    {line}");
        }
        for (side, seen) in &self.frames {
            for one in seen {
                let _ = writeln!(text, "    {side:?}: {}", one.show());
            }
        }
        if text.is_empty() {
            text.push_str("    nothing\n");
        }
        text
    }
}

/// The heading, and this scenario's connections, sorted as text.
fn connections(lines: impl Iterator<Item = String>, slot: Slot) -> Vec<String> {
    let mut lines: Vec<String> = lines.collect();
    let mut rest = lines.split_off(lines.len().min(2));
    rest.retain(|line| {
        let client = line.split_whitespace().nth(3).unwrap_or("");
        let address = client.rsplit_once(':').map_or("", |(address, _)| address);
        let address = address.trim_matches(['[', ']']);
        address
            .parse()
            .map_or(true, |address| slot.has_client(address))
    });
    rest.sort_by_key(|line| connection(line).unwrap_or_default());
    // The kernel prints a line twice at the end of a page, and a second may have passed in between.
    rest.dedup_by_key(|line| connection(line).map_or(line.clone(), |(text, _)| text));
    lines.extend(rest);
    lines
}

/// The connections of a scenario in a listing, without their times.
pub(super) fn of_slot(listing: &str, slot: Slot) -> Vec<String> {
    let lines = connections(listing.lines().map(str::to_owned), slot);
    let text = |line: &String| connection(line).map_or(line.clone(), |(text, _)| text);
    lines.iter().map(text).collect()
}

/// The line of a connection without its time, or nothing for any other line.
pub(super) fn connection(line: &str) -> Option<(String, u64)> {
    let mut words: Vec<&str> = line.split_whitespace().collect();
    let (minutes, seconds) = words.get(1)?.split_once(':')?;
    let left = minutes.parse::<u64>().ok()? * 60 + seconds.parse::<u64>().ok()?;
    words.remove(1);
    Some((words.join(" "), left))
}

/// The frames with fragments reassembled and without random numbers.
fn whole<'a>(outs: impl Iterator<Item = &'a Out>) -> Vec<Seen> {
    let mut seen: Vec<Seen> = Vec::new();
    let mut pending: Option<Vec<u8>> = None;
    for out in outs {
        let at = innermost(&out.frame);
        let packet = Packet::read(out.frame.get(at..).unwrap_or_default());
        match packet.and_then(|packet| Some((packet.fragment?, packet.payload))) {
            None => seen.push(Seen::of(out.frame.clone())),
            Some((fragment, payload)) => {
                let mut frame = pending.take().unwrap_or_else(|| {
                    let headers = out.frame.len() - payload.len();
                    out.frame[..headers].to_vec()
                });
                frame.extend(payload);
                if fragment.more {
                    pending = Some(frame);
                } else {
                    seen.push(Seen::of(put_together(frame, at)));
                }
            }
        }
    }
    seen.extend(pending.map(Seen::of));
    seen
}

/// The offset of the innermost IP header, after those of tunnels.
pub(super) fn innermost(frame: &[u8]) -> usize {
    let outer = frame.get(ETHERNET..).unwrap_or_default();
    match Packet::read(outer) {
        Some(packet) if packet.fragment.is_none() => {
            let at = frame.len() - packet.payload.len();
            match packet.protocol {
                IPIP | IPV6 => at,
                // RFC 2784: a checksum and two reserved bytes, or neither.
                GRE => at + if packet.payload[0] & 0x80 == 0 { 4 } else { 8 },
                // draft-ietf-intarea-gue: the length of the optional fields in words.
                UDP if gue(frame).is_some() => {
                    at + 8 + 4 + 4 * usize::from(packet.payload.get(8).unwrap_or(&0) & 0x1f)
                }
                _ => ETHERNET,
            }
        }
        _ => ETHERNET,
    }
}

/// Changes the headers of the first fragment into those of the whole packet.
fn put_together(mut frame: Vec<u8>, at: usize) -> Vec<u8> {
    if frame[at] >> 4 == 4 {
        frame[at + 6..at + 8].fill(0);
    } else {
        frame[at + 6] = frame[at + 40];
        frame.drain(at + 40..at + 48);
    }
    // The offsets of the length in the inner and the outer header, which may be the same.
    for start in [at, ETHERNET] {
        let length = (frame.len() - start) as u16;
        let (place, length) = match frame[start] >> 4 {
            4 => (start + 2, length),
            _ => (start + 4, length - 40),
        };
        frame[place..place + 2].copy_from_slice(&length.to_be_bytes());
        packet::sum_up_header(&mut frame[start..]);
    }
    renew_tunnel(&mut frame);
    frame
}

/// The length and the checksum of a tunnel's own header, which belonged to one fragment.
fn renew_tunnel(frame: &mut [u8]) {
    if let Some(at) = gue(frame) {
        let length = (frame.len() - at) as u16;
        frame[at + 4..at + 6].copy_from_slice(&length.to_be_bytes());
    }
    if let Some(at) = gre_sum(frame) {
        frame[at..at + 2].fill(0);
        let sum = !packet::folded(&[&frame[at - 4..]]);
        frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }
}

/// The offset of the checksum in a GRE header, if it has one.
fn gre_sum(frame: &[u8]) -> Option<usize> {
    let packet = Packet::read(frame.get(ETHERNET..)?)?;
    let has_sum = packet.protocol == GRE && packet.payload.first()? & 0x80 != 0;
    has_sum.then(|| frame.len() - packet.payload.len() + 4)
}

/// The offset of a tunnel's UDP header.
fn gue(frame: &[u8]) -> Option<usize> {
    let packet = Packet::read(frame.get(ETHERNET..)?)?;
    let is_whole = packet.fragment.is_none() && packet.payload.len() >= 8;
    let to_it = packet.protocol == UDP && packet.ports()?[1] == GUE_PORT;
    (is_whole && to_it).then(|| frame.len() - packet.payload.len())
}

impl Seen {
    /// Clears the numbers that a director draws at random in packets that it makes itself.
    fn of(mut frame: Vec<u8>) -> Seen {
        let is_gue = gue(&frame).is_some();
        if let Some(at) = gue(&frame) {
            // The source port is a seeded hash, and the checksum covers it.
            frame[at..at + 2].fill(0);
            frame[at + 6..at + 8].fill(0);
        }
        if frame.get(ETHERNET).is_some_and(|byte| byte >> 4 == 4) && frame.len() >= ETHERNET + 20 {
            let header = &mut frame[ETHERNET..ETHERNET + 20];
            let is_tunnel = matches!(header[9], IPIP | IPV6 | GRE) || is_gue;
            let is_error = header[9] == ICMP && header[8] == OWN_TTL;
            if is_tunnel
                || is_error
                || u16::from_be_bytes([header[4], header[5]]) >> 12 != FIRST >> 12
            {
                header[4..6].fill(0);
                header[10..12].fill(0);
            }
        } else if let Some(label) = frame.get_mut(ETHERNET + 1..ETHERNET + 4) {
            // Packets of a scenario have no flow label.
            label[0] &= 0xf0;
            label[1..].fill(0);
        }
        Seen { frame }
    }

    pub(super) fn packet(&self) -> Option<Packet<'_>> {
        Packet::read(self.frame.get(ETHERNET..)?)
    }

    fn show(&self) -> String {
        let mut text = String::new();
        if let Some(packet) = self.packet() {
            let at = |address, port: Option<u16>| match port {
                Some(port) => std::net::SocketAddr::new(address, port).to_string(),
                None => address.to_string(),
            };
            let ports = packet.ports();
            let source = at(packet.source, ports.map(|ports| ports[0]));
            let target = at(packet.target, ports.map(|ports| ports[1]));
            let kind = match packet.protocol {
                TCP => format!("tcp flags {:02x}", packet.payload.get(13).unwrap_or(&0)),
                ICMP | ICMP6 => format!("icmp {:?}", packet.payload.get(..2).unwrap_or(&[])),
                other => format!("protocol {other}"),
            };
            let ttl = packet.ttl;
            let _ = write!(text, "{source} to {target}, {kind}, ttl {ttl}: ");
        }
        for byte in &self.frame {
            let _ = write!(text, "{byte:02x}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_read_without_its_time() {
        let line = "TCP 14:59  ESTABLISHED 198.51.100.16:40000 192.0.2.16:80      10.1.0.16:8080";

        let (text, left) = connection(line).unwrap();

        assert_eq!(left, 899);
        assert!(!text.contains("14:59"));
        assert!(text.ends_with("192.0.2.16:80 10.1.0.16:8080"));
    }
}
