//! The intended differences between Shunt and IPVS, each by the name under which
//! `docs/standards.md` gives its reason.
//!
//! A view is changed only where exactly this difference is found.

mod connections;

use std::collections::BTreeSet;
use std::net::IpAddr;

use shunt_lab::Family;

use super::bed::{Side, director_address};
use super::packet::{ETHERNET, GRE, ICMP, ICMP6, IPIP, IPV6, Packet, UDP};
use super::scenario::{RST, Scenario, Step, Transport};
use super::view::{OWN_TTL, Seen, View, innermost};
use connections::CLOSED;

/// All intended differences.
#[cfg(test)]
const NAMES: [&str; 16] = [
    TIMERS,
    TIMEOUTS,
    OWN_ERRORS,
    COUNTED_FRAGMENTS,
    COUNTED_ERRORS,
    SERVER_ERRORS,
    SIX_IN_FOUR,
    CUT,
    DELETED_SERVERS,
    LAST_SERVICE,
    ASSURED,
    LEFT_BEHIND,
    SAVED_THRESHOLDS,
    ONCE_ROUTED,
    ONE_PACKET,
    ZEROED,
];
const TIMERS: &str = "timers";
const TIMEOUTS: &str = "changed timeouts";
const OWN_ERRORS: &str = "errors of our own";
const COUNTED_FRAGMENTS: &str = "fragments are counted";
const COUNTED_ERRORS: &str = "errors are not counted";
const SERVER_ERRORS: &str = "ICMPv6 errors of servers";
const SIX_IN_FOUR: &str = "IPv6 in IPv4";
const CUT: &str = "packets that may be cut";
const DELETED_SERVERS: &str = "errors about a deleted server";
const LAST_SERVICE: &str = "the last service of a family";
const ASSURED: &str = "when a template is assured";
const LEFT_BEHIND: &str = "templates of a server that is gone";
const SAVED_THRESHOLDS: &str = "saved thresholds";
const ONE_PACKET: &str = "errors of a local server and one packet";
const ZEROED: &str = "zeroed while a server is deleted";
const ONCE_ROUTED: &str = "connections from before a tunnel";

/// A payload of this size fits every device of the bed, with any headers.
const SURE_TO_FIT: u16 = 1400;
/// Connections, packets and bytes in and out: the columns of a statistics line.
const COLUMNS: usize = 5;
const IN: [usize; 2] = [1, 3];
const OUT: [usize; 2] = [2, 4];

/// The events of a scenario so far that cause a later difference.
pub(super) struct Known<'a> {
    scenario: &'a Scenario,
    names: BTreeSet<&'static str>,
    services: BTreeSet<String>,
    timeouts_changed: bool,
    fragments_sent: bool,
    errors_made: bool,
    servers_deleted: bool,
    became_tunnels: bool,
    one_packet: bool,
    zeroed: bool,
    resets: u64,
    local_masqueraded: bool,
    /// Clients that sent a packet while their family had no service.
    unseen: BTreeSet<String>,
}

impl<'a> Known<'a> {
    pub(super) fn new(scenario: &'a Scenario) -> Self {
        Self {
            scenario,
            names: BTreeSet::new(),
            services: BTreeSet::new(),
            timeouts_changed: false,
            fragments_sent: false,
            errors_made: false,
            servers_deleted: false,
            became_tunnels: false,
            one_packet: false,
            zeroed: false,
            resets: 0,
            local_masqueraded: false,
            unseen: BTreeSet::new(),
        }
    }

