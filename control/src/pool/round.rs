//! rr and wrr: the ring of servers, and how it goes on after a change.
//!
//! A ring's cursor counts its choices. The second word of the head holds the cursor's initial value
//! (high half). For rr it also holds the server chosen last before that (low half).

use shunt_datapath::entry::{NONE, scheduler, slot_server};

use super::{Compiled, Member, Turn, common_divisor};

/// `ip_vs_rr_schedule`: the eligible servers in turn, starting after the last choice.
pub(super) fn plain(members: &[Member], turn: &Turn) -> Compiled {
    let last = last(members, turn);
    let passed = last.map_or(0, |index| index + 1);
    let (before, after) = members.split_at(passed);
    let count = |members: &[Member]| members.iter().filter(|m| m.is_eligible()).count();
    // If no eligible server follows the last choice, the ring starts over.
    let start = if count(after) > 0 { count(before) } else { 0 };
    let slots: Vec<u64> = members
        .iter()
        .filter(|member| member.is_eligible())
        .map(Member::slot)
        .collect();
    let id = last.map_or(NONE, |index| members[index].id);
    Compiled {
        scheduler: ring_or_empty(&slots),
        head: [start as u64, understood_with(start, id)],
        slots,
        ..Compiled::empty()
    }
}

/// `ip_vs_rr_del_dest`: the server before a deleted one takes its place as the last choice.
fn last(members: &[Member], turn: &Turn) -> Option<usize> {
    let Turn::After(ids) = turn else {
        return None;
    };
    ids.iter()
        .find_map(|id| members.iter().position(|member| member.id == *id))
}

/// The turn of a ring of rr.
pub(super) fn after(members: &[Member], pool: &Compiled, cursor: u64) -> Turn {
    let (start, before) = (pool.head[1] >> 32, pool.head[1] as u32);
    let id = match chosen_last(pool, cursor) {
        Some(index) if cursor != start => slot_server(pool.slots[index]),
        Some(_) | None => before,
    };
    match members.iter().position(|member| member.id == id) {
        Some(index) => Turn::After(members[..=index].iter().rev().map(|m| m.id).collect()),
        None => Turn::Start,
    }
}

/// The slot of the last choice, if there are slots.
fn chosen_last(pool: &Compiled, cursor: u64) -> Option<usize> {
    let length = pool.slots.len() as u64;
    let index = cursor.wrapping_sub(1).checked_rem(length)?;
    Some(index as usize)
}

fn understood_with(start: usize, id: u32) -> u64 {
    (start as u64) << 32 | u64::from(id)
}

fn ring_or_empty(slots: &[u64]) -> u8 {
    if slots.is_empty() {
        scheduler::EMPTY
    } else {
        scheduler::RING
    }
}

/// The bounds of wrr's turn: `mw` and `di` of ip_vs_wrr.c.
struct Bounds {
    /// The greatest weight that a pass asks for. The least is 1.
    greatest: u32,
    step: u32,
    /// Choices in a whole turn.
    length: u64,
}

/// `None` if no server is eligible.
fn bounds(members: &[Member]) -> Option<Bounds> {
    let weights = || members.iter().map(|member| member.weight);
    let step = common_divisor(weights());
    let sum: u64 = weights().map(u64::from).sum();
    let length = sum.checked_div(step.into())?;
    let greatest = weights().max()? - (step - 1);
    Some(Bounds {
        greatest,
        step,
        length,
    })
}

/// `ip_vs_wrr_schedule`: passes over the list, each asking for less weight than the one before. The
/// packet path makes the passes itself if a turn has more than `longest` choices, or if it may have
/// to skip overloaded servers.
pub(super) fn weighted(members: &[Member], turn: &Turn, longest: u64) -> Compiled {
    let Some(bounds) = bounds(members) else {
        return Compiled::empty();
    };
    let asked = asked(&bounds, turn);
    let limited = members.iter().any(|member| member.limited);
    if bounds.length > longest || limited {
        let eligible = members.iter().filter(|member| member.is_eligible());
        let (greatest, step) = (u64::from(bounds.greatest), u64::from(bounds.step));
        let limited = if limited { 1 << 63 } else { 0 };
        return Compiled {
            scheduler: scheduler::WRR,
            head: [u64::from(asked) << 32, greatest | step << 32 | limited],
            slots: eligible.map(Member::slot).collect(),
            ..Compiled::empty()
        };
    }
    let mut slots = Vec::new();
    let mut start = 0;
    for_each_pass(members, bounds.step, |weight, pass| {
        if weight == asked {
            start = slots.len();
        }
        slots.extend(pass.iter().map(|index| members[*index].slot()));
        true
    });
    Compiled {
        scheduler: ring_or_empty(&slots),
        head: [start as u64, understood_with(start, NONE)],
        slots,
        ..Compiled::empty()
    }
}

/// `ip_vs_wrr_dest_changed`: every change moves the cursor to the head of the list and fits the
/// weight last asked for to the steps.
fn asked(bounds: &Bounds, turn: &Turn) -> u32 {
    match *turn {
        Turn::Weight(weight) if weight > bounds.greatest || weight == 0 => bounds.greatest,
        Turn::Weight(weight) if bounds.step > 1 => weight / bounds.step * bounds.step + 1,
        Turn::Weight(weight) => weight,
        Turn::Start | Turn::After(_) => bounds.greatest,
    }
}

/// The turn of a pool of wrr.
pub(super) fn weight(members: &[Member], pool: &Compiled, cursor: u64) -> Turn {
    if pool.scheduler == scheduler::WRR {
        return Turn::Weight((cursor >> 32) as u32);
    }
    let start = pool.head[1] >> 32;
    let (Some(bounds), Some(last)) = (bounds(members), chosen_last(pool, cursor)) else {
        return Turn::Start;
    };
    let mut left = if cursor == start {
        start as usize
    } else {
        last
    };
    let mut turn = Turn::Start;
    for_each_pass(members, bounds.step, |weight, pass| {
        if left < pass.len() {
            turn = Turn::Weight(weight);
            return false;
        }
        left -= pass.len();
        true
    });
    turn
}

/// Calls `body` with the weight that a pass asks for and the indices of the members that have it,
/// until it returns false. The cost is that of the whole turn, not of passes times members.
fn for_each_pass(members: &[Member], step: u32, mut body: impl FnMut(u32, &[usize]) -> bool) {
    let mut waiting: Vec<usize> = (0..members.len()).collect();
    waiting.retain(|index| members[*index].is_eligible());
    waiting.sort_by_key(|index| members[*index].weight);
    let heaviest = waiting.last().map_or(0, |index| members[*index].weight);
    let mut pass = Vec::new();
    for turns in (1..=heaviest / step).rev() {
        let joined = waiting.partition_point(|index| members[*index].weight / step < turns);
        if joined < waiting.len() {
            pass.extend(waiting.drain(joined..));
            pass.sort_unstable();
        }
        if !body((turns - 1) * step + 1, &pass) {
            return;
        }
    }
}
