//! The tables of sh, dh and mh: which server a hash leads to.
//!
//! Quiesced servers keep their slots, with weight 0. The packet path gives a client that hashes to
//! one no server, or looks further if the service's flags ask for it.

use std::net::IpAddr;

use shunt_datapath::entry::scheduler;
use shunt_datapath::schedule::hsiphash;
use shunt_model::Family;

use super::{Compiled, Member, common_divisor};

/// `IP_VS_SH_TAB_SIZE` of ip_vs_sh.c.
const SOURCE_SLOTS: usize = 256;

/// `ip_vs_sh_reassign`: each server in turn, as often in a row as its weight. A quiesced server has
/// one slot a turn.
pub(super) fn source(members: &[Member]) -> Compiled {
    let rows = members.iter().cycle().flat_map(|member| {
        let length = member.weight.max(1) as usize;
        std::iter::repeat_n(member.slot(), length.min(SOURCE_SLOTS))
    });
    Compiled::still(scheduler::SH, rows.take(SOURCE_SLOTS).collect())
}

/// `IP_VS_DH_TAB_SIZE` of ip_vs_dh.c.
const TARGET_SLOTS: usize = 256;

/// `ip_vs_dh_reassign`: each server in turn, whatever its weight.
pub(super) fn target(members: &[Member]) -> Compiled {
    let slots = members.iter().cycle().map(Member::slot);
    Compiled::still(scheduler::DH, slots.take(TARGET_SLOTS).collect())
}

/// `IP_VS_MH_TAB_SIZE` of ip_vs_mh.c as distributions build it. It is a prime.
const MAGLEV_SLOTS: u32 = 4093;
/// The large table: a prime too, and the size that the authors of Maglev use (Eisenbud et al.,
/// 2016, 5.3).
const LARGE_SLOTS: u32 = 65_537;

pub(super) fn maglev_slots(large: bool) -> u32 {
    if large { LARGE_SLOTS } else { MAGLEV_SLOTS }
}

/// `IP_VS_MH_TAB_BITS`: weights are cut to this many bits.
const MAGLEV_BITS: u32 = 6;
/// The keys of `generate_hash_secret`.
const OFFSET_KEY: u64 = 2_654_435_761;
const SKIP_KEY: u64 = 2_654_446_892;

/// A server while the table of mh is filled.
struct Filler {
    slot: u64,
    /// The slot that it prefers next, and the distance to the one after that.
    place: u32,
    skip: u32,
    /// The number of slots that it takes in each turn.
    turns: u32,
}

/// `ip_vs_mh_populate`: in turn, each server takes its next preferred slots.
pub(super) fn maglev(family: Family, large: bool, members: &[Member]) -> Compiled {
    let slots = maglev_slots(large);
    // The kernel keeps its table when the servers outnumber the slots.
    let first = members.len().saturating_sub(slots as usize);
    let mut fillers = fillers(family, slots, &members[first..]);
    if fillers.is_empty() {
        return Compiled::empty();
    }
    let mut table = vec![None; slots as usize];
    let mut free = table.len();
    'fill: loop {
        for filler in &mut fillers {
            for _ in 0..filler.turns {
                // The number of slots is prime, so a step of any length visits all of them.
                while table[filler.place as usize].is_some() {
                    filler.place = (filler.place + filler.skip) % slots;
                }
                table[filler.place as usize] = Some(filler.slot);
                free -= 1;
                if free == 0 {
                    break 'fill;
                }
            }
        }
    }
    Compiled::still(scheduler::MH, table.into_iter().flatten().collect())
}

/// `ip_vs_mh_permutate`: a server counts with its last weight that was not 0, so quiescing it moves
/// no client of another server.
fn fillers(family: Family, slots: u32, members: &[Member]) -> Vec<Filler> {
    let divisor = common_divisor(members.iter().map(standing_weight));
    let heaviest = members.iter().map(standing_weight).max().unwrap_or(0);
    let Some(widest) = heaviest.checked_div(divisor) else {
        return Vec::new();
    };
    let shift = (u32::BITS - widest.leading_zeros()).saturating_sub(MAGLEV_BITS);
    let filler = |member: &Member| {
        let value = fold(family, member.at.address).wrapping_add(member.at.port.into());
        Filler {
            slot: member.slot(),
            place: hsiphash(value, OFFSET_KEY) % slots,
            skip: hsiphash(value, SKIP_KEY) % (slots - 1) + 1,
            turns: ((standing_weight(member) / divisor) >> shift).max(1),
        }
    };
    let standing = members.iter().filter(|member| standing_weight(member) > 0);
    standing.map(filler).collect()
}

/// The kernel's `last_weight`, which a weight other than 0 always equals.
fn standing_weight(member: &Member) -> u32 {
    if member.is_eligible() {
        member.weight
    } else {
        member.last_weight
    }
}

/// `ip_vs_mh_hashkey` reads a server's address as one of the service's family: an IPv4 service uses
/// the first word of a tunnel's IPv6 address.
fn fold(family: Family, address: IpAddr) -> u32 {
    match (family, address) {
        (Family::Ipv4 | Family::Ipv6, IpAddr::V4(address)) => address.to_bits(),
        (Family::Ipv4, IpAddr::V6(address)) => (address.to_bits() >> 96) as u32,
        (Family::Ipv6, IpAddr::V6(address)) => {
            let bits = address.to_bits();
            (bits >> 96 ^ bits >> 64 ^ bits >> 32 ^ bits) as u32
        }
    }
}