    /// The differences that were found.
    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.names.iter().copied()
    }

    /// Makes both views equal in the known differences.
    pub(super) fn settle(&mut self, step: &Step, kernel: &mut View, shunt: &mut View) {
        match step {
            Step::Command { line, input } => {
                self.hear(line, input, kernel);
                if line.contains("-Lnc") {
                    self.left_behind(kernel, shunt);
                    self.templates(kernel, shunt);
                    self.connections(kernel, shunt);
                } else if line.starts_with("-S") {
                    self.thresholds(kernel, shunt);
                } else if line.contains("--stats") {
                    self.counters(kernel, shunt);
                } else if line.starts_with("-L") {
                    self.counts(kernel, shunt);
                }
            }
            Step::Client { flow, datagram } | Step::Server { flow, datagram } => {
                self.fragments_sent |= datagram.pieces > 1;
                let transport = self.scenario.flows[*flow].transport;
                let is_reset = transport == Transport::Tcp && datagram.flags & RST != 0;
                self.resets += u64::from(is_reset);
            }
            _ => {}
        }
        self.six_in_four(kernel, shunt);
        self.cut(step, kernel, shunt);
        self.server_errors(step, kernel, shunt);
        self.own_errors(step, kernel, shunt);
        self.deleted_servers(step, kernel, shunt);
        self.once_routed(kernel, shunt);
        self.last_service(step, kernel, shunt);
    }

    /// Records the effects of a command on later steps.
    fn hear(&mut self, line: &str, input: &str, kernel: &View) {
        if kernel.said.first().is_none_or(|first| first != "exit 0") {
            return;
        }
        for line in input.lines().chain([line]) {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                ["-A", _, service, "-6", ..] => drop(self.services.insert(format!("[{service}"))),
                ["-D", _, service, "-6", ..] => drop(self.services.remove(&format!("[{service}"))),
                ["-A", _, service, ..] => drop(self.services.insert((*service).to_owned())),
                ["-D", _, service, ..] => drop(self.services.remove(*service)),
                ["-C"] => self.services.clear(),
                ["--set", ..] => self.timeouts_changed = true,
                _ => {}
            }
            let own = director_address(Family::V6).to_string();
            self.local_masqueraded |= line.contains(&own) && words.contains(&"-m");
            self.one_packet |= words.contains(&"-o");
            self.zeroed |= words.first() == Some(&"-Z") && self.servers_deleted;
            self.became_tunnels |= words.first() == Some(&"-e") && words.contains(&"-i");
            self.servers_deleted |= matches!(words.first(), Some(&("-D" | "-C" | "-d")));
        }
    }

    /// ipvsadm drops thresholds when it saves.
    fn thresholds(&mut self, kernel: &View, shunt: &mut View) {
        for (theirs, ours) in kernel.said.iter().zip(&mut shunt.said) {
            let is_it = ours
                .strip_prefix(theirs.as_str())
                .is_some_and(|more| more.starts_with(" -x "));
            if is_it {
                ours.clone_from(theirs);
                self.names.insert(SAVED_THRESHOLDS);
            }
        }
    }

    /// A closed connection may have expired on the side where playing took longer.
    fn counts(&mut self, kernel: &View, shunt: &mut View) {
        for (theirs, ours) in kernel.said.iter().zip(&mut shunt.said) {
            let words = |line: &str| -> Vec<String> {
                line.split_whitespace().map(str::to_owned).collect()
            };
            let (one, other) = (words(theirs), words(ours));
            if one.len() != 6 || other.len() != 6 || one[0] != "->" || one[..5] != other[..5] {
                continue;
            }
            let count = |words: &[String]| words[5].parse::<u64>().unwrap_or(0);
            let more = count(&other).saturating_sub(count(&one));
            if kernel.elapsed_s >= CLOSED && (1..=self.resets).contains(&more) {
                ours.clone_from(theirs);
                self.names.insert(TIMERS);
            }
        }
    }

    fn counters(&mut self, kernel: &View, shunt: &mut View) {
        for (theirs, ours) in kernel.said.iter().zip(&mut shunt.said) {
            let (Some((name, one)), Some((other_name, other))) = (counters(theirs), counters(ours))
            else {
                continue;
            };
            if theirs == ours || name != other_name {
                continue;
            }
            let is_server = name.first() == Some(&"->");
            if self.zeroed && is_server && one.iter().zip(&other).all(|(one, other)| one >= other) {
                self.names.insert(ZEROED);
                ours.clone_from(theirs);
                continue;
            }
            let differ = |columns: [usize; 2]| columns.iter().any(|&at| one[at] != other[at]);
            if one[0] != other[0]
                || (differ(IN) && !self.fragments_sent)
                || (differ(OUT) && !self.errors_made)
            {
                continue;
            }
            if differ(IN) {
                self.names.insert(COUNTED_FRAGMENTS);
            }
            if differ(OUT) {
                self.names.insert(COUNTED_ERRORS);
            }
            ours.clone_from(theirs);
        }
    }

    fn own_errors(&mut self, step: &Step, kernel: &View, shunt: &mut View) {
        let in_pieces = matches!(step, Step::Client { datagram, .. } if datagram.pieces > 1);
        for side in Side::BOTH {
            let (Some(theirs), Some(ours)) =
                (kernel.frames.get(&side), shunt.frames.get_mut(&side))
            else {
                continue;
            };
            self.errors_made |= theirs.iter().any(is_own_error);
            for (one, other) in theirs.iter().zip(ours) {
                if is_own_error(one)
                    && is_own_error(other)
                    && one != other
                    && (plain(one, side) == plain(other, side)
                        || (in_pieces && error_kind(one) == error_kind(other)))
                {
                    *other = one.clone();
                    self.names.insert(OWN_ERRORS);
                } else if self.one_packet
                    && side == Side::Front
                    && one != other
                    && is_own_error(one)
                    && is_own_error(other)
                    && error_kind(one) == error_kind(other)
                {
                    *other = one.clone();
                    self.names.insert(ONE_PACKET);
                }
            }
        }
    }

    /// IPVS does not set "don't fragment" when it encapsulates IPv6 in IPv4.
    fn six_in_four(&mut self, kernel: &View, shunt: &mut View) {
        let (Some(theirs), Some(ours)) = (
            kernel.frames.get(&Side::Back),
            shunt.frames.get_mut(&Side::Back),
        ) else {
            return;
        };
        for (one, other) in theirs.iter().zip(ours) {
            let is_it = |packet: Packet| {
                packet.source.is_ipv4() && other.frame[innermost(&other.frame)] >> 4 == 6
            };
            let word = ETHERNET + 6..ETHERNET + 8;
            if one != other
                && other.packet().is_some_and(is_it)
                && other.frame.get(word.clone()) == Some(&[0x40, 0])
            {
                other.frame[word].fill(0);
                if one == other {
                    self.names.insert(SIX_IN_FOUR);
                }
            }
        }
    }

    /// IPVS checks the checksum of these errors without the pseudo-header and drops them, including
    /// those of the director's own stack if the director is a masqueraded server.
    fn server_errors(&mut self, step: &Step, kernel: &View, shunt: &mut View) {
        let flow = match step {
            Step::ServerError { flow, .. } => *flow,
            Step::Client { flow, .. } if self.local_masqueraded => *flow,
            _ => return,
        };
        let is_v6 = self.scenario.flows[flow].client.is_ipv6();
        let mut errors = shunt.frames.values().flatten();
        if is_v6 && is_silent(kernel) && !is_silent(shunt) && errors.all(is_error) {
            shunt.frames.clone_from(&kernel.frames);
            self.names.insert(SERVER_ERRORS);
            // The forwarded error was counted, too.
            self.errors_made = true;
        }
    }

    /// IPVS fragments packets that do not fit a tunnel and may be fragmented. Shunt sends an error.
    fn cut(&mut self, step: &Step, kernel: &View, shunt: &mut View) {
        let Step::Client { datagram, .. } = step else {
            return;
        };
        let front = shunt
            .frames
            .get(&Side::Front)
            .map_or(&[][..], Vec::as_slice);
        let is_told = front.len() == 1 && front.iter().all(is_own_error);
        let is_sent = kernel
            .frames
            .get(&Side::Back)
            .is_some_and(|sent| sent.len() == 1);
        if !datagram.dont_fragment && datagram.payload > SURE_TO_FIT && is_told && is_sent {
            shunt.frames.clone_from(&kernel.frames);
            self.names.insert(CUT);
        }
    }

    fn deleted_servers(&mut self, step: &Step, kernel: &View, shunt: &mut View) {
        let is_error = matches!(step, Step::ServerError { .. } | Step::ClientError { .. });
        if is_error && self.servers_deleted && is_silent(shunt) && !is_silent(kernel) {
            shunt.frames.clone_from(&kernel.frames);
            self.names.insert(DELETED_SERVERS);
        }
    }

    /// IPVS keeps one route for a server, and a tunnel's route has no next hop for other packets.
    fn once_routed(&mut self, kernel: &View, shunt: &mut View) {
        let routed = |seen: &Seen| {
            let packet = seen.packet();
            packet.is_some_and(|packet| !matches!(packet.protocol, IPIP | IPV6 | GRE))
        };
        let back = shunt.frames.get(&Side::Back);
        let is_routed = back.is_some_and(|seen| !seen.is_empty() && seen.iter().all(routed));
        if self.became_tunnels && is_silent(kernel) && is_routed {
            shunt.frames.clone_from(&kernel.frames);
            self.names.insert(ONCE_ROUTED);
        }
    }

    /// IPVS does not run without a service, and the director's own stack gets the packets.
    fn last_service(&mut self, step: &Step, kernel: &View, shunt: &mut View) {
        let flow = match step {
            Step::Command { .. } | Step::Setting { .. } | Step::Mark { .. } => return,
            Step::Client { flow, .. }
            | Step::Server { flow, .. }
            | Step::ServerError { flow, .. }
            | Step::ClientError { flow, .. }
            | Step::ClientSecured { flow, .. }
            | Step::ServerSecured { flow, .. } => self.scenario.flows[*flow],
        };
        let is_v6 = flow.service.is_ipv6();
        let has_any = self.services.iter().any(|name| name.contains('[') == is_v6);
        if has_any || !self.servers_deleted {
            return;
        }
        self.unseen.insert(flow.client.to_string());
        if kernel.frames != shunt.frames {
            shunt.frames.clone_from(&kernel.frames);
            self.names.insert(LAST_SERVICE);
        }
    }
}

