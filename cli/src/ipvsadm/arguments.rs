//! A command line as a request: what is asked for, word by word.
//!
//! A value that cannot be is a mistake at once; what words mean together is looked at in `check`.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;

use shunt_model::{
    Encapsulation, Family, Method, Protocol, SchedulerFlags, Server, ServerAddress, ServiceKey,
    Timeouts, TunnelChecksum,
};

use super::addresses::{self, leading_number, number};
use super::halt::{Halt, try_help, usage};
use super::names::Names;
use super::popt::Reader;
use super::sync_daemon;
use super::words::{Choice, Command, Kind, Token, TunnelType};

/// 31 days.
const LONGEST_TIMEOUT_S: i64 = 31 * 24 * 60 * 60;
/// What `-p` means without a number, whatever the manual says.
const PERSISTENT_S: u32 = 360;
const LARGEST: i64 = 0x7fff_ffff;

/// What a line asks for.
#[derive(Debug)]
pub(super) enum Request {
    About(About),
    Do(Box<Arguments>),
}

/// What a line asks about the program itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum About {
    Help,
    Version,
}

/// The granularity as it was last set, which is right for a service only if the families agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Netmask {
    Mask(Ipv4Addr),
    Prefix(u8),
}

/// The service of a line, word by word.
#[derive(Debug)]
pub(super) struct ServiceWords {
    pub family: Option<Family>,
    pub protocol: Option<Protocol>,
    pub address: IpAddr,
    pub port: u16,
    pub mark: Option<NonZeroU32>,
    pub scheduler: Option<String>,
    pub flags: SchedulerFlags,
    pub persistent_s: Option<u32>,
    pub netmask: Netmask,
    pub one_packet: bool,
    pub engine: Option<String>,
}

impl ServiceWords {
    /// The service meant, if one is.
    #[must_use]
    pub(super) fn key(&self) -> Option<ServiceKey> {
        if let Some(mark) = self.mark {
            let family = self.family.unwrap_or(Family::Ipv4);
            return Some(ServiceKey::Mark { mark, family });
        }
        Some(ServiceKey::Address {
            protocol: self.protocol?,
            address: self.address,
            port: self.port,
        })
    }
}

/// The server of a line, word by word.
#[derive(Debug)]
pub(super) struct ServerWords {
    pub address: IpAddr,
    pub port: u16,
    pub forwarding: Forwarding,
    pub tunnel: TunnelType,
    pub tunnel_port: u16,
    pub tunnel_checksum: TunnelChecksum,
    pub weight: u32,
    pub upper_threshold: u32,
    pub lower_threshold: u32,
}

/// `-g`, `-m` or `-i`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Forwarding {
    Route,
    Masquerade,
    Tunnel,
}

impl ServerWords {
    #[must_use]
    pub(super) fn at(&self) -> ServerAddress {
        ServerAddress {
            address: self.address,
            port: self.port,
        }
    }

    #[must_use]
    pub(super) fn server(&self) -> Server {
        let checksum = self.tunnel_checksum;
        let encapsulation = match self.tunnel {
            TunnelType::Ipip => Encapsulation::Ipip,
            TunnelType::Gre => Encapsulation::Gre { checksum },
            TunnelType::Gue => Encapsulation::Gue {
                port: self.tunnel_port,
                checksum,
            },
        };
        Server {
            at: self.at(),
            method: match self.forwarding {
                Forwarding::Route => Method::Route,
                Forwarding::Masquerade => Method::Masquerade,
                Forwarding::Tunnel => Method::Tunnel(encapsulation),
            },
            weight: self.weight,
            upper_threshold: self.upper_threshold,
            lower_threshold: self.lower_threshold,
        }
    }
}

/// A line that could be read.
#[derive(Debug)]
pub(super) struct Arguments {
    pub command: Command,
    given: BTreeSet<Kind>,
    pub service: ServiceWords,
    pub server: ServerWords,
    pub timeouts: Timeouts,
}

impl Arguments {
    fn new(command: Command) -> Self {
        let nowhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        Self {
            command,
            given: BTreeSet::new(),
            service: ServiceWords {
                family: None,
                protocol: None,
                address: nowhere,
                port: 0,
                mark: None,
                scheduler: None,
                flags: SchedulerFlags::default(),
                persistent_s: None,
                netmask: Netmask::Mask(Ipv4Addr::BROADCAST),
                one_packet: false,
                engine: None,
            },
            server: ServerWords {
                address: nowhere,
                port: 0,
                forwarding: Forwarding::Route,
                tunnel: TunnelType::Ipip,
                tunnel_port: 0,
                tunnel_checksum: TunnelChecksum::Off,
                weight: 1,
                upper_threshold: 0,
                lower_threshold: 0,
            },
            timeouts: Timeouts {
                tcp_s: 0,
                tcp_fin_s: 0,
                udp_s: 0,
            },
        }
    }

    /// Whether an option of this kind was given.
    #[must_use]
    pub(super) fn has(&self, kind: Kind) -> bool {
        self.given.contains(&kind)
    }

