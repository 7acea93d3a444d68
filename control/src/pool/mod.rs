//! The servers of a service as the words of a pool, so that the walk decides as IPVS does.
//!
//! Pure: members in, words out; the caller writes them beside the running pool and switches. The
//! kernel's schedulers hear of each change by itself, so compile once for each server that is
//! added, edited or deleted, in order. The flags of a service are no part of its pool.

use shunt_datapath::entry::{POOL_HEAD, SHORT_LENGTH, SLOT_LIMITED, pool_slot, scheduler};
use shunt_model::{Family, Scheduler, ServerAddress, Service};

mod hashes;
mod lots;
mod round;
pub mod short;
#[cfg(test)]
mod tests;

/// A server of the service, as its scheduler sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its id in the packet path.
    pub id: u32,
    pub at: ServerAddress,
    /// 0 quiesces.
    pub weight: u32,
    /// The last weight that was not 0 since the server was added; 0 if there was none.
    pub last_weight: u32,
    /// It has thresholds.
    pub limited: bool,
}

/// The words of a pool. All of it can be read back from the packet path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiled {
    /// [`shunt_datapath::entry::scheduler`].
    pub scheduler: u8,
    /// The cursor as it begins, and what the cursor is understood with.
    pub head: [u64; 2],
    /// The short list of a large pool.
    pub short: Vec<u64>,
    pub slots: Vec<u64>,
    /// What the scheduler draws lots with, behind the slots.
    pub lots: Vec<u64>,
}

/// Where rr and wrr stand, carried over a change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Turn {
    /// At the head of the list: a service without a past, or with another scheduler in it.
    #[default]
    Start,
    /// rr: the id of the server chosen last, then of those before it in the list, nearest first.
    After(Vec<u32>),
    /// wrr: the weight that the server chosen last had to have.
    Weight(u32),
}

/// The longest turn of wrr that is laid out as a ring.
const LONGEST_RING: u64 = 65_536;

/// The tick of a short list that nobody has compiled: beyond what the clock shows.
const NEVER: u64 = u32::MAX as u64;

/// What of a service its pool depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    pub scheduler: Scheduler,
    pub family: Family,
    /// mh: the large table.
    pub large: bool,
}

impl From<&Service> for Rule {
    fn from(service: &Service) -> Self {
        Self {
            scheduler: service.scheduler,
            family: service.key.family(),
            large: service.flags.large,
        }
    }
}

impl Rule {
    /// The most words that a pool of servers of these weights can take.
    #[must_use]
    pub fn room(self, weights: impl Iterator<Item = u32>) -> u64 {
        let (mut count, mut total) = (0u64, 0u64);
        for weight in weights {
            count += 1;
            total += u64::from(weight);
        }
        let slots = match self.scheduler {
            Scheduler::Sh | Scheduler::Dh => 256,
            Scheduler::Mh => u64::from(hashes::maglev_slots(self.large)),
            // A turn that is too long for a ring is a list.
            Scheduler::Wrr => count.max(total.min(LONGEST_RING)),
            Scheduler::Twos | Scheduler::P2c => 2 * count + 1,
            Scheduler::Rr | Scheduler::Fo | Scheduler::Ovf => count,
            _ if count > short::WHOLE as u64 => count + u64::from(SHORT_LENGTH),
            _ => count,
        };
        slots + u64::from(POOL_HEAD)
    }
}

/// Compiles the pool of a service. `members` stand newest first, as in the kernel's list.
#[must_use]
pub fn compile(rule: Rule, members: &[Member], turn: &Turn) -> Compiled {
    match rule.scheduler {
        Scheduler::Rr => round::plain(members, turn),
        Scheduler::Wrr => round::weighted(members, turn, LONGEST_RING),
        Scheduler::Lc => compared(scheduler::LC, members),
        Scheduler::Wlc => compared(scheduler::WLC, members),
        Scheduler::Sed => compared(scheduler::SED, members),
        Scheduler::Nq => compared(scheduler::NQ, members),
        Scheduler::Lblc => compared(scheduler::LBLC, members),
        Scheduler::Lblcr => compared(scheduler::LBLCR, members),
        Scheduler::Sh => hashes::source(members),
        Scheduler::Dh => hashes::target(members),
        Scheduler::Mh => hashes::maglev(rule.family, rule.large, members),
        Scheduler::Fo => heaviest_first(scheduler::FO, members),
        Scheduler::Ovf => heaviest_first(scheduler::OVF, members),
        Scheduler::Twos => drawn(scheduler::TWOS, members, &[1]),
        Scheduler::P2c => drawn(scheduler::P2C, members, &[]),
    }
}

