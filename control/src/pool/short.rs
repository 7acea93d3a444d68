//! The short list of a large pool: the least loaded servers, in front of the whole list.
//!
//! The packet path compares only these. The caller recompiles the list every few milliseconds.

use std::cmp::Ordering;

use shunt_datapath::entry::{SHORT_LENGTH, counts, scheduler};

/// A pool of more servers than this has a short list.
pub const WHOLE: usize = 256;

/// A server with the values that the scheduler compares.
struct Candidate {
    place: usize,
    slot: u64,
    load: u64,
    weight: u64,
}

/// The slots of the servers with the least load for their weight by this scheduler, in the order of
/// the list. `counts` returns a slot's live counts, or `None` for a server that may not be picked.
pub fn compile(rule: u8, slots: &[u64], counts: impl Fn(u64) -> Option<u64>) -> Vec<u64> {
    let candidate = |(place, slot): (usize, &u64)| {
        let word = counts(*slot)?;
        Some(Candidate {
            place,
            slot: *slot,
            load: load(rule, word),
            weight: if rule == scheduler::LC { 1 } else { slot >> 32 },
        })
    };
    let mut candidates: Vec<Candidate> = slots.iter().enumerate().filter_map(candidate).collect();
    let length = SHORT_LENGTH as usize;
    if candidates.len() > length {
        candidates.select_nth_unstable_by(length, lighter);
        candidates.truncate(length);
    }
    candidates.sort_unstable_by_key(|candidate| candidate.place);
    let mut list: Vec<u64> = candidates
        .into_iter()
        .map(|candidate| candidate.slot)
        .collect();
    list.resize(length, 0);
    list
}

/// The load as the packet path compares it.
fn load(rule: u8, word: u64) -> u64 {
    let (active, inactive) = (
        u64::from(counts::active(word)),
        u64::from(counts::inactive(word)),
    );
    match rule {
        scheduler::NQ if active == 0 => 0,
        scheduler::SED | scheduler::NQ => active + 1,
        _ => (active << 8) + inactive,
    }
}

/// Less load for its weight comes first; equals keep the order of the list.
fn lighter(one: &Candidate, other: &Candidate) -> Ordering {
    let [a, b] = [(one, other), (other, one)]
        .map(|(this, that)| u128::from(this.load) * u128::from(that.weight));
    a.cmp(&b).then(one.place.cmp(&other.place))
}