    #[must_use]
    pub(super) fn has_any(&self, kinds: &[Kind]) -> bool {
        kinds.iter().any(|&kind| self.has(kind))
    }
}

/// Reads a line. The first option is the command; the others may stand in any order.
pub(super) fn read(program: &str, line: &[String], names: &dyn Names) -> Result<Request, Halt> {
    let mut reader = Reader::new(line);
    let Some(Ok((first, value))) = reader.next() else {
        return Err(try_help(program));
    };
    let command = match first {
        Token::Help => return Ok(Request::About(About::Help)),
        Token::Version => return Ok(Request::About(About::Version)),
        Token::Command(command) => command,
        Token::Option(_) => return Err(try_help(program)),
    };
    sync_daemon::check_role(command, value)?;
    let mut arguments = Arguments::new(command);
    let mut flags = None;
    while let Some(read) = reader.next() {
        match read {
            Err(bad) => {
                let text = format!("{}: {bad}", reader.current());
                return Err(Halt::Line { text });
            }
            Ok((Token::Option(Choice::Only(Kind::SchedFlags)), value)) => {
                arguments.once(Kind::SchedFlags)?;
                flags = value;
            }
            Ok((Token::Option(choice), value)) => arguments.take(choice, value, names)?,
            Ok((Token::Command(_) | Token::Help | Token::Version, _)) => {
                return usage(format!("invalid option `{}'", reader.current()));
            }
        }
    }
    let mut leftovers = reader.leftovers().into_iter();
    if command == Command::Set {
        arguments.timeouts = read_timeouts(&mut leftovers)?;
    }
    if let Some(leftover) = leftovers.next() {
        return usage(format!("unexpected argument {leftover}"));
    }
    // The flags are read last, because what they mean depends on the scheduler.
    if let Some(flags) = flags {
        let scheduler = arguments.service.scheduler.as_deref();
        arguments.service.flags = read_flags(flags, scheduler.unwrap_or(DEFAULT_SCHEDULER))?;
    }
    Ok(Request::Do(Box::new(arguments)))
}

/// What a line asks that needs no daemon to be answered.
#[must_use]
pub(super) fn about(line: &[String]) -> Option<About> {
    match Reader::new(line).next()?.ok()?.0 {
        Token::Help => Some(About::Help),
        Token::Version => Some(About::Version),
        Token::Command(_) | Token::Option(_) => None,
    }
}

pub(super) const DEFAULT_SCHEDULER: &str = "wlc";

impl Arguments {
    fn once(&mut self, kind: Kind) -> Result<(), Halt> {
        if self.given.insert(kind) {
            return Ok(());
        }
        usage(format!("multiple '{kind}' options specified"))
    }

    fn take(&mut self, choice: Choice, value: Option<&str>, names: &dyn Names) -> Result<(), Halt> {
        if let Some(kind) = choice.kind() {
            self.once(kind)?;
        }
        let text = value.unwrap_or_default();
        match choice {
            Choice::Tcp => self.take_service(Protocol::Tcp, text, names),
            Choice::Udp => self.take_service(Protocol::Udp, text, names),
            Choice::Sctp => self.take_service(Protocol::Sctp, text, names),
            Choice::Mark => self.take_mark(text),
            Choice::Ipv6 => self.take_ipv6(),
            Choice::Masquerade => self.take_forwarding(Forwarding::Masquerade),
            Choice::Tunnel => self.take_forwarding(Forwarding::Tunnel),
            Choice::Route => self.take_forwarding(Forwarding::Route),
            Choice::Sort => Ok(()),
            Choice::Only(kind) => self.take_kind(kind, value, text, names),
        }
    }

    fn take_kind(
        &mut self,
        kind: Kind,
        value: Option<&str>,
        text: &str,
        names: &dyn Names,
    ) -> Result<(), Halt> {
        match kind {
            // An empty name is none.
            Kind::Scheduler => self.service.scheduler = filled(text),
            Kind::Persistent => {
                self.service.persistent_s = Some(match value {
                    None => PERSISTENT_S,
                    Some(text) => timeout(text, 1)?,
                });
            }
            Kind::Netmask => self.service.netmask = self.netmask(text, names)?,
            Kind::Ops => self.service.one_packet = true,
            Kind::Engine => self.service.engine = filled(text),
            Kind::RealServer => self.take_server(text, names)?,
            Kind::Weight => self.server.weight = limited(text, LARGEST, "weight")?,
            Kind::UpperThreshold => {
                self.server.upper_threshold = limited(text, LARGEST, "u_threshold")?;
            }
            Kind::LowerThreshold => {
                self.server.lower_threshold = limited(text, LARGEST, "l_threshold")?;
            }
            Kind::TunType => match TunnelType::from_name(text) {
                Some(tunnel) => self.server.tunnel = tunnel,
                None => return usage("illegal tunnel type specified".into()),
            },
            Kind::TunPort => match addresses::number(text, 1..=65_535).map(u16::try_from) {
                Some(Ok(port)) => self.server.tunnel_port = port,
                _ => return usage("illegal tunnel port specified".into()),
            },
            Kind::TunNocsum => self.server.tunnel_checksum = TunnelChecksum::Off,
            Kind::TunCsum => self.server.tunnel_checksum = TunnelChecksum::On,
            Kind::TunRemcsum => self.server.tunnel_checksum = TunnelChecksum::Remote,
            kind => sync_daemon::check(kind, text)?,
        }
        Ok(())
    }

