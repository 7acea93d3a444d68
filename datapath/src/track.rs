//! Flows in the table: finding one, entering one, following its state, and what each of that does
//! to the live counts of its server.

use crate::connection::{self, Direction, Meta, State};
use crate::entry::{Settings, counts, switch};
use crate::family::Family;
use crate::flows::{self, Entry, GONE, Key, Layout, Offer, Price, Seat, Words};
use crate::packet::{Packet, Part, Ports, TCP};
use crate::region;
use crate::tables::Tables;
use crate::verdict::Note;

/// Ticks that an entry of this state lives.
#[inline(always)]
#[must_use]
pub fn limit(settings: &Settings, state: State) -> u32 {
    settings
        .timeouts
        .get((state & 31) as usize)
        .copied()
        .unwrap_or(0)
}

/// The key's hash in this table.
#[inline(always)]
pub fn hash<F: Family, T: Tables>(tables: &T, key: &Key) -> u64 {
    flows::hash::<F::Layout>(key, tables.shape().seed)
}

/// Finds a flow, alive or not.
#[inline(always)]
pub fn find<F: Family, T: Tables>(tables: &T, key: &Key, hash: u64) -> Option<Entry<T::Words>> {
    let mask = F::flow_mask(tables);
    let bucket = F::bucket(tables, flows::first(hash, mask))?;
    let (found, has_free) = flows::find::<F::Layout, T::Words>(bucket, key);
    if found.is_some() || has_free {
        return found;
    }
    let bucket = F::bucket(tables, flows::second(hash, mask))?;
    flows::find::<F::Layout, T::Words>(bucket, key).0
}

/// Where a new flow can go.
#[derive(Clone, Copy, Debug)]
pub enum Place<W> {
    /// A slot, with what is there now.
    At(Offer<W>),
    /// Both buckets are full of established flows.
    Nowhere,
}

/// Looks for the cheapest slot for a flow of this hash.
#[inline(always)]
pub fn place<F: Family, T: Tables>(
    tables: &T,
    settings: &Settings,
    hash: u64,
    now: u32,
) -> Place<T::Words> {
    let at = F::cheapest(tables, hash);
    let Some(bucket) = F::bucket(tables, (at >> 2) as u32) else {
        return Place::Nowhere;
    };
    let slot = bucket.pick::<F::Layout>((at & 3) as usize);
    // Looked at again: if it changed in between, the price is that of what is there.
    let offer = flows::offer_of::<F::Layout, T::Words>(slot, now, |state| limit(settings, state));
    if offer.price == Price::NEVER {
        Place::Nowhere
    } else {
        Place::At(offer)
    }
}

/// The number of the cheapest slot for a flow of this hash: its bucket's, times four, and its own.
/// In the kernel this is a function of its own (`cheapest4`): eight slots, each with its
/// price, would be verified at each place that asks. The slot's region is marked: who asks enters.
#[inline(always)]
pub fn cheapest<F: Family, T: Tables>(tables: &T, hash: u64) -> u64 {
    let Some(settings) = tables.settings() else {
        return u64::MAX;
    };
    let (mask, now) = (F::flow_mask(tables), tables.now());
    let first = flows::first(hash, mask);
    let Some((price, home)) = cheapest_of::<F, T>(tables, settings, first, now) else {
        return u64::MAX;
    };
    let (bucket, at) = if price <= Price::EXPIRED {
        (first, home)
    } else {
        let second = flows::second(hash, mask);
        match cheapest_of::<F, T>(tables, settings, second, now) {
            Some((other, away)) if other < price => (second, away),
            _ => (first, home),
        }
    };
    region::mark(F::occupied(tables, region::of(bucket)));
    at
}

/// The cheapest slot of a bucket, as [`cheapest`] says it. Always inlined, as a closure is not: a
/// frame of its own is 32 bytes of the stack, of which the way here has none left on Linux 6.1.
#[inline(always)]
fn cheapest_of<F: Family, T: Tables>(
    tables: &T,
    settings: &Settings,
    number: u32,
    now: u32,
) -> Option<(Price, u64)> {
    let bucket = F::bucket(tables, number)?;
    let (price, slot) =
        flows::cheapest::<F::Layout, T::Words>(bucket, now, |state| limit(settings, state));
    Some((price, (number as u64) << 2 | slot as u64))
}

/// Takes the cheapest slot for a flow of this hash, if there is one. Each way to nowhere ends here:
/// where an offer could be none, the kernel's verifier saw a register that nobody had written.
#[inline(always)]
pub fn claim<F: Family, T: Tables>(
    tables: &T,
    settings: &Settings,
    hash: u64,
    now: u32,
) -> Option<Seat<T::Words>> {
    let at = F::cheapest(tables, hash);
    let bucket = F::bucket(tables, (at >> 2) as u32)?;
    let slot = bucket.pick::<F::Layout>((at & 3) as usize);
    let offer = flows::offer_of::<F::Layout, T::Words>(slot, now, |state| limit(settings, state));
    if offer.price == Price::NEVER {
        return None;
    }
    take::<F, T>(tables, offer)
}

/// Takes the slot of an offer, and gives back what its last entry counted for.
#[inline(always)]
pub fn take<F: Family, T: Tables>(tables: &T, offer: Offer<T::Words>) -> Option<Seat<T::Words>> {
    let seat = offer.take::<F::Layout>()?;
    if offer.first > GONE {
        if offer.price > Price::EXPIRED {
            tables.count(Note::Displaced.counter());
        }
        release::<F, T>(tables, offer.first, offer.value);
    }
    Some(seat)
}

