//! The eBPF programs of a real server: loading, attaching, pinning, configuring, reading, removing.
//!
//! Links and maps are pinned, so that they stay when the process that made them ends.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, Result};
use aya::maps::{Array, HashMap, Map, MapData, PerCpuArray};
use aya::programs::links::FdLink;
use aya::programs::tc::{TcAttachType, qdisc_add_clsact, qdisc_detach_program};
use aya::programs::{ProgramInfo, SchedClassifier, Xdp, xdp::XdpMode};
use aya::util::KernelVersion;
use aya::{Ebpf, EbpfLoader, Pod};
use shunt_datapath::realserver::{Note, Settings, role};

use crate::folder;
use crate::machine::{Device, Machine};
use crate::memory::Programs;
use crate::options::{Hook, Options};

const IN: &str = "realserver_in";
const OUT: &str = "realserver_out";
const XDP: &str = "realserver_xdp";
const ADDRESSES: &str = "ADDRESSES";
const SETTINGS: &str = "SETTINGS";
const COUNTERS: &str = "COUNTERS";

/// The bytes of the IPv4 or IPv6 header and the TCP header.
const HEADERS4: u32 = 20 + 20;
const HEADERS6: u32 = 40 + 20;
/// RFC 9293, 3.7.1: the segment size that every host accepts.
const SEGMENT_LEAST: u32 = 536;

/// The configuration of the programs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Lesson {
    pub settings: Settings,
    /// The role of each address. IPv4 addresses are mapped into IPv6.
    pub roles: BTreeMap<[u8; 16], u32>,
}

impl Lesson {
    pub(crate) fn new(options: &Options, machine: &Machine, facing: &[&Device]) -> Lesson {
        let mtu = facing.iter().map(|device| device.mtu).min().unwrap_or(1500);
        let room = mtu.saturating_sub(options.overhead().into());
        let segment = |headers: u32| {
            let bytes = room.saturating_sub(headers).max(SEGMENT_LEAST);
            u16::try_from(bytes).unwrap_or(u16::MAX)
        };
        let mut roles = BTreeMap::new();
        let mut add = |addresses: &[IpAddr], role: u32| {
            for address in addresses {
                *roles.entry(key(*address)).or_default() |= role;
            }
        };
        add(&options.vips, role::VIRTUAL);
        add(&options.directors, role::DIRECTOR);
        add(&machine.own(&options.vips), role::OWN);
        Lesson {
            settings: Settings {
                segment4: segment(HEADERS4),
                segment6: segment(HEADERS6),
                listed: u8::from(!options.directors.is_empty()),
                reserved: 0,
                gue_port: options.gue_port.to_be(),
            },
            roles,
        }
    }
}

/// Builds the key as `realserver::key` builds it from a packet's address.
fn key(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

#[repr(transparent)]
#[derive(Clone, Copy)]
struct Entry(Settings);

// SAFETY: the type is eight bytes of integers without padding; the assertion beside it proves this.
unsafe impl Pod for Entry {}

/// The hook for the decapsulation, as far as this kernel supports it.
#[must_use]
pub(crate) fn hook(asked: Hook) -> Hook {
    match asked {
        Hook::Auto if is_kernel(6, 3) => Hook::Tc,
        Hook::Auto => Hook::Generic,
        Hook::Tc | Hook::Native | Hook::Generic => asked,
    }
}

/// Whether tc programs are attached by links, of which a device may have several, or by filters.
#[must_use]
pub(crate) fn has_links() -> bool {
    is_kernel(6, 6)
}

/// Whether the kernel is at least this version. An unreadable version counts as recent.
fn is_kernel(major: u8, minor: u8) -> bool {
    KernelVersion::current().map_or(true, |kernel| kernel >= KernelVersion::new(major, minor, 0))
}

/// Loads and configures the programs, and attaches them to all devices or to none.
pub(crate) fn attach(devices: &[&str], hook: Hook, lesson: &Lesson, pins: &Path) -> Result<()> {
    let mut ebpf = EbpfLoader::new()
        .load(shunt_ebpf::REALSERVER)
        .context("the kernel refuses the programs of a real server")?;
    for name in [ADDRESSES, SETTINGS, COUNTERS] {
        let map = ebpf
            .map(name)
            .with_context(|| format!("the object has no map {name}"))?;
        map.pin(pins.join(name))
            .with_context(|| format!("cannot pin {name}"))?;
    }
    tell(pins, lesson)?;
    for device in devices {
        if hook == Hook::Tc {
            attach_tc(&mut ebpf, IN, device, TcAttachType::Ingress, pins)?;
        } else {
            attach_xdp(&mut ebpf, device, hook, pins)?;
        }
        attach_tc(&mut ebpf, OUT, device, TcAttachType::Egress, pins)?;
    }
    Ok(())
}

fn attach_tc(
    ebpf: &mut Ebpf,
    name: &str,
    device: &str,
    direction: TcAttachType,
    pins: &Path,
) -> Result<()> {
    let program: &mut SchedClassifier = ebpf
        .program_mut(name)
        .context("the object lacks a program")?
        .try_into()?;
    if program.fd().is_err() {
        program
            .load()
            .with_context(|| format!("the kernel refuses {name}"))?;
    }
    let what = || format!("cannot attach {name} to {device}");
    if !has_links() {
        // The qdisc may exist already.
        let _ = qdisc_add_clsact(device);
        let id = program.attach(device, direction).with_context(what)?;
        // A filter stays until it is removed by name.
        std::mem::forget(program.take_link(id)?);
        return Ok(());
    }
    let id = program.attach(device, direction).with_context(what)?;
    let link: FdLink = program.take_link(id)?.try_into()?;
    link.pin(pins.join(format!("{device}-{name}")))
        .with_context(what)?;
    Ok(())
}

fn attach_xdp(ebpf: &mut Ebpf, device: &str, hook: Hook, pins: &Path) -> Result<()> {
    let program: &mut Xdp = ebpf
        .program_mut(XDP)
        .context("the object lacks a program")?
        .try_into()?;
    if program.fd().is_err() {
        program
            .load()
            .with_context(|| format!("the kernel refuses {XDP}"))?;
    }
    let mode = if hook == Hook::Native {
        XdpMode::Driver
    } else {
        XdpMode::Skb
    };
    let what =
        || format!("cannot attach {XDP} to {device} ({hook}); is another XDP program there?");
    let id = program.attach(device, mode).with_context(what)?;
    let link: FdLink = program.take_link(id)?.try_into()?;
    link.pin(pins.join(format!("{device}-{XDP}")))
        .with_context(what)?;
    Ok(())
}

/// Removes the programs. A program that is already gone is not an error.
pub(crate) fn detach(programs: &Programs) -> Result<()> {
    if programs.filters {
        for device in &programs.devices {
            let _ = qdisc_detach_program(device, TcAttachType::Ingress, IN);
            let _ = qdisc_detach_program(device, TcAttachType::Egress, OUT);
        }
    }
    match fs::remove_dir_all(&programs.pins) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", programs.pins.display()))
        }
        _ => {
            programs.pins.parent().map(folder::tidy);
            Ok(())
        }
    }
}

