//! `--persistence` and `--client-network`: how long a client keeps its server, and who counts as
//! one client.

use std::net::Ipv4Addr;
use std::str::FromStr;

use clap::Args;
use shunt_model::service::{Granularity, Persistence};
use shunt_model::{Announce, Family, Service};

#[derive(Clone, Debug, Default, Args)]
pub struct Words {
    /// Seconds that a client keeps its server after its last connection; off ends persistence
    #[arg(long, value_name = "SECONDS|off")]
    persistence: Option<Time>,
    /// How much of a client's address counts: bits, or a mask for IPv4. All of it if left out
    #[arg(long, value_name = "BITS|MASK")]
    client_network: Option<Network>,
    /// UDP: schedule each datagram by itself, and remember nothing
    #[arg(long, value_name = "yes|no", num_args = 0..=1, default_missing_value = "yes")]
    one_packet: Option<Answer>,
    /// TCP: tell servers of full NAT who the client is: toa, in an option of the SYN, which "shunt
    /// agent toa" reads; proxy, in a header of the PROXY protocol, version 2, which the servers
    /// must read; off: do not
    #[arg(long, value_name = "toa|proxy|off")]
    announce: Option<How>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum How {
    Toa,
    Proxy,
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
            (Ok(bits), _) if (1..=128).contains(&bits) => Ok(Network::Bits(bits)),
            (_, Ok(mask)) if mask != Ipv4Addr::UNSPECIFIED => Ok(Network::Mask(mask)),
            _ => {
                Err("it is a number of bits from 1 on, or a mask such as 255.255.255.0".to_owned())
            }
        }
    }
}

impl Words {
    /// Puts what was said into a service, or says what cannot be.
    pub fn put(&self, service: &mut Service) -> Result<(), String> {
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
            Some(Time::Off) => service.persistence = None,
            Some(Time::Seconds(timeout_s)) => {
                let before = service.persistence.take();
                let granularity = before.as_ref().map(|before| before.granularity);
                service.persistence = Some(Persistence {
                    timeout_s,
                    granularity: granularity.unwrap_or_else(|| whole(service.key.family())),
                    engine: before.and_then(|before| before.engine),
                });
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

/// Every client by itself.
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

/// `300 s`, `300 s for a network of 255.255.255.0`, `off`.
pub fn text(service: &Service) -> String {
    let Some(persistence) = &service.persistence else {
        return "off".to_owned();
    };
    let time = format!("{} s", persistence.timeout_s);
    match persistence.granularity {
        granularity if granularity == whole(service.key.family()) => time,
        Granularity::Mask(mask) => format!("{time} by {mask}"),
        Granularity::Prefix(bits) => format!("{time} by {bits} bits"),
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
            announce: None,
        }
    }

    fn words(time: &str, network: &str) -> Words {
        Words {
            persistence: Some(time.parse().unwrap()),
            client_network: Some(network.parse().unwrap()),
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
