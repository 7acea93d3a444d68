//! The flow table under all interleavings of two CPUs that meet at one bucket.
//!
//! Run it with a target folder of its own: `RUSTFLAGS="--cfg loom" cargo test -p shunt-datapath
//! --test flow_table_loom --release`.

// A test may panic: that is how it fails.
#![allow(clippy::arithmetic_side_effects, clippy::indexing_slicing)]
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic)]
#![cfg(loom)]

use loom::model::Builder;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;
use shunt_datapath::connection::{ESTABLISHED, FIN_WAIT, Meta, SYN_RECV, SYN_SENT, may_give_way};
use shunt_datapath::entry::counts;
use shunt_datapath::flows::{self, BUSY, CLOSED, Entry, GONE, Key, Layout, Price, Wide, Words};

/// A bucket of two IPv6 entries, and the live counts of the only server.
struct Bucket {
    words: Vec<AtomicU64>,
    counts: AtomicU64,
}

#[derive(Clone, Copy)]
struct LoomWords<'a>(&'a [AtomicU64]);

impl Words for LoomWords<'_> {
    fn skip(self, count: usize) -> Self {
        Self(&self.0[count..])
    }

    fn pick<L: Layout>(self, index: usize) -> Self {
        self.skip(index * L::STRIDE)
    }

    fn load(self, at: usize) -> u64 {
        self.0[at].load(Ordering::Acquire)
    }

    fn store(self, at: usize, value: u64) {
        self.0[at].store(value, Ordering::Release);
    }

    fn swap(self, at: usize, from: u64, to: u64) -> bool {
        self.0[at]
            .compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }

    fn add(self, at: usize, value: u64) -> u64 {
        self.0[at].fetch_add(value, Ordering::SeqCst)
    }
}

fn key(flow: u16) -> Key {
    Key::v6([u64::from(flow), 9], flow, 1)
}

fn value(state: u32) -> u64 {
    let inactive = if state == FIN_WAIT { Meta::INACTIVE } else { 0 };
    flows::value(1, 0, Meta::new(7, state, inactive | Meta::PROVED))
}

fn share(value: u64) -> u64 {
    let meta = Meta((value >> 32) as u32);
    if meta.has(Meta::INACTIVE) {
        counts::INACTIVE
    } else {
        counts::ACTIVE
    }
}

impl Bucket {
    /// A bucket with these flows in their states.
    fn with(entries: &[(u16, u32)]) -> Arc<Self> {
        let words = (0..8).map(|_| AtomicU64::new(0)).collect();
        let bucket = Self {
            words,
            counts: AtomicU64::new(0),
        };
        for (flow, state) in entries {
            assert!(bucket.insert(*flow, *state));
        }
        Arc::new(bucket)
    }

    fn words(&self) -> LoomWords<'_> {
        LoomWords(&self.words)
    }

    fn find(&self, flow: u16) -> Option<Entry<LoomWords<'_>>> {
        flows::find::<Wide, _>(self.words(), &key(flow)).0
    }

    fn count(&self, change: u64) {
        self.counts.fetch_add(change, Ordering::SeqCst);
    }

    /// Does what a packet of a new flow does; false if it finds no slot.
    fn insert(&self, flow: u16, state: u32) -> bool {
        let (_, slot) = flows::cheapest::<Wide, _>(self.words(), 7, |_| 100);
        let slot = self.words().pick::<Wide>(slot);
        let offer = flows::offer_of::<Wide, _>(slot, 7, |_| 100);
        if offer.price == Price::NEVER {
            return false;
        }
        let Some(seat) = offer.take::<Wide>() else {
            return false;
        };
        if offer.first > GONE {
            self.count(0u64.wrapping_sub(share(offer.value)));
        }
        self.count(share(value(state)));
        seat.fill::<Wide>(&key(flow), value(state));
        true
    }

    /// Does what a packet of a known flow does.
    fn follow(&self, flow: u16, state: u32) -> bool {
        let Some(mut entry) = self.find(flow) else {
            return false;
        };
        let before = share(entry.value);
        if !entry.update::<Wide>(Meta((value(state) >> 32) as u32)) {
            return false;
        }
        self.count(share(entry.value).wrapping_sub(before));
        true
    }

    fn remove(&self, flow: u16) -> bool {
        let Some(entry) = self.find(flow) else {
            return false;
        };
        let removed = entry.remove::<Wide>(&key(flow));
        if removed {
            self.count(0u64.wrapping_sub(share(entry.value)));
        }
        removed
    }

    /// Does what a SYN does that finds a closed entry of its own flow.
    fn renew(&self, flow: u16) -> bool {
        let Some(entry) = self.find(flow) else {
            return false;
        };
        let Some(seat) = entry.seize::<Wide>(&key(flow)) else {
            return false;
        };
        self.count(0u64.wrapping_sub(share(entry.value)));
        self.count(share(value(SYN_RECV)));
        seat.fill::<Wide>(&key(flow), value(SYN_RECV));
        true
    }

    /// Asserts, when both CPUs are done, that no slot is being written, no entry is half removed,
    /// and the live counts match the entries.
    fn check(&self) {
        let mut sum = 0u64;
        for slot in [0, 4] {
            let first = self.words().load(slot);
            let last = self.words().load(slot + 3);
            assert_ne!(first, BUSY);
            if first > GONE {
                assert_ne!(last, CLOSED);
                sum += share(last);
            }
        }
        assert_eq!(self.counts.load(Ordering::SeqCst), sum);
    }
}

