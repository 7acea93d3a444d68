//! Plays a scenario on a bed, and records the director's output and packets.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::bed::{Bed, Out, ROUTER_MAC, Side, mac_of};
use super::packet::{self, AH, ESP, ETHERNET, Header, ICMP, ICMP6, Packet};
use super::record::{FIRST, Record};
use super::scenario::{ACK, Datagram, Error, Flow, PUSH, Rule, Scenario, Secured, Step};
use super::view;
use super::vocabulary::{LAST, SETTINGS};
use crate::process;

/// The first commands of each scenario, whatever the one before it left.
const CLEAN: [&str; 2] = ["-C", "--set 900 120 300"];

/// Builds the command `ipvsadm`.
pub(super) type Ipvsadm<'a> = &'a (dyn Fn() -> Command + Sync);

/// The kernel's IPVS sums up its counters every two seconds. Commands that show or clear them wait
/// this long.
const SUMMED_UP: Duration = Duration::from_millis(2100);
/// The most often that a listing of connections is repeated.
const LISTINGS: usize = 5;
const OF_COUNTERS: [&str; 5] = ["--stats", "-Z", "-C", "-D", "-d"];

struct Player<'a> {
    bed: &'a mut Bed,
    ipvsadm: Ipvsadm<'a>,
    waits: bool,
    scenario: &'a Scenario,
    /// The last packet that a server got, by flow.
    delivered: BTreeMap<usize, Vec<u8>>,
    /// Firewall marks, if the packets themselves carry them.
    marks: Vec<(u32, Rule)>,
    sent: u16,
    begun: Instant,
}

/// Plays the scenarios of one bed, and returns one record for each step. If the director `waits`,
/// its counters are delayed.
pub(super) fn play_group(
    bed: &mut Bed,
    ipvsadm: Ipvsadm,
    waits: bool,
    scenarios: &[Scenario],
) -> Result<Vec<Vec<Record>>> {
    // Everything runs in the namespace: a command that had to enter it between fork and exec could
    // not be started without a copy of this process, which is slow in a machine.
    bed.director.clone().run(|| {
        let one = |scenario: &Scenario| {
            play(bed, ipvsadm, waits, scenario)
                .with_context(|| format!("scenario {}", scenario.seed))
        };
        scenarios.iter().map(one).collect()
    })
}

fn play(bed: &mut Bed, ipvsadm: Ipvsadm, waits: bool, scenario: &Scenario) -> Result<Vec<Record>> {
    let mut player = Player {
        bed,
        ipvsadm,
        waits,
        scenario,
        delivered: BTreeMap::new(),
        marks: Vec::new(),
        sent: 0,
        begun: Instant::now(),
    };
    for line in CLEAN {
        player.command(line, "")?;
    }
    for (name, values) in SETTINGS {
        player.set(name, values[0])?;
    }
    player.set(LAST, 0)?;
    player.bed.settle()?;
    let steps = scenario.steps.iter();
    let played = |step: &Step| player.step(step).with_context(|| scenario.describe(step));
    steps.map(played).collect()
}

