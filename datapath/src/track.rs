//! Flows in the table: finds and enters them, follows their states, and keeps the live counts of
//! their servers.

use crate::connection::{self, Direction, Meta, State, flag};
use crate::steps::Choices;
use crate::table::Tables;
use crate::table::entry::{Settings, counts, switch};
use crate::table::family::Family;
use crate::table::flows::{self, Entry, GONE, Key, Layout, Offer, Price, Seat, Words};
use crate::table::region;
use crate::verdict::Note;
use crate::wire::packet::{Packet, Part, Ports, TCP};

/// The timeout of a state, in ticks.
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

/// Finds the entry of a flow, live or expired.
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
    /// A slot, with its present content.
    At(Offer<W>),
    /// Both buckets are full of established flows.
    Nowhere,
}

/// Looks for the cheapest slot for a flow of this hash.
#[inline(always)]
pub fn place<F: Family, T: Choices>(
    tables: &T,
    settings: &Settings,
    hash: u64,
    now: u32,
) -> Place<T::Words> {
    let at = tables.cheapest::<F>(hash);
    let Some(bucket) = F::bucket(tables, (at >> 2) as u32) else {
        return Place::Nowhere;
    };
    let slot = bucket.pick::<F::Layout>((at & 3) as usize);
    // The slot is priced again, since it may have changed in between.
    let offer = flows::offer_of::<F::Layout, T::Words>(slot, now, |state| limit(settings, state));
    if offer.price >= Price::LAST {
        Place::Nowhere
    } else {
        Place::At(offer)
    }
}

/// The number of the cheapest slot for a flow of this hash: four times its bucket's number plus its
/// own. `u64::MAX` without tables. Marks the slot's region, since the caller enters a flow.
///
/// In the kernel this is a separate function (`cheapest4`), so that the prices of eight slots are
/// not verified at each caller.
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

/// The cheapest slot of a bucket, numbered as in [`cheapest`]. Always inlined, which a closure is
/// not: a frame of its own takes 32 bytes of stack, and this chain of calls has none left on Linux
/// 6.1.
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

/// Takes the cheapest slot for a flow of this hash; `None` if there is no room. Each failure
/// returns here: where an offer could be `None`, the kernel's verifier saw a register that nothing
/// had written.
/// `most`: a slot of this price or more is not taken.
#[inline(always)]
pub fn claim<F: Family, T: Choices>(
    tables: &T,
    settings: &Settings,
    hash: u64,
    now: u32,
    most: Price,
) -> Option<Seat<T::Words>> {
    let at = tables.cheapest::<F>(hash);
    let bucket = F::bucket(tables, (at >> 2) as u32)?;
    let slot = bucket.pick::<F::Layout>((at & 3) as usize);
    let offer = flows::offer_of::<F::Layout, T::Words>(slot, now, |state| limit(settings, state));
    if offer.price >= most {
        return None;
    }
    take::<F, T>(tables, offer)
}

/// Takes the slot of an offer, and subtracts its last entry from its server's live counts.
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

/// Subtracts a removed entry from its server's live counts. `first` and `value` are the entry's
/// words.
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

/// What a packet shows of its connection.
#[derive(Clone, Copy, Debug)]
pub struct Heard {
    part: Part,
    protocol: u8,
    flags: u8,
    sctp: bool,
}