fn state(entry: &Entry<LoomWords<'_>>) -> u32 {
    entry.meta().state()
}

/// Runs two CPUs over a bucket in every order, then `after` with the results of both.
fn both(
    entries: &'static [(u16, u32)],
    one: fn(&Bucket) -> bool,
    two: fn(&Bucket) -> bool,
    after: fn(&Bucket, bool, bool),
) {
    let builder = Builder::new();
    builder.check(move || {
        let bucket = Bucket::with(entries);
        let other = Arc::clone(&bucket);
        let thread = thread::spawn(move || one(&other));
        let second = two(&bucket);
        let first = thread.join().unwrap();
        bucket.check();
        after(&bucket, first, second);
    });
}

#[test]
fn two_that_insert_one_flow_leave_it_found_and_counted() {
    let insert = |bucket: &Bucket| bucket.find(1).is_some() || bucket.insert(1, SYN_RECV);
    both(&[], insert, insert, |bucket, first, second| {
        assert!(first || second);
        assert!(bucket.find(1).is_some());
    });
}

#[test]
fn two_that_insert_two_flows_do_not_lose_one() {
    both(
        &[(3, ESTABLISHED)],
        |b| b.insert(1, SYN_RECV),
        |b| b.insert(2, ESTABLISHED),
        |bucket, first, second| {
            assert!(first || second);
            // The CPU that came second may displace a half-open flow, never an established one.
            assert!(!second || bucket.find(2).is_some());
            assert!(bucket.find(3).is_some());
        },
    );
}

#[test]
fn an_insertion_beside_a_removal_is_found() {
    both(
        &[(1, ESTABLISHED)],
        |b| b.insert(2, SYN_RECV),
        |b| b.remove(1),
        |bucket, inserted, removed| {
            assert!(inserted && removed);
            assert!(
                bucket
                    .find(2)
                    .is_some_and(|entry| entry.value == value(SYN_RECV))
            );
            assert!(bucket.find(1).is_none());
        },
    );
}

#[test]
fn only_one_of_two_takes_an_entry_out() {
    both(
        &[(1, ESTABLISHED)],
        |b| b.remove(1),
        |b| b.remove(1),
        |bucket, first, second| {
            assert!(first != second);
            assert!(bucket.find(1).is_none());
        },
    );
}

#[test]
fn a_change_beside_a_removal_leaves_no_count_behind() {
    both(
        &[(1, ESTABLISHED)],
        |b| b.follow(1, FIN_WAIT),
        |b| b.remove(1),
        |bucket, followed, removed| {
            assert!(followed || removed);
            assert_eq!(bucket.find(1).is_none(), removed);
        },
    );
}

#[test]
fn a_change_beside_a_renewal_leaves_no_count_behind() {
    both(
        &[(1, ESTABLISHED)],
        |b| b.follow(1, FIN_WAIT),
        |b| b.renew(1),
        |bucket, followed, renewed| {
            assert!(followed || renewed);
            assert!(bucket.find(1).is_some());
        },
    );
}

// The new flow's last word differs from that of the flow it displaces. The next test has equal
// ones.
#[test]
fn a_flow_that_becomes_established_is_not_displaced() {
    both(
        &[(1, SYN_RECV), (3, ESTABLISHED)],
        |b| b.follow(1, ESTABLISHED),
        |b| b.insert(2, SYN_SENT),
        |bucket, established, inserted| {
            assert!(established != inserted);
            assert_eq!(
                bucket.find(1).is_some_and(|e| !may_give_way(state(&e))),
                established
            );
            assert_eq!(bucket.find(2).is_some(), inserted);
            assert!(bucket.find(3).is_some());
        },
    );
}

// With the same server, tick and state, the change may hit the new flow. The only effect is that
// the new flow counts as established one packet early; the live counts stay right.
#[test]
fn a_change_may_meet_a_newcomer_that_looks_the_same() {
    both(
        &[(1, SYN_RECV), (3, ESTABLISHED)],
        |b| b.follow(1, ESTABLISHED),
        |b| b.insert(2, SYN_RECV),
        |bucket, established, inserted| {
            assert!(established || inserted);
            assert_eq!(bucket.find(2).is_some(), inserted);
            assert_eq!(bucket.find(1).is_some(), !inserted);
            assert!(bucket.find(3).is_some());
        },
    );
}

#[test]
fn two_that_displace_one_flow_do_not_both_get_its_slot() {
    both(
        &[(1, SYN_RECV), (3, ESTABLISHED)],
        |b| b.insert(2, ESTABLISHED),
        |b| b.insert(4, ESTABLISHED),
        |bucket, first, second| {
            assert!(first != second);
            assert_eq!(bucket.find(2).is_some(), first);
            assert_eq!(bucket.find(4).is_some(), second);
        },
    );
}