fn is_silent(view: &View) -> bool {
    view.frames.values().all(Vec::is_empty)
}

/// The name and the numbers of a statistics line.
fn counters(line: &str) -> Option<(Vec<&str>, Vec<u64>)> {
    let mut words: Vec<&str> = line.split_whitespace().collect();
    let numbers = words.split_off(words.len().checked_sub(COLUMNS)?);
    let numbers: Option<Vec<u64>> = numbers.iter().map(|word| word.parse().ok()).collect();
    Some((words, numbers?))
}

fn is_error(seen: &Seen) -> bool {
    let Some(packet) = seen.packet() else {
        return false;
    };
    let kind = packet.payload.first().copied().unwrap_or(0);
    match packet.protocol {
        ICMP => matches!(kind, 3 | 11),
        ICMP6 => (1..=4).contains(&kind),
        _ => false,
    }
}

/// The receiver, type and code of an error.
fn error_kind(seen: &Seen) -> Option<(IpAddr, [u8; 2])> {
    let packet = seen.packet()?;
    Some((packet.target, packet.payload.get(..2)?.try_into().ok()?))
}

fn is_own_error(seen: &Seen) -> bool {
    is_error(seen) && seen.packet().is_some_and(|packet| packet.ttl == OWN_TTL)
}

/// An error without the parts that its sender may choose: traffic class, "don't fragment", towards
/// servers the source, and whether the quoted packet has its original TTL or a decremented one.
fn plain(seen: &Seen, side: Side) -> Vec<u8> {
    let mut frame = seen.frame.clone();
    let Some(packet) = Packet::read(&frame[ETHERNET..]) else {
        return frame;
    };
    let quote = frame.len() - packet.payload.len() + 8;
    let is_v4 = packet.source.is_ipv4();
    let is_udp = Packet::read(&frame[quote..]).is_some_and(|inner| inner.protocol == UDP);
    if is_v4 {
        frame[ETHERNET + 1] = 0;
        frame[ETHERNET + 6..ETHERNET + 8].fill(0);
    }
    if side == Side::Back {
        let source = if is_v4 { 12..16 } else { 8..24 };
        frame[ETHERNET + source.start..ETHERNET + source.end].fill(0);
    }
    // If a local server is masqueraded, IPVS quotes the checksum that the server got.
    let sum = quote + if is_v4 { 26 } else { 46 };
    if let (true, Some(bytes)) = (is_udp, frame.get_mut(sum..sum + 2)) {
        bytes.fill(0);
    }
    // The checksums of the error and of the quoted header depend on these fields.
    frame[quote - 6..quote - 4].fill(0);
    let (ttl, sum) = if frame[quote] >> 4 == 4 {
        (8..9, 10..12)
    } else {
        (7..8, 7..8)
    };
    for range in [ttl, sum] {
        if let Some(bytes) = frame.get_mut(quote + range.start..quote + range.end) {
            bytes.fill(0);
        }
    }
    frame
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn every_name_stands_in_the_standards() {
        let page = fs::read_to_string(crate::place::root().join("docs/standards.md")).unwrap();
        for name in NAMES {
            assert!(page.contains(&format!("| {name} |")), "{name}");
        }
    }

    #[test]
    fn a_line_of_statistics_is_read_with_its_name() {
        let (name, numbers) = counters("  -> 10.1.0.16:80  6  15  7  1348  540").unwrap();

        assert_eq!(name, ["->", "10.1.0.16:80"]);
        assert_eq!(numbers, [6, 15, 7, 1348, 540]);
        assert!(counters("Prot LocalAddress:Port Conns").is_none());
    }
}