impl Heard {
    /// What this packet with these ports and flags shows.
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

/// Whether a packet changes nothing of its connection: a plain one, as most of a proved connection
/// are, in a tick in which another was heard. What [`follow`], [`note`] and [`turns`] would say is
/// then known.
#[inline(always)]
#[must_use]
pub fn is_steady(meta: Meta, heard: Heard, now: u32) -> bool {
    const TELLING: u8 = flag::RST | flag::SYN | flag::FIN | flag::ACK;
    if heard.sctp || heard.part != Part::Whole {
        return false;
    }
    let (state, flags) = if heard.protocol == TCP {
        (connection::ESTABLISHED, flag::ACK)
    } else {
        (connection::UDP, 0)
    };
    heard.flags & TELLING == flags && meta.is_steady(now, state)
}

/// The state of a flow after a packet. `output`: the packet is an answer.
#[inline(always)]
#[must_use]
pub fn follow<T: Choices>(
    tables: &T,
    settings: &Settings,
    meta: Meta,
    heard: Heard,
    output: bool,
) -> State {
    let flags = heard.flags;
    if heard.part == Part::Later {
        // A later fragment has no flags.
        return meta.state();
    }
    if heard.protocol != TCP && !heard.sctp {
        // A second datagram or an answer: the flow is not half-open.
        return connection::UDP;
    }
    advance(tables, settings, meta, heard.sctp, output, flags)
}

/// The state of a TCP connection or an SCTP association after a packet with these flags.
#[inline(always)]
#[must_use]
pub fn advance<T: Choices>(
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
    // `secure_tcp` does not change an established connection, so only other states read the
    // setting.
    if from != connection::ESTABLISHED && settings.switches & switch::SECURE_TCP != 0 {
        connection::secured(from, to, direction, flags)
    } else {
        to
    }
}

/// Writes a flow's state, its tick and what proves it if any of these changed, and moves the flow
/// between active and inactive. `output`: the packet is an answer.
#[inline(always)]
pub fn note<F: Family, T: Tables>(
    tables: &T,
    entry: &mut Entry<T::Words>,
    state: State,
    now: u32,
    output: bool,
) {
    let meta = entry.meta();
    // Nearly every packet changes nothing about its connection.
    if meta.is_settled(now, state) {
        return;
    }
    let proved = meta.heard(output, now, entry.phase::<F::Layout>());
    if meta.is_as(now, state, proved) {
        return;
    }
    let was_inactive = meta.has(Meta::INACTIVE);
    let is_inactive = !connection::is_active(state);
    let kept = meta.low() & (Meta::NO_OUTPUT | Meta::CONTROLLED);
    let flags = kept | proved | if is_inactive { Meta::INACTIVE } else { 0 };
    // Another CPU may have written this flow first; the next packet writes it again.
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

/// 1 if a connection with a way-back entry or a template changed whether it may be displaced, else
/// 0.
#[inline(always)]
#[must_use]
pub fn turns(before: Meta, after: Meta) -> u32 {
    let told = before.low() & (Meta::NO_OUTPUT | Meta::CONTROLLED) != Meta::NO_OUTPUT;
    let state = connection::gives_way(before.state()) ^ connection::gives_way(after.state());
    (before.yields() ^ after.yields() | state) & u32::from(told)
}

/// The meta of a connection's way-back entry, which may be displaced when the connection may
/// ([`Meta::yields`]).
#[inline(always)]
#[must_use]
pub fn way_back(settings: &Settings, meta: Meta, yields: u32, now: u32) -> Meta {
    // There is no branch, so that the code behind is verified once.
    let older = limit(settings, connection::WAY_BACK).wrapping_add(1);
    meta.seen(now.wrapping_sub(older.wrapping_mul(yields)))
}

/// Adds a connection to its server's live counts, and returns its first meta. `flags`:
/// [`Meta::NO_OUTPUT`], [`Meta::CONTROLLED`] and [`Meta::PROVED`].
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

/// Notes an answer in the entry of its connection, and returns the entry's meta. `None` if the
/// connection has ended.
#[inline(always)]
pub fn tell<F: Family, T: Choices>(
    tables: &T,
    settings: &Settings,
    key: &Key,
    id: u32,
    heard: Heard,
) -> Option<Meta> {
    let now = tables.now();
    let hash = hash::<F, T>(tables, key);
    let mut entry = find::<F, T>(tables, key, hash)?;
    let meta = entry.meta();
    if entry.target() != id || meta.age(now) > limit(settings, meta.state()) {
        return None;
    }
    let state = follow(tables, settings, meta, heard, true);
    note::<F, T>(tables, &mut entry, state, now, true);
    Some(entry.meta())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::STATES;
    use crate::host::{HostTables, Sizes};
    use crate::wire::packet::UDP;

    const NOW: u32 = 8;

    fn heard(protocol: u8, flags: u8) -> Heard {
        Heard {
            part: Part::Whole,
            protocol,
            flags,
            sctp: false,
        }
    }

    /// Every meta that was last heard of in this tick or the one before.
    fn metas() -> impl Iterator<Item = Meta> {
        (0..STATES as u32 * 32 * 2)
            .map(|number| Meta::new(NOW - (number >> 10), number & 31, number & 0x3e0))
    }

    #[test]
    fn a_steady_packet_would_change_nothing() {
        let tables = HostTables::new(Sizes::default());
        for (meta, flags) in metas().flat_map(|meta| (0..64).map(move |flags| (meta, flags))) {
            for heard in [heard(TCP, flags), heard(UDP, 0)] {
                if !is_steady(meta, heard, NOW) {
                    continue;
                }
                let state = follow(&&tables, &tables.settings, meta, heard, false);

                assert!(
                    meta.is_as(NOW, state, meta.heard(false, NOW, 5)),
                    "{meta:?} {heard:?}"
                );
                assert_eq!(turns(meta, meta), 0);
                assert_eq!(heard.flags & flag::SYN, 0);
                assert_eq!(meta.age(NOW), 0);
            }
        }
    }

    #[test]
    fn nearly_every_packet_of_a_proved_connection_is_steady() {
        let tcp = Meta::new(NOW, connection::ESTABLISHED, Meta::PROVED | Meta::NO_OUTPUT);
        let udp = Meta::new(NOW, connection::UDP, Meta::PROVED);

        assert!(is_steady(tcp, heard(TCP, flag::ACK), NOW));
        assert!(is_steady(udp, heard(UDP, 0), NOW));
        assert!(!is_steady(tcp, heard(TCP, flag::ACK), NOW + 1));
        assert!(!is_steady(tcp, heard(TCP, flag::ACK | flag::FIN), NOW));
    }
}