impl Player<'_> {
    fn step(&mut self, step: &Step) -> Result<Record> {
        let mut record = Record::default();
        match step {
            Step::Command { line, input } => {
                if self.waits && OF_COUNTERS.iter().any(|word| line.contains(word)) {
                    thread::sleep(SUMMED_UP);
                }
                record = if self.waits && line.contains("-Lnc") {
                    self.listing(line)?
                } else {
                    self.command(line, input)?
                };
            }
            Step::Setting { name, value } => self.set(name, *value)?,
            Step::Mark { mark, rule } => self.mark(*mark, *rule)?,
            Step::Client { flow, datagram } => self.client(*flow, *datagram)?,
            Step::Server { flow, datagram } => self.server(*flow, *datagram)?,
            Step::ServerError { flow, error } => self.server_error(*flow, *error)?,
            Step::ClientError { flow, error } => self.client_error(*flow, *error)?,
            Step::ClientSecured { flow, secured } => self.client_secured(*flow, *secured)?,
            Step::ServerSecured { flow, secured } => self.server_secured(*flow, *secured)?,
        }
        // A command sends nothing. A late frame goes into the record of the next packet.
        let is_said = matches!(
            step,
            Step::Command { .. } | Step::Setting { .. } | Step::Mark { .. }
        );
        if !is_said {
            record.frames = self.bed.settle()?;
        }
        record.elapsed_ms = self.begun.elapsed().as_millis() as u64;
        match step {
            // The fragments that come out are not the same on both sides, and later ones would
            // differ too.
            Step::Client { flow, datagram } if datagram.pieces == 1 => {
                self.remember(*flow, &record.frames);
            }
            _ => {}
        }
        Ok(record)
    }

    /// The kernel lists its connections page by page and finds its place again by counting. If a
    /// connection expires meanwhile, another one is left out, so two listings must agree.
    fn listing(&mut self, line: &str) -> Result<Record> {
        let mut record = self.command(line, "")?;
        for _ in 0..LISTINGS {
            let again = self.command(line, "")?;
            let agree = view::of_slot(&record.output, self.scenario.slot)
                == view::of_slot(&again.output, self.scenario.slot);
            record = again;
            if agree {
                break;
            }
        }
        Ok(record)
    }

    fn command(&mut self, line: &str, input: &str) -> Result<Record> {
        let mut command = (self.ipvsadm)();
        let mut child = command
            .args(line.split_whitespace())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start ipvsadm")?;
        if let Some(mut pipe) = child.stdin.take() {
            // The command may have refused its arguments without reading its input.
            let _ = pipe.write_all(input.as_bytes());
        }
        let output = child.wait_with_output().context("ipvsadm")?;
        Ok(Record {
            status: output.status.code(),
            output: String::from_utf8_lossy(&output.stdout).into_owned(),
            error: String::from_utf8_lossy(&output.stderr).into_owned(),
            ..Record::default()
        })
    }

    /// Sets the kernel's sysctl of this name or, if there is none, the setting of Shunt.
    fn set(&mut self, name: &str, value: u8) -> Result<()> {
        if self.waits {
            let file = format!("/proc/sys/net/ipv4/vs/{name}");
            return fs::write(&file, value.to_string())
                .with_context(|| format!("cannot write {file}"));
        }
        let mut shunt = (self.ipvsadm)();
        shunt.arg0("shunt").args(["setting", "set", name]);
        process::output(shunt.arg(value.to_string())).map(drop)
    }

    /// IPVS takes the marks of packets, whatever set them. Shunt sets its own.
    fn mark(&mut self, mark: u32, rule: Rule) -> Result<()> {
        if self.waits {
            self.marks.push((mark, rule));
            return Ok(());
        }
        let mut shunt = (self.ipvsadm)();
        shunt.arg0("shunt").args(["mark", "add"]);
        process::output(shunt.args([mark.to_string(), rule.to_string()])).map(drop)
    }

    fn client(&mut self, flow: usize, datagram: Datagram) -> Result<()> {
        let sent = self.scenario.flows[flow];
        let Flow {
            client, service, ..
        } = sent;
        let header = self.header(flow, client.ip(), service.ip(), datagram);
        let packets = packet::datagram(header, [client.port(), service.port()], datagram);
        let rule = self.marks.iter().find(|(_, rule)| rule.has(&sent));
        let mark = rule.map_or(0, |(mark, _)| *mark);
        self.send_marked(Side::Front, ROUTER_MAC, &packets, mark)
    }

    /// Only a masqueraded server answers through the director, and only if it got a packet.
    fn server(&mut self, flow: usize, datagram: Datagram) -> Result<()> {
        let Some([client, server]) = self.heard(flow) else {
            return Ok(());
        };
        let header = self.header(flow, server.ip(), client.ip(), datagram);
        let packets = packet::datagram(header, [server.port(), client.port()], datagram);
        self.send(Side::Back, mac_of(server.ip()), &packets)
    }

    fn server_error(&mut self, flow: usize, error: Error) -> Result<()> {
        let Some([client, server]) = self.heard(flow) else {
            return Ok(());
        };
        let quoted = self.delivered.get(&flow).cloned().unwrap_or_default();
        self.error(Side::Back, server.ip(), client.ip(), error, &quoted)
    }

    fn client_error(&mut self, flow: usize, error: Error) -> Result<()> {
        let Flow {
            client, service, ..
        } = self.scenario.flows[flow];
        let datagram = Datagram {
            flags: ACK | PUSH,
            payload: 64,
            ttl: 61,
            traffic_class: 0,
            dont_fragment: true,
            pieces: 1,
        };
        let header = self.header(flow, service.ip(), client.ip(), datagram);
        let quoted = packet::datagram(header, [service.port(), client.port()], datagram);
        self.error(Side::Front, client.ip(), service.ip(), error, &quoted[0])
    }

    fn client_secured(&mut self, flow: usize, secured: Secured) -> Result<()> {
        let Flow {
            client, service, ..
        } = self.scenario.flows[flow];
        let packet = self.secured(client.ip(), service.ip(), secured);
        self.send(Side::Front, ROUTER_MAC, &[packet])
    }

    fn server_secured(&mut self, flow: usize, secured: Secured) -> Result<()> {
        let Some([client, server]) = self.heard(flow) else {
            return Ok(());
        };
        let packet = self.secured(server.ip(), client.ip(), secured);
        self.send(Side::Back, mac_of(server.ip()), &[packet])
    }

    fn secured(&mut self, from: IpAddr, to: IpAddr, secured: Secured) -> Vec<u8> {
        self.sent += 1;
        let header = Header {
            source: from,
            target: to,
            protocol: if secured.authenticated { AH } else { ESP },
            ttl: secured.ttl,
            traffic_class: 0,
            dont_fragment: false,
            identification: FIRST + self.sent,
        };
        packet::secured(header, secured)
    }

    fn error(
        &mut self,
        side: Side,
        source: IpAddr,
        target: IpAddr,
        error: Error,
        quoted: &[u8],
    ) -> Result<()> {
        self.sent += 1;
        let header = Header {
            source,
            target,
            protocol: if source.is_ipv4() { ICMP } else { ICMP6 },
            ttl: 63,
            traffic_class: 0,
            dont_fragment: false,
            identification: FIRST + self.sent,
        };
        // RFC 1812, 4.3.2.3: as much as fits in 576 bytes. IPv4 requires at least 28.
        let quoted = &quoted[..quoted.len().min(500)];
        let packet = packet::error(header, error, quoted);
        let from = match side {
            Side::Front => ROUTER_MAC,
            Side::Back => mac_of(source),
        };
        self.send(side, from, &[packet])
    }

    fn send(&self, side: Side, from: [u8; 6], packets: &[Vec<u8>]) -> Result<()> {
        self.send_marked(side, from, packets, 0)
    }

    fn send_marked(&self, side: Side, from: [u8; 6], packets: &[Vec<u8>], mark: u32) -> Result<()> {
        let frame = |packet: &Vec<u8>| packet::frame(side.director(), from, packet);
        packets
            .iter()
            .try_for_each(|packet| self.bed.send(side, &frame(packet), mark))
    }

    fn header(&mut self, flow: usize, from: IpAddr, to: IpAddr, datagram: Datagram) -> Header {
        self.sent += 1;
        Header {
            source: from,
            target: to,
            protocol: self.scenario.flows[flow].protocol(),
            ttl: datagram.ttl,
            traffic_class: datagram.traffic_class,
            dont_fragment: datagram.dont_fragment,
            identification: FIRST + self.sent,
        }
    }

    fn remember(&mut self, flow: usize, frames: &[Out]) {
        let sent = self.scenario.flows[flow];
        let is_it = |packet: &Packet| {
            packet.source == sent.client.ip() && packet.protocol == sent.protocol()
        };
        if frames.iter().any(|out| out.side == Side::Back) {
            // A client that opens a connection again may get a server whose answers take another
            // way. IPVS ends the old connection by a timer, so it would sometimes see its server's
            // answers and sometimes not.
            self.delivered.remove(&flow);
        }
        for out in frames.iter().filter(|out| out.side == Side::Back) {
            let packet = out.frame.get(ETHERNET..).unwrap_or_default();
            match Packet::read(packet) {
                Some(read) if is_it(&read) && read.ports().is_some() => {
                    self.delivered.insert(flow, packet.to_vec());
                }
                _ => {}
            }
        }
    }

    /// The client and the masqueraded server of a flow's last packet.
    fn heard(&self, flow: usize) -> Option<[SocketAddr; 2]> {
        let packet = Packet::read(self.delivered.get(&flow)?)?;
        let ends = packet.ends()?;
        // With direct routing the packet still has the virtual address, and the answer takes
        // another way.
        (ends[1].ip() != self.scenario.flows[flow].service.ip()).then_some(ends)
    }
}
