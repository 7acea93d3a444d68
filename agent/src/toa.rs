//! Shows servers of full NAT the address of the client: `shunt agent toa`.
//!
//! Directors send the address in an option of the SYN. One program reads the option. Two others
//! give the address to a program that asks a socket for its peer, by `accept` or `getpeername`. The
//! programs are attached to a cgroup while this process runs. Nothing remains afterwards, however
//! the process ends.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, ensure};
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Map, PerCpuArray};
use aya::programs::{CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, CgroupSockAddr};
use aya::{Ebpf, EbpfLoader};

const HEAR: &str = "realserver_hear";
const PEERS: [&str; 2] = ["realserver_peer4", "realserver_peer6"];
const DIRECTORS: &str = "DIRECTORS";
const TOLD: &str = "TOLD";

/// The local addresses of directors: one address, or a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Believed {
    /// The address, or the first address of the network.
    pub address: IpAddr,
    /// The number of leading bits that count: 32 or 128 for one address.
    pub length: u8,
}

impl FromStr for Believed {
    type Err = String;

    /// Reads `10.1.0.99` or `2001:db8:1::/64`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let most = |address: &IpAddr| if address.is_ipv4() { 32 } else { 128 };
        let read = address.parse().ok().and_then(|address: IpAddr| {
            let length = match length {
                None => most(&address),
                Some(length) => length.parse().ok().filter(|bits| *bits <= most(&address))?,
            };
            Some(Self { address, length })
        });
        read.ok_or_else(|| {
            format!("\"{text}\" is not an address or a network; write 10.1.0.99 or 10.1.0.0/24")
        })
    }
}

impl Believed {
    /// The form that the programs use: IPv4 mapped into IPv6.
    fn key(self) -> Key<[u8; 16]> {
        let length = u32::from(self.length);
        match self.address {
            IpAddr::V4(address) => Key::new(96 + length, address.to_ipv6_mapped().octets()),
            IpAddr::V6(address) => Key::new(length, address.octets()),
        }
    }
}

/// The programs. They work while this value lives.
#[derive(Debug)]
pub struct Toa {
    ebpf: Ebpf,
    cgroup: PathBuf,
}

impl Toa {
    /// Starts to show programs in this cgroup, or without one all programs, the addresses of their
    /// clients. Only options from these directors are read.
    pub fn start(believed: &[Believed], cgroup: Option<&Path>) -> Result<Toa> {
        ensure!(
            !believed.is_empty(),
            "no director is named, and options from unknown sources are not trusted; \
             name the directors' local addresses"
        );
        let cgroup = match cgroup {
            Some(cgroup) => cgroup.to_owned(),
            None => root()?,
        };
        let held = fs::File::open(&cgroup)
            .with_context(|| format!("cannot open the cgroup {}", cgroup.display()))?;
        let mut ebpf = EbpfLoader::new()
            .load(shunt_ebpf::REALSERVER)
            .context("the kernel refuses the programs of a real server")?;
        let map = ebpf.map_mut(DIRECTORS).context("the object lacks a map")?;
        let mut directors: LpmTrie<_, [u8; 16], u32> = map.try_into()?;
        for director in believed {
            directors
                .insert(&director.key(), 1, 0)
                .context("cannot give the programs the address of a director")?;
        }
        // The programs that answer are attached first, so that every address that is read can be
        // asked for.
        for name in PEERS {
            let peer: &mut CgroupSockAddr = program(&mut ebpf, name)?;
            peer.load()
                .with_context(|| format!("the kernel refuses {name}"))?;
            peer.attach(&held, CgroupAttachMode::Single)
                .with_context(|| format!("cannot attach {name} to {}", cgroup.display()))?;
        }
        let hear: &mut CgroupSkb = program(&mut ebpf, HEAR)?;
        hear.load()
            .with_context(|| format!("the kernel refuses {HEAR}"))?;
        hear.attach(
            &held,
            CgroupSkbAttachType::Ingress,
            CgroupAttachMode::Single,
        )
        .with_context(|| format!("cannot attach {HEAR} to {}", cgroup.display()))?;
        Ok(Toa { ebpf, cgroup })
    }

    /// The cgroup to which the programs are attached.
    #[must_use]
    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// The number of connections that carried the address of their client.
    pub fn told(&self) -> Result<u64> {
        let map: &Map = self.ebpf.map(TOLD).context("the object lacks a map")?;
        let told: PerCpuArray<_, u64> = map.try_into()?;
        Ok(told.get(&0, 0)?.iter().sum())
    }
}

fn program<'a, P>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut P>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = aya::programs::ProgramError>,
{
    let program = ebpf.program_mut(name);
    let program = program.with_context(|| format!("the object lacks {name}"))?;
    Ok(program.try_into()?)
}

/// The root of the version 2 cgroups.
fn root() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read the mounts")?;
    let place = mounts.lines().find_map(|line| {
        let mut words = line.split(' ');
        let place = words.nth(1)?;
        (words.next() == Some("cgroup2")).then(|| PathBuf::from(place))
    });
    place.context(
        "no cgroup of version 2 is mounted; mount -t cgroup2 none DIRECTORY, or name one with \
         --cgroup",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directors_are_addresses_and_networks() {
        for (text, length) in [
            ("10.1.0.99", 32),
            ("10.1.0.0/24", 24),
            ("2001:db8:1::99", 128),
            ("2001:db8:1::/64", 64),
        ] {
            let believed: Believed = text.parse().unwrap();
            assert_eq!(believed.length, length, "{text}");
        }
        for text in ["", "10.1.0", "10.1.0.0/33", "2001:db8::/129", "10.1.0.0/"] {
            let told = text.parse::<Believed>().unwrap_err();
            assert!(told.contains("not an address or a network"), "{told}");
        }
    }
}
