//! The table of translations: its entries end when their flows do.
//!
//! The packet path enters them and never takes one out but its own of a moment ago. A scan of the
//! flows goes over them too, and takes out both of a flow that is no longer there.

use std::os::fd::OwnedFd;

use anyhow::Result;
use shunt_datapath::connection;
use shunt_datapath::flows::{self, Key, Layout, Narrow, Wide};
use shunt_datapath::translation::{Translation, Tuple, flag};

use super::batch::{self, Batches, Plain};
use super::mapping::{BucketWords, Mapping};
use super::scan::Look;

/// Entries of one call, so that the kernel's side of it is short.
const BATCH: usize = 2048;
/// Ticks for which an entry without its flow, or without its other half, is left alone: it may be
/// on the way.
const IDLE: u32 = 2;
/// Ticks that the translation of a single datagram waits for its answer.
const ONE_PACKET: u32 = 10;
/// A look at the other half of an answer's entry asks the kernel. Each scan looks at one in so many
/// of those that are idle.
const SHARE: usize = 8;

/// [`Tuple`] as a map's key.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default)]
struct TupleKey(Tuple);
// SAFETY: words only.
unsafe impl Plain for TupleKey {}

/// [`Translation`] as a map's value.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default)]
struct Value(Translation);
// SAFETY: words only.
unsafe impl Plain for Value {}

/// The map.
#[derive(Debug)]
pub struct Translations(pub OwnedFd);

/// What a look at them found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    pub used: u64,
    pub taken_out: u64,
}

impl Translations {
    /// Goes over all entries once. `turn` is the number of the scan.
    pub fn sweep(&self, look: Look<'_>, turn: usize) -> Result<Counted> {
        let mut counted = Counted::default();
        let mut keys = vec![TupleKey::default(); BATCH];
        let mut values = vec![Value::default(); BATCH];
        let mut batches = Batches::new(&self.0);
        loop {
            let count = batches.read(&mut keys, &mut values, 1)?;
            if count == 0 {
                return Ok(counted);
            }
            let entries = keys.iter().zip(&values).take(count);
            for (index, (TupleKey(tuple), Value(translation))) in entries.enumerate() {
                let ended = if translation.has(flag::FORWARD) {
                    self.end(look, tuple, translation)
                } else {
                    index % SHARE == turn % SHARE && self.end_answer(look, tuple, translation)
                };
                if ended {
                    counted.taken_out += 1;
                } else {
                    counted.used += 1;
                }
            }
        }
    }

    /// Takes out a client's entry and its answers' if the flow is no longer there.
    fn end(&self, look: Look<'_>, tuple: &Tuple, translation: &Translation) -> bool {
        let lives = if translation.has(flag::ONE_PACKET) {
            ONE_PACKET
        } else {
            IDLE
        };
        let is_young = connection::age(translation.tick(), look.now) <= lives;
        if is_young || has_flow(look, tuple, translation) {
            return false;
        }
        if !batch::delete(&self.0, &TupleKey(*tuple)) {
            return true;
        }
        let answer = TupleKey(translation.to.turned());
        let other: Option<Value> = batch::lookup(&self.0, &answer);
        let other = other.filter(|Value(other)| other.to == tuple.turned());
        if other.is_some() {
            batch::delete(&self.0, &answer);
        }
        // A client that came back in this moment found one or both, and goes on with them: its flow
        // was there before it looked. What it entered itself meanwhile stays.
        if !has_flow(look, tuple, translation) {
            return true;
        }
        batch::enter(&self.0, &TupleKey(*tuple), &Value(*translation));
        if let Some(other) = other {
            batch::enter(&self.0, &answer, &other);
        }
        false
    }

    /// Takes out an answer's entry to which no client's belongs.
    fn end_answer(&self, look: Look<'_>, tuple: &Tuple, translation: &Translation) -> bool {
        if connection::age(translation.tick(), look.now) <= IDLE {
            return false;
        }
        let other: Option<Value> = batch::lookup(&self.0, &TupleKey(translation.to.turned()));
        let belongs = other.is_some_and(|Value(other)| other.to.turned() == *tuple);
        if belongs || !batch::delete(&self.0, &TupleKey(*tuple)) {
            return false;
        }
        // As above: a client that took this for its own has its flow already.
        if !has_flow(look, &translation.to.turned(), translation) {
            return true;
        }
        batch::enter(&self.0, &TupleKey(*tuple), &Value(*translation));
        false
    }
}

/// Whether the flow of a client's translation is in the table of flows.
fn has_flow(look: Look<'_>, tuple: &Tuple, translation: &Translation) -> bool {
    let (made, service) = (&look.tables.made, translation.service());
    let port = tuple.source_port();
    if tuple.is_v6() {
        let key = Key::v6(tuple.source, port, service);
        is_in::<Wide>(&look.tables.flows6, made.flow6_mask(), made.seed, &key)
    } else {
        let key = Key::v4(tuple.source[0] as u32, port, service);
        is_in::<Narrow>(&look.tables.flows4, made.flow4_mask(), made.seed, &key)
    }
}

fn is_in<L: Layout>(mapping: &Mapping, mask: u32, seed: u64, key: &Key) -> bool {
    let hash = flows::hash(key, seed);
    let places = [flows::first(hash, mask), flows::second(hash, mask)];
    places.into_iter().any(|bucket| {
        let words = mapping.value(bucket as usize).unwrap_or_default();
        flows::find::<L, _>(BucketWords(words), key).0.is_some()
    })
}
