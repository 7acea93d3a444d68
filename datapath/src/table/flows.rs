//! The table of flows: buckets of one cache line, two buckets per flow, no timer, fixed memory.
//!
//! The code is generic over the access to words ([`Words`]). It runs in the kernel on an array map,
//! in the daemon on the mapped memory of that map, in tests on plain atomics and under a model
//! checker. An IPv4 entry is two words, an IPv6 entry four:
//!
//! ```text
//!         word 0                                       then       last
//! IPv4    client address (32) port (16) endpoint (16)          target (24) endpoint (8) meta (32)
//! IPv6    1 port (16) endpoint (24)                   address  target (24) 0       (8) meta (32)
//! ```
//!
//! Keys are compared whole: the endpoint's high bits that do not fit into IPv4's first word are in
//! its last word. These rules keep readers correct without a lock:
//! - A writer takes a slot by swapping word 0 for [`BUSY`], and stores the key there last.
//! - A writer removes an entry by swapping its last word for [`CLOSED`], then its key for [`GONE`],
//!   or for `BUSY` to reuse the slot at once. If both swaps succeed, the writer must take the entry
//!   off the live counts. An update swaps the last word too, so that an update and a removal at the
//!   same time cannot both succeed.
//! - A flow is in its second bucket only while its first has no [`FREE`] slot. A reader does not
//!   take `GONE` for free; the daemon turns it into `FREE` when no flow needs it.

use crate::connection::{Meta, TICK_BITS, TICK_MASK, WAY_BACK, WAY_BACK_YIELDING, gives_way};
use crate::table::entry::BACK;
use crate::table::hash;
pub use crate::table::hash::{first, second};
pub use crate::table::layout::{Layout, Narrow, Wide};

/// Word 0 of a free slot; a look-up need not go on in the second bucket.
pub const FREE: u64 = 0;
/// Word 0 of a slot that is being written.
pub const BUSY: u64 = 1;
/// Word 0 of a removed entry's slot. A new flow may take the slot; a look-up goes on in the second
/// bucket.
pub const GONE: u64 = 2;
/// The last word of an entry that is being removed. No other entry has it: ids of servers begin at
/// 1.
pub const CLOSED: u64 = 0;

/// Words of memory that several CPUs read and write at the same time.
pub trait Words: Copy {
    /// The words from `count` on.
    fn skip(self, count: usize) -> Self;
    /// The words of entry `index` of a bucket. The kernel's verifier does not know which entry it
    /// is, so that it verifies the code that follows once.
    fn pick<L: Layout>(self, index: usize) -> Self;
    /// Loads word `at` before all loads that follow (acquire).
    fn load(self, at: usize) -> u64;
    /// Stores word `at` after all earlier stores (release).
    fn store(self, at: usize, value: u64);
    /// Stores `to` if word `at` is `from`; true if stored.
    fn swap(self, at: usize, from: u64, to: u64) -> bool;
    /// Adds to word `at`, wrapping around, and returns the previous value.
    fn add(self, at: usize, value: u64) -> u64;
    /// Returns the same number. In the kernel the compiler knows nothing of it. So it makes no
    /// branch of a calculation with a bit: the processor cannot predict what the next slot's entry
    /// is. And it keeps the check of a calculated index, which the verifier of Linux 6.1 needs.
    #[inline(always)]
    #[must_use]
    fn hide(value: u64) -> u64 {
        value
    }
}

/// The exact key of a flow.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// The first word of the entry.
    pub first: u64,
    /// The client's IPv6 address; zero for IPv4, whose address is in the first word.
    pub address: [u64; 2],
    /// The part of the key that is in the last word ([`Layout::TAG`]).
    pub tag: u64,
}

impl Key {
    /// `address` and `port` are the client's, in wire order.
    #[inline(always)]
    #[must_use]
    pub fn v4(address: u32, port: u16, endpoint: u32) -> Self {
        Self {
            first: (address as u64) << 32 | (port as u64) << 16 | (endpoint & 0xffff) as u64,
            address: [0, 0],
            tag: ((endpoint >> 16 & 0xff) as u64) << 24,
        }
    }

    /// `address` and `port` are the client's, in wire order.
    #[inline(always)]
    #[must_use]
    pub fn v6(address: [u64; 2], port: u16, endpoint: u32) -> Self {
        Self {
            first: 1 << 63 | (port as u64) << 24 | (endpoint & 0xff_ffff) as u64,
            address,
            tag: 0,
        }
    }

