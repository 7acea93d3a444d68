//! The list of what a real server needs, each item with its present state. `check` prints the list
//! and `join` works through it from top to bottom. Virtual addresses come last, when nothing can
//! answer ARP for them.

use std::net::IpAddr;

use anyhow::Result;

use crate::machine::{Device, Machine, host_length};
use crate::memory::Memory;
use crate::options::Options;
use crate::program::{self, Lesson};
use crate::setting;

pub(crate) struct Wanted {
    pub thing: Thing,
    pub what: String,
    /// The present state, if it differs from what is wanted.
    pub found: Option<String>,
    pub fix: String,
}

pub(crate) enum Thing {
    Setting {
        key: String,
        value: u32,
    },
    Programs,
    Address(IpAddr),
    /// `join` only reports this item: the agent does not take an address from a device that
    /// somebody configured.
    Elsewhere,
}

pub(crate) fn list(options: &Options, machine: &Machine, memory: &Memory) -> Result<Vec<Wanted>> {
    let facing = machine.facing(&options.devices)?;
    let mut wanted = Vec::new();
    if options.vips.iter().any(IpAddr::is_ipv4) {
        wanted.push(arp(options, machine, &facing, "arp_ignore", 1, is_silent)?);
        wanted.push(arp(
            options,
            machine,
            &facing,
            "arp_announce",
            2,
            |value| value == 2,
        )?);
        for device in &facing {
            wanted.push(way_back(machine, device)?);
        }
    }
    if options.tunnel {
        wanted.push(tunnel(options, machine, &facing, memory)?);
    }
    for address in &options.vips {
        wanted.extend(elsewhere(machine, *address));
        wanted.push(held(machine, *address)?);
    }
    Ok(wanted)
}

/// ip-sysctl: with 1 and 2 a device answers only for its own addresses, with 8 for none. The values
/// between them concern scopes.
fn is_silent(value: u32) -> bool {
    matches!(value, 1 | 2 | 8)
}

/// The kernel uses the larger one of the values for `all` and for the device.
fn arp(
    options: &Options,
    machine: &Machine,
    facing: &[&Device],
    name: &str,
    value: u32,
    is_right: impl Fn(u32) -> bool,
) -> Result<Wanted> {
    let common = setting::key("all", name);
    let all = setting::number(&common)?;
    let named = !options.devices.is_empty();
    let everything = machine
        .devices
        .iter()
        .filter(|device| device.is_ethernet && device.is_up);
    let devices: Vec<&Device> = if named {
        facing.to_vec()
    } else {
        everything.collect()
    };
    let mut wrong = None;
    for device in devices {
        let own = setting::key(&device.name, name);
        let present = setting::number(&own)?;
        let effective = all.max(present);
        if !is_right(effective) {
            // A value that is too large is changed where it is set.
            let in_device = if effective > value {
                present == effective
            } else {
                named
            };
            let key = if in_device { own } else { common.clone() };
            wrong = Some((key, format!("{effective} on {}", device.name)));
            break;
        }
    }
    let (key, found) = match wrong {
        Some((key, found)) => (key, Some(found)),
        None => (common, None),
    };
    Ok(Wanted {
        what: format!("{name} is {value}: virtual addresses are not announced to the network"),
        fix: format!("sysctl -w {key}={value}"),
        thing: Thing::Setting { key, value },
        found,
    })
}

/// A strict reverse path filter drops a client's packet if the route back to the client leaves by
/// another device.
fn way_back(machine: &Machine, device: &Device) -> Result<Wanted> {
    const STRICT: u32 = 1;
    const LOOSE: u32 = 2;
    let key = setting::key(&device.name, "rp_filter");
    let all = setting::number(&setting::key("all", "rp_filter"))?;
    let effective = all.max(setting::number(&key)?);
    let drops = effective == STRICT && !machine.default_by.contains(&device.index);
    Ok(Wanted {
        what: format!("rp_filter accepts packets of clients on {}", device.name),
        found: drops.then(|| format!("{effective}, and the route back leaves by another device")),
        fix: format!("sysctl -w {key}={LOOSE}"),
        thing: Thing::Setting { key, value: LOOSE },
    })
}

fn tunnel(
    options: &Options,
    machine: &Machine,
    facing: &[&Device],
    memory: &Memory,
) -> Result<Wanted> {
    let names: Vec<&str> = facing.iter().map(|device| device.name.as_str()).collect();
    let lesson = Lesson::new(options, machine, facing);
    let hook = program::hook(options.hook);
    let found = match &memory.programs {
        None => Some("not attached".to_owned()),
        Some(programs) => program::missing(programs, hook, &names, &lesson)?,
    };
    Ok(Wanted {
        thing: Thing::Programs,
        what: format!(
            "tunnels are decapsulated on {} by {hook}, and segments announced with {} bytes \
             (IPv6: {})",
            names.join(", "),
            lesson.settings.segment4,
            lesson.settings.segment6
        ),
        found,
        fix: "shunt agent join --tunnel --director ADDRESS".to_owned(),
    })
}

fn held(machine: &Machine, address: IpAddr) -> Result<Wanted> {
    let there = machine.loopback()?.addresses.contains(&address);
    let length = host_length(address);
    let options = if address.is_ipv4() {
        "scope host"
    } else {
        "nodad"
    };
    Ok(Wanted {
        thing: Thing::Address(address),
        what: format!("{address}/{length} is on lo"),
        found: (!there).then(|| "not there".to_owned()),
        fix: format!("ip address add {address}/{length} dev lo {options}"),
    })
}

/// A device answers ARP for every virtual address on it, whatever the settings.
fn elsewhere(machine: &Machine, address: IpAddr) -> Option<Wanted> {
    let has = |device: &&Device| !device.is_loopback && device.addresses.contains(&address);
    let device = machine.devices.iter().find(has)?;
    Some(Wanted {
        thing: Thing::Elsewhere,
        what: format!("{address} is on no device that answers for it"),
        found: Some(format!("on {}", device.name)),
        fix: format!("ip address del {address} dev {}", device.name),
    })
}