/// Where a running pool stands: `members` are those it was compiled from, `cursor` is the first
/// word of its head as the packet path has it.
#[must_use]
pub fn turn(scheduler: Scheduler, members: &[Member], pool: &Compiled, cursor: u64) -> Turn {
    match scheduler {
        Scheduler::Rr => round::after(members, pool, cursor),
        Scheduler::Wrr => round::weight(members, pool, cursor),
        Scheduler::Lc
        | Scheduler::Wlc
        | Scheduler::Sed
        | Scheduler::Nq
        | Scheduler::Sh
        | Scheduler::Mh
        | Scheduler::Lblc
        | Scheduler::Lblcr
        | Scheduler::Dh
        | Scheduler::Fo
        | Scheduler::Ovf
        | Scheduler::Twos
        | Scheduler::P2c => Turn::Start,
    }
}

impl Compiled {
    fn empty() -> Self {
        Self {
            scheduler: scheduler::EMPTY,
            head: [0, 0],
            short: Vec::new(),
            slots: Vec::new(),
            lots: Vec::new(),
        }
    }

    /// A pool without a cursor; empty if no server of it may be picked.
    fn still(scheduler: u8, slots: Vec<u64>) -> Self {
        if slots.iter().all(|slot| slot >> 32 == 0) {
            return Self::empty();
        }
        Self {
            scheduler,
            head: [0, 0],
            short: Vec::new(),
            slots,
            lots: Vec::new(),
        }
    }

    /// Whether the short list lies in front.
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.scheduler & scheduler::SHORT != 0
    }

    /// All words of the pool, in order.
    pub fn words(&self) -> impl Iterator<Item = u64> {
        let behind = self.slots.iter().chain(&self.lots);
        self.head.iter().chain(&self.short).chain(behind).copied()
    }
}

impl Member {
    fn slot(&self) -> u64 {
        let limited = if self.limited { SLOT_LIMITED } else { 0 };
        pool_slot(self.id, self.weight) | limited
    }

    fn is_eligible(&self) -> bool {
        self.weight > 0
    }
}

/// The servers that may be picked, in order.
fn listed(scheduler: u8, members: &[Member]) -> Compiled {
    Compiled::still(scheduler, eligible(members))
}

fn eligible(members: &[Member]) -> Vec<u64> {
    let eligible = members.iter().filter(|member| member.is_eligible());
    eligible.map(Member::slot).collect()
}

/// lc, wlc, sed, nq, lblc, lblcr: all that the walk needs besides the live counts is the list. A
/// long one has a short list, which is not believed before it was compiled for the first time.
fn compared(scheduler: u8, members: &[Member]) -> Compiled {
    let compiled = listed(scheduler, members);
    if compiled.slots.len() <= short::WHOLE {
        return compiled;
    }
    Compiled {
        scheduler: scheduler | scheduler::SHORT,
        head: [0, NEVER],
        short: vec![0; SHORT_LENGTH as usize],
        ..compiled
    }
}

/// fo, ovf: the walk takes the first that can. Of equals the newest is first, as in the list.
fn heaviest_first(scheduler: u8, members: &[Member]) -> Compiled {
    let mut sorted: Vec<&Member> = members.iter().filter(|m| m.is_eligible()).collect();
    sorted.sort_by_key(|member| std::cmp::Reverse(member.weight));
    Compiled::still(scheduler, sorted.into_iter().map(Member::slot).collect())
}

/// twos, p2c: the list, and lots by its weights, with some more behind them.
fn drawn(scheduler: u8, members: &[Member], more: &[u32]) -> Compiled {
    let compiled = listed(scheduler, members);
    let mut weights: Vec<u32> = compiled
        .slots
        .iter()
        .map(|slot| (slot >> 32) as u32)
        .collect();
    if weights.is_empty() {
        return compiled;
    }
    weights.extend_from_slice(more);
    Compiled {
        lots: lots::lots(&weights),
        ..compiled
    }
}

/// The greatest common divisor of those weights that are not 0; 0 if there are none.
fn common_divisor(weights: impl Iterator<Item = u32>) -> u32 {
    weights.fold(0, |mut divisor, mut weight| {
        while weight > 0 {
            (divisor, weight) = (weight, divisor % weight);
        }
        divisor
    })
}