    /// The client's port, in wire order.
    #[inline(always)]
    #[must_use]
    pub fn port<L: Layout>(&self) -> u16 {
        if L::STRIDE == 2 {
            (self.first >> 16) as u16
        } else {
            (self.first >> 24) as u16
        }
    }

    /// The id of the service, or of the NAT endpoint with [`BACK`] set.
    #[inline(always)]
    #[must_use]
    pub fn endpoint<L: Layout>(&self) -> u32 {
        if L::STRIDE == 2 {
            (self.first & 0xffff) as u32 | ((self.tag >> 24) as u32) << 16
        } else {
            (self.first & 0xff_ffff) as u32
        }
    }

    /// Whether this is the key of the way back.
    #[inline(always)]
    #[must_use]
    pub fn is_back<L: Layout>(&self) -> bool {
        self.endpoint::<L>() & BACK != 0
    }

    #[inline(always)]
    fn matches<L: Layout, W: Words>(&self, slot: W) -> bool {
        if slot.load(0) != self.first {
            return false;
        }
        if L::STRIDE == 4 {
            slot.load(1) == self.address[0] && slot.load(2) == self.address[1]
        } else {
            slot.load(1) & L::TAG == self.tag
        }
    }
}

/// The hash of a key.
#[inline(always)]
#[must_use]
pub fn hash<L: Layout>(key: &Key, seed: u64) -> u64 {
    if L::STRIDE == 4 {
        // The hash shifts out the highest bit of `first`, which is the same in every IPv6 key.
        hash::wide(key.address, key.first, seed)
    } else {
        hash::narrow(key.first, key.tag, seed)
    }
}

/// The last word of an entry: target (a server; on the way back a service), tag and meta.
#[inline(always)]
#[must_use]
pub fn value(target: u32, tag: u64, meta: Meta) -> u64 {
    (target & 0xff_ffff) as u64 | tag | (meta.0 as u64) << 32
}

/// A found entry.
#[derive(Clone, Copy, Debug)]
pub struct Entry<W> {
    slot: W,
    /// The last word as it was read.
    pub value: u64,
}

impl<W: Words> Entry<W> {
    /// The id of the entry's server.
    #[inline(always)]
    #[must_use]
    pub fn target(&self) -> u32 {
        self.value as u32 & 0xff_ffff
    }

    /// State, flags and tick of the entry.
    #[inline(always)]
    #[must_use]
    pub fn meta(&self) -> Meta {
        Meta((self.value >> 32) as u32)
    }

    /// A number of the flow's own, for [`Meta::heard`].
    #[inline(always)]
    #[must_use]
    pub fn phase<L: Layout>(&self) -> u32 {
        let client = if L::STRIDE == 4 {
            self.slot.load(2) ^ self.slot.load(0)
        } else {
            self.slot.load(0)
        };
        hash::phase(client)
    }

    /// Replaces the meta; false if the entry has changed since it was read.
    #[inline(always)]
    pub fn update<L: Layout>(&mut self, meta: Meta) -> bool {
        let to = self.value & 0xffff_ffff | (meta.0 as u64) << 32;
        if !self.slot.swap(L::STRIDE.wrapping_sub(1), self.value, to) {
            return false;
        }
        self.value = to;
        true
    }

    /// Removes the entry; false if it has changed since it was read. If true, the caller must take
    /// [`Entry::value`] off the live counts.
    #[inline(always)]
    pub fn remove<L: Layout>(&self, key: &Key) -> bool {
        close::<L, W>(self.slot, key.first, self.value, GONE)
    }

    /// Removes the entry as [`Entry::remove`] does, and keeps the slot for another entry.
    #[inline(always)]
    pub fn seize<L: Layout>(&self, key: &Key) -> Option<Seat<W>> {
        close::<L, W>(self.slot, key.first, self.value, BUSY).then_some(Seat { slot: self.slot })
    }
}

/// Removes an entry if it has not changed since it was read. The last word is swapped first, so
/// that no update succeeds afterwards, then the key.
#[inline(always)]
fn close<L: Layout, W: Words>(slot: W, first: u64, value: u64, mark: u64) -> bool {
    let last = L::STRIDE.wrapping_sub(1);
    if value == CLOSED || !slot.swap(last, value, CLOSED) {
        return false;
    }
    if slot.swap(0, first, mark) {
        return true;
    }
    // The slot belongs to another flow with the same last word: that word is restored.
    slot.swap(last, CLOSED, value);
    false
}

