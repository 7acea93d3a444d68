//! `--persistence` and `--client-network`: how long a client keeps its server, and which addresses
//! count as one client.

use std::net::Ipv4Addr;
use std::str::FromStr;

use clap::Args;
use shunt_model::service::{Granularity, Persistence};
use shunt_model::{Announce, Family, Service};

#[derive(Clone, Debug, Default, Args)]
pub(super) struct Words {
    /// Seconds that a client keeps its server after its last connection; off disables persistence
    #[arg(long, value_name = "SECONDS|off")]
    persistence: Option<Time>,
    /// How much of a client's address identifies a client: a number of bits, or a mask for IPv4;
    /// all bits by default. With 0 all IPv4 clients are one, and only a persistence engine tells
    /// them apart
    #[arg(long, value_name = "BITS|MASK")]
    client_network: Option<Network>,
    /// What else identifies a client: sip, the Call-ID of its datagrams; off, nothing
    #[arg(long, value_name = "sip|off")]
    persistence_engine: Option<Engine>,
    /// UDP: schedule each datagram by itself, without an entry
    #[arg(long, value_name = "yes|no", num_args = 0..=1, default_missing_value = "yes")]
    one_packet: Option<Answer>,
    /// TCP: how servers of full NAT learn the client's address: toa, in an option of the SYN, which
    /// "shunt agent toa" reads; proxy, in a header of the PROXY protocol, version 2, which the
    /// servers must read; off, not at all
    #[arg(long, value_name = "toa|proxy|off")]
    announce: Option<How>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum How {
    Toa,
    Proxy,
    Off,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Engine {
    Sip,
    Off,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Time {
    Off,
    Seconds(u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Network {
    Bits(u8),
    Mask(Ipv4Addr),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Answer {
    Yes,
    No,
}

impl FromStr for Time {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            _ if text == "off" => Ok(Time::Off),
            Ok(seconds) if seconds > 0 => Ok(Time::Seconds(seconds)),
            _ => Err("it is a number of seconds from 1 on, or off".to_owned()),
        }
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bits = text.strip_prefix('/').unwrap_or(text).parse();
        match (bits, text.parse()) {
            (Ok(bits), _) if bits <= 128 => Ok(Network::Bits(bits)),
            (_, Ok(mask)) => Ok(Network::Mask(mask)),
            _ => Err("it is a number of bits, or a mask such as 255.255.255.0".to_owned()),
        }
    }
}

impl Words {
    /// Puts the options into a service, or fails with the reason.
    pub(super) fn put(&self, service: &mut Service) -> Result<(), String> {
        if let Some(answer) = self.one_packet {
            service.one_packet = answer == Answer::Yes;
        }
        match self.announce {
            None => {}
            Some(How::Toa) => service.announce = Some(Announce::Toa),
            Some(How::Proxy) => service.announce = Some(Announce::Proxy),
            Some(How::Off) => service.announce = None,
        }
        match self.persistence {
            None => {}
            Some(Time::Off) => {
                service.persistence = None;
                service.idle_engine = None;
            }
            Some(Time::Seconds(timeout_s)) => {
                let before = service.persistence.take();
                let granularity = before.as_ref().map(|before| before.granularity);
                service.persistence = Some(Persistence {
                    timeout_s,
                    granularity: granularity.unwrap_or_else(|| whole(service.key.family())),
                    engine: match before {
                        Some(before) => before.engine,
                        None => service.idle_engine.take(),
                    },
                });
            }
        }
        if let Some(engine) = self.persistence_engine {
            let engine = (engine == Engine::Sip).then(|| "sip".to_owned());
            match &mut service.persistence {
                Some(persistence) => persistence.engine = engine,
                None if engine.is_none() => service.idle_engine = None,
                None => return Err("--persistence-engine needs --persistence SECONDS".to_owned()),
            }
        }
        let Some(network) = self.client_network else {
            return Ok(());
        };
        let Some(persistence) = &mut service.persistence else {
            return Err("--client-network needs --persistence SECONDS".to_owned());
        };
        persistence.granularity = granularity(network, service.key.family())?;
        Ok(())
    }
}

/// The granularity in which every address is a client of its own.
fn whole(family: Family) -> Granularity {
    match family {
        Family::Ipv4 => Granularity::Mask(Ipv4Addr::BROADCAST),
        Family::Ipv6 => Granularity::Prefix(128),
    }
}

fn granularity(network: Network, family: Family) -> Result<Granularity, String> {
    match (network, family) {
        (Network::Mask(mask), Family::Ipv4) => Ok(Granularity::Mask(mask)),
        (Network::Mask(mask), Family::Ipv6) => Err(format!(
            "--client-network {mask} is a mask for IPv4; write bits, such as 64"
        )),
        (Network::Bits(0), Family::Ipv6) => {
            Err("--client-network 0 is for IPv4; for IPv6 write at least 1 bit".to_owned())
        }
        (Network::Bits(bits), Family::Ipv6) => Ok(Granularity::Prefix(bits)),
        (Network::Bits(bits @ ..=32), Family::Ipv4) => {
            let host = u32::MAX.checked_shr(u32::from(bits)).unwrap_or(0);
            Ok(Granularity::Mask((!host).into()))
        }
        (Network::Bits(bits), Family::Ipv4) => Err(format!(
            "--client-network {bits} is more than the 32 bits of an IPv4 address"
        )),
    }
}

/// `300 s`, `300 s by 255.255.255.0`, `300 s by sip`, `300 s by sip and 64 bits`, `off`.
pub(super) fn text(service: &Service) -> String {
    let Some(persistence) = &service.persistence else {
        return "off".to_owned();
    };
    let time = match &persistence.engine {
        None => format!("{} s", persistence.timeout_s),
        Some(engine) => format!("{} s by {engine}", persistence.timeout_s),
    };
    let joint = match persistence.engine {
        None => " by ",
        Some(_) => " and ",
    };
    match persistence.granularity {
        granularity if granularity == whole(service.key.family()) => time,
        Granularity::Mask(mask) => format!("{time}{joint}{mask}"),
        Granularity::Prefix(bits) => format!("{time}{joint}{bits} bits"),
    }
}

#[cfg(test)]
mod tests {
    use shunt_model::{Scheduler, SchedulerFlags};

    use super::*;

    fn service(key: &str) -> Service {
        Service {
            key: key.parse().unwrap(),
            scheduler: Scheduler::Rr,
            flags: SchedulerFlags::default(),
            persistence: None,
            one_packet: false,
            settings: Default::default(),
            idle_engine: None,
            announce: None,
        }
    }

    fn words(time: &str, network: &str) -> Words {
        Words {
            persistence: Some(time.parse().unwrap()),
            client_network: Some(network.parse().unwrap()),
            persistence_engine: None,
            one_packet: None,
            announce: None,
        }
    }

    #[test]
    fn a_network_of_clients_is_written_in_bits_or_as_a_mask() {
        let mut web = service("tcp/192.0.2.1:80");
        words("300", "/24").put(&mut web).unwrap();
        assert_eq!(text(&web), "300 s by 255.255.255.0");
        words("60", "255.255.0.0").put(&mut web).unwrap();
        assert_eq!(text(&web), "60 s by 255.255.0.0");
        let mut web = service("tcp/[2001:db8::1]:80");
        words("300", "64").put(&mut web).unwrap();
        assert_eq!(text(&web), "300 s by 64 bits");
        let mask = words("300", "255.0.0.0").put(&mut web).unwrap_err();
        assert_eq!(
            mask,
            "--client-network 255.0.0.0 is a mask for IPv4; write bits, such as 64"
        );
    }

    #[test]
    fn an_engine_needs_persistence_and_stays_with_another_time() {
        let mut phones = service("udp/192.0.2.1:5060");
        let engine = |engine| Words {
            persistence_engine: Some(engine),
            ..Words::default()
        };
        let alone = engine(Engine::Sip).put(&mut phones).unwrap_err();
        assert_eq!(alone, "--persistence-engine needs --persistence SECONDS");
        words("300", "0").put(&mut phones).unwrap();
        engine(Engine::Sip).put(&mut phones).unwrap();
        words("60", "0").put(&mut phones).unwrap();
        assert_eq!(text(&phones), "60 s by sip and 0.0.0.0");
        engine(Engine::Off).put(&mut phones).unwrap();
        assert_eq!(text(&phones), "60 s by 0.0.0.0");
        let mut phones = service("udp/[2001:db8::1]:5060");
        let none = words("300", "0").put(&mut phones).unwrap_err();
        assert!(none.ends_with("write at least 1 bit"), "{none}");
    }

    #[test]
    fn another_time_keeps_the_network_and_off_ends_all() {
        let mut web = service("tcp/192.0.2.1:80");
        words("300", "24").put(&mut web).unwrap();
        let longer = Words {
            persistence: Some(Time::Seconds(600)),
            ..Words::default()
        };
        longer.put(&mut web).unwrap();
        assert_eq!(text(&web), "600 s by 255.255.255.0");
        let off = Words {
            persistence: Some(Time::Off),
            ..Words::default()
        };
        off.put(&mut web).unwrap();
        assert_eq!(text(&web), "off");
    }
}
