//! The list of what a real server needs, each with what is so. `check` shows it, `join` works
//! it off from top to bottom: a virtual address comes last, when nothing can answer ARP for it.

use std::net::IpAddr;

use anyhow::Result;

use crate::machine::{Device, Machine, host_length};
use crate::memory::Memory;
use crate::options::Options;
use crate::program::{self, Lesson};
use crate::setting;

pub struct Wanted {
    pub thing: Thing,
    pub what: String,
    /// What is so instead; nothing if it is as wanted.
    pub found: Option<String>,
    pub fix: String,
}

pub enum Thing {
    Setting {
        key: String,
        value: u32,
    },
    Programs,
    Address(IpAddr),
    /// Only told: taking an address from a device that somebody configured is not for us.
    Elsewhere,
}

pub fn list(options: &Options, machine: &Machine, memory: &Memory) -> Result<Vec<Wanted>> {
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

/// ip-sysctl: 1 and 2 answer for addresses of the asked device only, 8 never. What lies between
/// is about scopes.
fn is_silent(value: u32) -> bool {
    matches!(value, 1 | 2 | 8)
}

/// The kernel takes the larger of the settings of `all` and of the device.
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
            // A larger value that is wrong is changed where it is.
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
        what: format!("{name} is {value}: the network is told nothing of virtual addresses"),
        fix: format!("sysctl -w {key}={value}"),
        thing: Thing::Setting { key, value },
        found,
    })
}

/// A strict reverse path filter drops a client's packet that comes by another device than the
/// one that leads back to the client.
fn way_back(machine: &Machine, device: &Device) -> Result<Wanted> {
    const STRICT: u32 = 1;
    const LOOSE: u32 = 2;
    let key = setting::key(&device.name, "rp_filter");
    let all = setting::number(&setting::key("all", "rp_filter"))?;
    let effective = all.max(setting::number(&key)?);
    let drops = effective == STRICT && !machine.default_by.contains(&device.index);
    Ok(Wanted {
        what: format!("rp_filter lets packets of clients in by {}", device.name),
        found: drops.then(|| format!("{effective}, and the way back is another")),
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
            "tunnels are taken off on {} by {hook}, and clients told {} bytes a segment \
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

/// A virtual address on a device is answered for there, whatever the settings.
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