/// A slot that the caller has taken ([`BUSY`]) and must fill or give up.
#[derive(Clone, Copy, Debug)]
pub struct Seat<W> {
    slot: W,
}

impl<W: Words> Seat<W> {
    /// Writes an entry, which look-ups find from then on.
    #[inline(always)]
    pub fn fill<L: Layout>(self, key: &Key, value: u64) -> Entry<W> {
        if L::STRIDE == 4 {
            self.slot.store(1, key.address[0]);
            self.slot.store(2, key.address[1]);
        }
        self.slot.store(L::STRIDE.wrapping_sub(1), value);
        self.slot.store(0, key.first);
        Entry {
            slot: self.slot,
            value,
        }
    }

    /// Releases the slot without an entry.
    #[inline(always)]
    pub fn give_up(self) {
        self.slot.store(0, GONE);
    }
}

/// Finds a flow in one bucket. The second value is true if the flow is absent and the bucket has a
/// [`FREE`] slot, so that the flow is not in its second bucket either.
#[inline(always)]
pub fn find<L: Layout, W: Words>(bucket: W, key: &Key) -> (Option<Entry<W>>, bool) {
    // The keys of 0.0.0.0 port 0 to endpoints 1 and 2 are the same words as `BUSY` and `GONE`. IPv6
    // keys never are.
    if L::STRIDE == 2 && key.first <= GONE {
        return (None, false);
    }
    let mut has_free = false;
    let mut index = L::SLOTS;
    macro_rules! look {
        ($at:expr) => {
            if $at < L::SLOTS && index == L::SLOTS {
                let slot = bucket.skip(L::STRIDE.wrapping_mul($at));
                has_free |= slot.load(0) == FREE;
                if key.matches::<L, W>(slot) {
                    index = $at;
                }
            }
        };
    }
    look!(0);
    look!(1);
    look!(2);
    look!(3);
    if index == L::SLOTS {
        return (None, has_free);
    }
    let slot = bucket.pick::<L>(index);
    let value = slot.load(L::STRIDE.wrapping_sub(1));
    // Between the two loads, the slot may have changed to another flow, or its removal has begun.
    if slot.load(0) != key.first || value == CLOSED {
        return (None, false);
    }
    (Some(Entry { slot, value }), false)
}

/// The price of a slot for a new flow, which takes the cheapest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Price(pub u32);

impl Price {
    /// A slot without an entry.
    pub const NOTHING: Price = Price(0);
    /// An expired entry.
    pub const EXPIRED: Price = Price(1);
    /// The lowest price of an entry that gives way. Younger entries are dearer, and unproved ones
    /// are dearer than half-open or closed ones, most of all where the client has talked
    /// ([`Meta::has_talked`]).
    const YIELDS: u32 = 2;
    /// The lowest price of an unproved entry whose client has talked ([`Meta::has_talked`]). Only a
    /// connection that cannot do without an entry takes its slot.
    pub const LAST: Price = Price(Price::YIELDS.wrapping_add(2 << TICK_BITS));
    /// A proved and established entry, or a slot that is being written: not for sale.
    pub const NEVER: Price = Price(u32::MAX);
}

/// A slot for a new flow, with its price and its words as they were read.
#[derive(Clone, Copy, Debug)]
pub struct Offer<W> {
    slot: W,
    /// The price of the slot.
    pub price: Price,
    /// The first word of the slot.
    pub first: u64,
    /// The last word of the slot.
    pub value: u64,
}

impl<W: Words> Offer<W> {
    /// Takes the slot; `None` if it has changed since it was read. The caller must take the removed
    /// entry ([`Offer::value`]) off the live counts.
    #[inline(always)]
    pub fn take<L: Layout>(&self) -> Option<Seat<W>> {
        let taken = if self.first > GONE {
            close::<L, W>(self.slot, self.first, self.value, BUSY)
        } else {
            self.slot.swap(0, self.first, BUSY)
        };
        taken.then_some(Seat { slot: self.slot })
    }
}

