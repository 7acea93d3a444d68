//! The daemon's command line. Without arguments it runs in the foreground with an empty table.

use clap::{Parser, ValueEnum};
use shunt_control::director::Sizes;
use shunt_control::network::attach::Setting;

use crate::kernel::object::Capacity;

/// Runs the director of this network namespace in the foreground.
///
/// The packet path stays in the kernel when the daemon ends, and the next daemon takes it over.
/// The tables' sizes apply when a packet path is loaded, not when it is taken over.
#[derive(Clone, Debug, Parser)]
#[command(name = "shuntd", version)]
pub struct Options {
    /// How devices are attached to that no --device names.
    #[arg(long, value_enum, default_value_t = Attach::Auto)]
    pub attach: Attach,

    /// A device and how to attach to it, such as eth0=tc; may be given more than once.
    #[arg(long = "device", value_name = "NAME=HOW", value_parser = device)]
    pub devices: Vec<(String, Attach)>,

    /// Whether processes on this machine that ask for a virtual address are given a server.
    #[arg(long, value_enum, default_value_t = Callers::On)]
    pub callers: Callers,

    /// IPv4 flows that the table has room for (65536 to 67108864); a masqueraded connection takes
    /// two.
    #[arg(long, default_value_t = 1 << 20, value_parser = flows)]
    pub flows: u32,

    /// IPv6 flows; a quarter of --flows if not given.
    #[arg(long, value_parser = flows)]
    pub flows6: Option<u32>,

    /// Connections of full NAT, and of other NAT that is translated one by one, that the tables
    /// have room for. Memory is taken as they come.
    #[arg(long, default_value_t = 1 << 17)]
    #[arg(value_parser = clap::value_parser!(u32).range(1 << 10..=1 << 25))]
    pub translations: u32,

    /// Calls of services with a persistence engine that the tables have room for. Memory is taken
    /// as they come.
    #[arg(long, default_value_t = 1 << 16)]
    #[arg(value_parser = clap::value_parser!(u32).range(1 << 10..=1 << 24))]
    pub calls: u32,

    /// Services that the tables have room for.
    #[arg(long, default_value_t = 16_384)]
    #[arg(value_parser = clap::value_parser!(u32).range(16..=1 << 20))]
    pub services: u32,

    /// Servers of all services together.
    #[arg(long, default_value_t = 32_768)]
    #[arg(value_parser = clap::value_parser!(u32).range(16..=1 << 22))]
    pub servers: u32,

    /// Words for pools: one a server, 256 for each service with sh, 4093 with mh.
    #[arg(long, default_value_t = 1 << 21)]
    #[arg(value_parser = clap::value_parser!(u32).range(1 << 14..=1 << 28))]
    pub pool_words: u32,

    /// What a stop by SIGTERM or SIGINT leaves: keep leaves the packet path forwarding, remove
    /// takes everything away.
    #[arg(long, value_enum, default_value_t = Stop::Keep)]
    pub stop: Stop,

    /// Members of this group may ask and change, as those may who have CAP_NET_ADMIN; nobody else
    /// if there is no such group.
    #[arg(long, default_value = "shunt")]
    pub group: String,

    /// What is logged to stderr, as for RUST_LOG: error, warn, info, debug, trace.
    #[arg(long, default_value = "info")]
    pub log: String,
}

/// The hook of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Attach {
    /// tc for devices whose packets are socket buffers, XDP for network cards.
    Auto,
    /// XDP in the driver.
    XdpNative,
    /// XDP over socket buffers.
    XdpGeneric,
    /// tc.
    Tc,
    /// The device gets no program.
    Off,
}

/// Whether processes of the director itself get servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Callers {
    /// Connections to virtual addresses get a server.
    On,
    /// Only packets from other machines get a server.
    Off,
}

/// What becomes of the packet path when the daemon stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Stop {
    /// Forwarding goes on, and the next daemon takes it over.
    Keep,
    /// Programs and tables are taken away.
    Remove,
}

impl From<Attach> for Setting {
    fn from(attach: Attach) -> Self {
        match attach {
            Attach::Auto => Setting::Auto,
            Attach::XdpNative => Setting::XdpNative,
            Attach::XdpGeneric => Setting::XdpGeneric,
            Attach::Tc => Setting::Tc,
            Attach::Off => Setting::Off,
        }
    }
}

fn device(text: &str) -> Result<(String, Attach), String> {
    let (name, how) = text
        .split_once('=')
        .ok_or("expected NAME=HOW, such as eth0=tc")?;
    let attach = Attach::from_str(how, true)
        .map_err(|_| format!("\"{how}\" is none of auto, xdp-native, xdp-generic, tc, off"))?;
    Ok((name.to_owned(), attach))
}

fn flows(text: &str) -> Result<u32, String> {
    let number: u32 = text
        .parse()
        .map_err(|_| format!("\"{text}\" is no number of flows"))?;
    if (1 << 16..=1 << 26).contains(&number) {
        Ok(number)
    } else {
        Err(format!("{number} is not from 65536 to 67108864"))
    }
}

impl Options {
    /// The sizes of the tables that these options ask for.
    #[must_use]
    pub fn capacity(&self) -> Capacity {
        Capacity {
            flows4: self.flows,
            flows6: self.flows6.unwrap_or((self.flows / 4).max(1 << 16)),
            translations: self.translations.saturating_mul(2),
            calls: self.calls,
            sizes: Sizes {
                services: self.services,
                servers: self.servers,
                pool_words: self.pool_words,
            },
        }
    }

    /// How a device of this name is attached to.
    #[must_use]
    pub fn setting(&self, name: &str) -> Setting {
        let named = self.devices.iter().rev().find(|(device, _)| device == name);
        named.map_or(self.attach, |(_, attach)| *attach).into()
    }
}