    fn take_service(
        &mut self,
        protocol: Protocol,
        text: &str,
        names: &dyn Names,
    ) -> Result<(), Halt> {
        let Some(at) = addresses::read(text, Some(protocol), names) else {
            return usage("illegal virtual server address[:port] specified".into());
        };
        let service = &mut self.service;
        service.protocol = Some(protocol);
        service.family = Some(at.address.into());
        service.address = at.address;
        service.port = at.port.unwrap_or(0);
        // A mask given before an IPv6 address is lost.
        if at.address.is_ipv6() {
            service.netmask = Netmask::Prefix(128);
        }
        Ok(())
    }

    fn take_mark(&mut self, text: &str) -> Result<(), Halt> {
        let mark = number(text, 1..=i64::from(u32::MAX)).map(u32::try_from);
        let Some(mark) = mark.and_then(Result::ok).and_then(NonZeroU32::new) else {
            return usage(format!("invalid fwmark value `{text}' specified"));
        };
        self.service.mark = Some(mark);
        self.service.family = Some(Family::Ipv4);
        // So that a server's port may be given by name.
        self.service.protocol = Some(Protocol::Tcp);
        Ok(())
    }

    fn take_ipv6(&mut self) -> Result<(), Halt> {
        if self.service.mark.is_none() {
            return usage("-6 used before -f\n".into());
        }
        self.service.family = Some(Family::Ipv6);
        self.service.netmask = Netmask::Prefix(128);
        Ok(())
    }

    fn netmask(&self, text: &str, names: &dyn Names) -> Result<Netmask, Halt> {
        if self.service.family == Some(Family::Ipv6) {
            let length = u8::try_from(leading_number(text));
            return match length {
                Ok(length @ 1..=128) => Ok(Netmask::Prefix(length)),
                _ => usage("illegal ipv6 netmask specified".into()),
            };
        }
        match addresses::read_mask(text, names) {
            Some(mask) => Ok(Netmask::Mask(mask)),
            None => usage("illegal virtual server persistent mask specified".into()),
        }
    }

    fn take_server(&mut self, text: &str, names: &dyn Names) -> Result<(), Halt> {
        let Some(at) = addresses::read(text, self.service.protocol, names) else {
            return usage("illegal real server address[:port] specified".into());
        };
        self.server.address = at.address;
        self.server.port = at.port.unwrap_or(self.service.port);
        Ok(())
    }

    fn take_forwarding(&mut self, forwarding: Forwarding) -> Result<(), Halt> {
        self.server.forwarding = forwarding;
        Ok(())
    }
}

fn filled(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn limited(text: &str, largest: i64, what: &str) -> Result<u32, Halt> {
    match number(text, 0..=largest).map(u32::try_from) {
        Some(Ok(number)) => Ok(number),
        _ => usage(format!("illegal {what} specified")),
    }
}

fn timeout(text: &str, least: i64) -> Result<u32, Halt> {
    match number(text, least..=LONGEST_TIMEOUT_S).map(u32::try_from) {
        Some(Ok(seconds)) => Ok(seconds),
        _ => usage(format!("invalid timeout value `{text}' specified")),
    }
}

fn read_timeouts<'a>(words: &mut impl Iterator<Item = &'a str>) -> Result<Timeouts, Halt> {
    let (Some(tcp), Some(tcp_fin), Some(udp)) = (words.next(), words.next(), words.next()) else {
        return usage("--set option requires 3 timeout values".into());
    };
    Ok(Timeouts {
        tcp_s: timeout(tcp, 0)?,
        tcp_fin_s: timeout(tcp_fin, 0)?,
        udp_s: timeout(udp, 0)?,
    })
}

fn read_flags(text: &str, scheduler: &str) -> Result<SchedulerFlags, Halt> {
    let mut flags = SchedulerFlags::default();
    for flag in text.split(',').filter(|flag| !flag.is_empty()) {
        let of = match flag {
            "flag-1" | "flag-2" | "flag-3" => scheduler,
            "sh-fallback" | "sh-port" => "sh",
            "mh-fallback" | "mh-port" => "mh",
            _ => return usage(format!("invalid scheduler flag `{flag}'")),
        };
        if of != scheduler {
            return usage(format!("incompatible scheduler flag `{flag}'"));
        }
        match flag {
            "flag-1" | "sh-fallback" | "mh-fallback" => flags.fallback = true,
            "flag-2" | "sh-port" | "mh-port" => flags.port = true,
            _ => flags.third = true,
        }
    }
    Ok(flags)
}