/// The price and number of the cheapest slot of a bucket. `timeout` gives the ticks that an entry
/// in a state lives.
#[inline(always)]
pub fn cheapest<L: Layout, W: Words>(
    bucket: W,
    now: u32,
    timeout: impl Fn(u32) -> u32,
) -> (Price, usize) {
    // Price and number in one word, so that the lower one of two is calculated without a branch.
    let at = |index: usize| {
        if index >= L::SLOTS {
            return u64::MAX >> 1;
        }
        let slot = bucket.skip(L::STRIDE.wrapping_mul(index));
        let value = slot.load(L::STRIDE.wrapping_sub(1));
        let price = price::<L, W>(slot.load(0), value, now, &timeout);
        (price.0 as u64) << 2 | index as u64
    };
    let lower = |a: u64, b: u64| {
        let apart = b.wrapping_sub(a);
        a.wrapping_add(apart & 0u64.wrapping_sub(W::hide(apart >> 63)))
    };
    let best = lower(lower(lower(at(0), at(1)), at(2)), at(3));
    (Price((best >> 2) as u32), (best & 3) as usize)
}

/// The offer of one slot.
#[inline(always)]
pub fn offer_of<L: Layout, W: Words>(slot: W, now: u32, timeout: impl Fn(u32) -> u32) -> Offer<W> {
    let (first, value) = (slot.load(0), slot.load(L::STRIDE.wrapping_sub(1)));
    Offer {
        slot,
        price: price::<L, W>(first, value, now, &timeout),
        first,
        value,
    }
}

/// The price of a slot with these words. Apart from the marks of slots, which most slots do not
/// have, nothing here is a branch before the price is known: in a full table, connections and
/// way-back entries are mixed at random.
#[inline(always)]
fn price<L: Layout, W: Words>(
    first: u64,
    value: u64,
    now: u32,
    timeout: &impl Fn(u32) -> u32,
) -> Price {
    if first == FREE || first == GONE {
        return Price::NOTHING;
    }
    if first == BUSY || value == CLOSED {
        return Price::NEVER;
    }
    let meta = Meta((value >> 32) as u32);
    let (age, state) = (meta.age(now), meta.state());
    let key = Key {
        first,
        address: [0, 0],
        tag: value & L::TAG,
    };
    let back = key.endpoint::<L>() >> BACK.trailing_zeros() & 1;
    // All bits are set for a way-back entry, which has no state. Its age shows whether its
    // connection gives way: it then began with an age of `since`, and its price counts from there.
    let back = 0u32.wrapping_sub(W::hide(back as u64) as u32);
    let kind = W::hide((state & !back | WAY_BACK_YIELDING & back) as u64);
    let limit = timeout(kind as u32);
    let since = timeout(WAY_BACK).wrapping_add(1) & back;
    let is_older = since.wrapping_sub(age).wrapping_sub(1) >> 31;
    let yields = is_older & back | meta.yields() & !back;
    if age > limit {
        Price::EXPIRED
    } else if yields != 0 {
        let dear = (gives_way(state) ^ 1) & !back;
        let dear = dear.wrapping_add(dear & meta.has_talked());
        let class = Price::YIELDS.wrapping_add(dear << TICK_BITS);
        Price(class.wrapping_add(TICK_MASK.wrapping_sub(age.wrapping_sub(since))))
    } else {
        Price::NEVER
    }
}

/// The fields of an entry, for a pass over the whole table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// The key of the entry.
    pub key: Key,
    /// The id of the entry's server.
    pub target: u32,
    /// State, flags and tick of the entry.
    pub meta: Meta,
}

/// Reads slot `at` of a bucket; `None` if no entry is there. For sweeps, which run in user space.
#[must_use]
pub fn read<L: Layout, W: Words>(bucket: W, at: usize) -> Option<(Record, Entry<W>)> {
    if at >= L::SLOTS {
        return None;
    }
    let slot = bucket.skip(L::STRIDE.wrapping_mul(at));
    let first = slot.load(0);
    if first <= GONE {
        return None;
    }
    let address = if L::STRIDE == 4 {
        [slot.load(1), slot.load(2)]
    } else {
        [0, 0]
    };
    let value = slot.load(L::STRIDE.wrapping_sub(1));
    // The slot was written meanwhile, so the words read are not of one entry.
    if slot.load(0) != first {
        return None;
    }
    let key = Key {
        first,
        address,
        tag: value & L::TAG,
    };
    let entry = Entry { slot, value };
    Some((
        Record {
            key,
            target: entry.target(),
            meta: entry.meta(),
        },
        entry,
    ))
}

/// Turns `GONE` into `FREE` in slot `at`; true if it was `GONE`. Only for the daemon, when no flow
/// is in its second bucket because of this slot.
pub fn sweep<L: Layout, W: Words>(bucket: W, at: usize) -> bool {
    at < L::SLOTS && bucket.skip(L::STRIDE.wrapping_mul(at)).swap(0, GONE, FREE)
}