/// Takes off the live counts what an entry that was taken out had put there.
#[inline(always)]
pub fn release<F: Family, T: Tables>(tables: &T, first: u64, value: u64) {
    let key = Key {
        first,
        address: [0, 0],
        tag: value & <F::Layout as Layout>::TAG,
    };
    if key.is_back::<F::Layout>() {
        return;
    }
    if let Some(words) = tables.counts(value as u32 & 0xff_ffff) {
        let meta = Meta((value >> 32) as u32);
        let what = if meta.is_template() {
            0
        } else if meta.has(Meta::INACTIVE) {
            counts::INACTIVE
        } else {
            counts::ACTIVE
        };
        words.add(0, 0u64.wrapping_sub(what));
    }
}

/// What a packet tells of its connection.
#[derive(Clone, Copy, Debug)]
pub struct Heard {
    part: Part,
    protocol: u8,
    flags: u8,
    sctp: bool,
}

impl Heard {
    #[inline(always)]
    pub fn of<F: Family>(packet: &Packet<F>, ports: Ports) -> Self {
        Self {
            part: packet.part,
            protocol: packet.protocol,
            flags: ports.flags,
            sctp: packet.is_sctp(),
        }
    }
}

/// The state of a flow after a packet.
#[inline(always)]
#[must_use]
pub fn follow<T: Tables>(
    tables: &T,
    settings: &Settings,
    meta: Meta,
    heard: Heard,
    output: bool,
) -> State {
    let flags = heard.flags;
    if heard.part == Part::Later {
        // A later fragment has no flags to tell.
        return meta.state();
    }
    if heard.protocol != TCP && !heard.sctp {
        // A second packet, or an answer: no longer half-open.
        return connection::UDP;
    }
    advance(tables, settings, meta, heard.sctp, output, flags)
}

/// The state of a TCP connection or an SCTP association after flags.
#[inline(always)]
#[must_use]
pub fn advance<T: Tables>(
    tables: &T,
    settings: &Settings,
    meta: Meta,
    sctp: bool,
    output: bool,
    flags: u8,
) -> State {
    let direction = if output {
        Direction::Output
    } else if meta.has(Meta::NO_OUTPUT) {
        Direction::InputOnly
    } else {
        Direction::Input
    };
    if sctp {
        return tables.association_next(meta.state(), direction as u32, flags as u32);
    }
    let (from, to) = (
        meta.state(),
        connection::next(meta.state(), direction, flags),
    );
    // Nothing is different for an established connection: only others look at the setting.
    if from != connection::ESTABLISHED && settings.switches & switch::SECURE_TCP != 0 {
        connection::secured(from, to, direction, flags)
    } else {
        to
    }
}

/// Writes a flow's state, its time and what proves it if any of these changed, and moves it between
/// the live counts. `output`: this is an answer.
#[inline(always)]
pub fn note<F: Family, T: Tables>(
    tables: &T,
    entry: &mut Entry<T::Words>,
    state: State,
    now: u32,
    output: bool,
) {
    let meta = entry.meta();
    // Nearly every packet is one of a proved connection of which nothing is to be written.
    if meta.is_as(now, state, Meta::PROVED) {
        return;
    }
    let proved = meta.heard(output);
    if meta.is_as(now, state, proved) {
        return;
    }
    let was_inactive = meta.has(Meta::INACTIVE);
    let is_inactive = !connection::is_active(state);
    let kept = meta.low() & (Meta::NO_OUTPUT | Meta::CONTROLLED);
    let flags = kept | proved | if is_inactive { Meta::INACTIVE } else { 0 };
    // Someone else may have written first, for the same flow: the next packet tells again.
    if !entry.update::<F::Layout>(Meta::new(now, state, flags)) || was_inactive == is_inactive {
        return;
    }
    if let Some(words) = tables.counts(entry.target()) {
        let moved = counts::ACTIVE.wrapping_sub(counts::INACTIVE);
        words.add(
            0,
            if is_inactive {
                0u64.wrapping_sub(moved)
            } else {
                moved
            },
        );
    }
}

/// 1 if a connection that has a way back or a template gives way no longer, or gives way now.
#[inline(always)]
#[must_use]
pub fn turns(before: Meta, after: Meta) -> u32 {
    let told = before.low() & (Meta::NO_OUTPUT | Meta::CONTROLLED) != Meta::NO_OUTPUT;
    (before.yields() ^ after.yields()) & u32::from(told)
}

/// What the way back of a connection says: it gives way when the connection does
/// ([`Meta::yields`]).
#[inline(always)]
#[must_use]
pub fn way_back(settings: &Settings, meta: Meta, yields: u32, now: u32) -> Meta {
    // One expression and no branch: what follows is then verified once.
    let older = limit(settings, connection::WAY_BACK).wrapping_add(1);
    meta.seen(now.wrapping_sub(older.wrapping_mul(yields)))
}

/// What a new connection counts as, and its first meta. `flags`: [`Meta::NO_OUTPUT`],
/// [`Meta::CONTROLLED`] and [`Meta::PROVED`].
#[inline(always)]
pub fn begin<T: Tables>(tables: &T, server: u32, now: u32, state: State, flags: u32) -> Meta {
    let active = connection::is_active(state);
    if let Some(words) = tables.counts(server) {
        words.add(
            0,
            if active {
                counts::ACTIVE
            } else {
                counts::INACTIVE
            },
        );
    }
    let inactive = if active { 0 } else { Meta::INACTIVE };
    Meta::new(now, state, flags | inactive)
}
