//! Compiles the servers of a service into the words of a pool, so that the packet path picks as
//! IPVS does.
//!
//! Pure: members go in and words come out. The caller writes them beside the running pool and
//! switches to them. IPVS's schedulers see each change by itself, so compile once for each server
//! that is added, edited or deleted, in order. The flags of a service are not part of its pool.

use shunt_datapath::entry::{POOL_HEAD, SHORT_LENGTH, SLOT_LIMITED, pool_slot, scheduler};
use shunt_model::{Family, Scheduler, ServerAddress, Service};

mod hashes;
mod lots;
mod round;
pub mod short;
#[cfg(test)]
mod tests;

/// A server as its scheduler sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its id in the packet path.
    pub id: u32,
    /// Its real address and port, which the hashing schedulers use.
    pub at: ServerAddress,
    /// 0 quiesces.
    pub weight: u32,
    /// The last weight that was not 0 since the server was added; 0 if there was none.
    pub last_weight: u32,
    /// It has thresholds.
    pub limited: bool,
}

/// The words of a pool. All of them can be read back from the packet path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiled {
    /// [`shunt_datapath::entry::scheduler`].
    pub scheduler: u8,
    /// The initial cursor, and the word that gives the cursor its meaning.
    pub head: [u64; 2],
    /// The short list of a large pool.
    pub short: Vec<u64>,
    /// One word a slot: a server's id, and whether it has thresholds.
    pub slots: Vec<u64>,
    /// The lots of twos and p2c. They follow the slots.
    pub lots: Vec<u64>,
}

/// The turn of rr and wrr, which a change carries over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Turn {
    /// The head of the list: a fresh service, or a changed scheduler.
    #[default]
    Start,
    /// rr: the id of the server chosen last, then the ids before it in the list, nearest first.
    After(Vec<u32>),
    /// wrr: the least weight that was eligible for the last choice (`cw` of ip_vs_wrr.c).
    Weight(u32),
}

/// The longest turn of wrr that is compiled into a ring.
const LONGEST_RING: u64 = 65_536;

/// The tick of a short list that was never compiled: the clock never shows it.
const NEVER: u64 = u32::MAX as u64;

/// The properties of a service that its pool depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The scheduler, which decides the order of the slots.
    pub scheduler: Scheduler,
    /// The family of the clients.
    pub family: Family,
    /// mh uses the large table.
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
            // A turn too long for a ring is a list.
            Scheduler::Wrr => count.max(total.min(LONGEST_RING)),
            Scheduler::Twos | Scheduler::P2c => 2 * count + 1,
            Scheduler::Rr | Scheduler::Fo | Scheduler::Ovf => count,
            Scheduler::Lc
            | Scheduler::Wlc
            | Scheduler::Sed
            | Scheduler::Nq
            | Scheduler::Lblc
            | Scheduler::Lblcr => match count > short::WHOLE as u64 {
                true => count + u64::from(SHORT_LENGTH),
                false => count,
            },
        };
        slots + u64::from(POOL_HEAD)
    }
}

/// Compiles the pool of a service. `members` are newest first, as in the kernel's list.
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

/// The turn of a running pool. `members` are those it was compiled from; `cursor` is the first word
/// of its head as the packet path left it.
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

    /// A pool without a cursor; empty if no server may be picked.
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

    /// Whether the pool has a short list.
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

/// lc, wlc, sed, nq, lblc, lblcr: the packet path needs the list and the live counts. A long list
/// also has a short list, which is not valid before its first compilation.
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

/// fo, ovf: the packet path takes the first that it may pick. Among equal weights the newest comes
/// first, as in the list.
fn heaviest_first(scheduler: u8, members: &[Member]) -> Compiled {
    let mut sorted: Vec<&Member> = members.iter().filter(|m| m.is_eligible()).collect();
    sorted.sort_by_key(|member| std::cmp::Reverse(member.weight));
    Compiled::still(scheduler, sorted.into_iter().map(Member::slot).collect())
}

/// twos, p2c: the list, then the lots of its weights and of `more`.
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

/// The greatest common divisor of the weights that are not 0; 0 if all are.
fn common_divisor(weights: impl Iterator<Item = u32>) -> u32 {
    weights.fold(0, |mut divisor, mut weight| {
        while weight > 0 {
            (divisor, weight) = (weight, divisor % weight);
        }
        divisor
    })
}