/// Gives the programs the changed settings and addresses.
pub(crate) fn tell(pins: &Path, lesson: &Lesson) -> Result<()> {
    let mut settings: Array<_, Entry> = Map::Array(map(pins, SETTINGS)?).try_into()?;
    settings
        .set(0, Entry(lesson.settings), 0)
        .context("cannot configure the programs")?;
    let mut addresses: HashMap<_, [u8; 16], u32> =
        Map::HashMap(map(pins, ADDRESSES)?).try_into()?;
    for (address, role) in &lesson.roles {
        addresses
            .insert(address, role, 0)
            .context("cannot give the programs an address")?;
    }
    let known: BTreeSet<[u8; 16]> = addresses.keys().collect::<Result<_, _>>()?;
    for address in known
        .iter()
        .filter(|address| !lesson.roles.contains_key(*address))
    {
        addresses
            .remove(address)
            .context("cannot remove an address from the programs")?;
    }
    Ok(())
}

/// What is wrong with the programs; `None` if everything is as wanted.
pub(crate) fn missing(
    programs: &Programs,
    hook: Hook,
    devices: &[&str],
    lesson: &Lesson,
) -> Result<Option<String>> {
    if !programs.pins.join(ADDRESSES).exists() {
        return Ok(Some(
            "gone, or pinned where this process cannot see it".to_owned(),
        ));
    }
    for device in devices {
        let taken_off = match hook {
            Hook::Tc => is_attached(programs, device, TcAttachType::Ingress, IN),
            _ => programs.pins.join(format!("{device}-{XDP}")).exists(),
        };
        if !taken_off || !is_attached(programs, device, TcAttachType::Egress, OUT) {
            return Ok(Some(format!("not attached to {device}")));
        }
    }
    if programs
        .devices
        .iter()
        .any(|device| !devices.contains(&device.as_str()))
    {
        return Ok(Some(format!("attached to {}", programs.devices.join(", "))));
    }
    let addresses: HashMap<_, [u8; 16], u32> =
        Map::HashMap(map(&programs.pins, ADDRESSES)?).try_into()?;
    let known: BTreeMap<[u8; 16], u32> = addresses.iter().collect::<Result<_, _>>()?;
    let settings: Array<_, Entry> = Map::Array(map(&programs.pins, SETTINGS)?).try_into()?;
    let is_taught = known == lesson.roles && settings.get(&0, 0)?.0 == lesson.settings;
    Ok((!is_taught).then(|| "the addresses or the MTU have changed".to_owned()))
}

fn is_attached(programs: &Programs, device: &str, direction: TcAttachType, name: &str) -> bool {
    if !has_links() {
        return programs.devices.iter().any(|known| known == device);
    }
    let is_ours = |info: &ProgramInfo| info.name_as_str() == Some(name);
    SchedClassifier::query_tcx(device, direction)
        .is_ok_and(|(_, programs)| programs.iter().any(is_ours))
}

/// The programs' counters, summed over all CPUs.
pub(crate) fn counters(pins: &Path) -> Result<BTreeMap<&'static str, u64>> {
    let counters: PerCpuArray<_, u64> = Map::PerCpuArray(map(pins, COUNTERS)?).try_into()?;
    let read = |note: Note| Ok((note.name(), counters.get(&(note as u32), 0)?.iter().sum()));
    Note::ALL.into_iter().map(read).collect()
}

fn map(pins: &Path, name: &str) -> Result<MapData> {
    let path = pins.join(name);
    MapData::from_pin(&path).with_context(|| format!("cannot open {}", path.display()))
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Hook::Auto => "auto",
            Hook::Tc => "tc",
            Hook::Native => "native XDP",
            Hook::Generic => "generic XDP",
        })
    }
}
