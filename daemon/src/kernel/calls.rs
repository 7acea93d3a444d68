//! The map of calls, walked in batches for the sweep and for listings.

use std::collections::BTreeMap;

use anyhow::Result;
use aya::maps::MapData;
use shunt_control::director::Names;
use shunt_datapath::call::{Call, CallKey};
use shunt_datapath::sweep::{Entries, Found, server_of_call};
use shunt_model::{Connection, EngineData, State};

use super::batch::{Held, Plain};
use super::listing::Told;
use super::sweep::Look;

/// Entries of one call of the kernel.
const BATCH: usize = 1024;

/// [`CallKey`] as a map's key.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default)]
struct MapKey(CallKey);
// SAFETY: integers only, without padding.
unsafe impl Plain for MapKey {}

/// [`Call`] as a map's value.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default)]
struct Value(Call);
// SAFETY: words only.
unsafe impl Plain for Value {}

/// The map.
#[derive(Debug)]
pub struct Calls(Held<MapKey, Value>);

impl Calls {
    /// Holds the map.
    pub fn hold(map: &MapData) -> Result<Self> {
        Ok(Self(Held::new(map)?))
    }

    /// Goes over all calls once.
    pub fn sweep(&self, look: Look<'_>, found: &mut Found) -> Result<()> {
        let mut later = Vec::new();
        self.each(&mut |key, call| {
            if !look.count_call(key, call, found) {
                later.push(*key);
            }
            true
        })?;
        for key in later {
            look.look_after_call(self, &key, found);
        }
        Ok(())
    }

    /// Calls `each` with every call, until it says false.
    fn each(&self, each: &mut dyn FnMut(&CallKey, &Call) -> bool) -> Result<()> {
        let mut keys = vec![MapKey::default(); BATCH];
        let mut values = vec![Value::default(); BATCH];
        let mut batches = self.0.batches();
        loop {
            let count = batches.read(&mut keys, &mut values)?;
            if count == 0 {
                return Ok(());
            }
            for (MapKey(key), Value(call)) in keys.iter().zip(&values).take(count) {
                if !each(key, call) {
                    return Ok(());
                }
            }
        }
    }

    /// How many calls name each server.
    pub fn templates(&self, look: Look<'_>, counts: &mut BTreeMap<u32, u32>) -> Result<()> {
        self.each(&mut |_, call| {
            if look.rest_of_call(call).is_some() {
                *counts.entry(server_of_call(call)).or_insert(0) += 1;
            }
            true
        })
    }

    /// How many calls are not assured, and how many are.
    pub fn states(&self, look: Look<'_>) -> Result<[u64; 2]> {
        let mut counts = [0; 2];
        self.each(&mut |_, call| {
            if look.rest_of_call(call).is_some() {
                counts[usize::from(look.is_assured_call(call))] += 1;
            }
            true
        })?;
        Ok(counts)
    }

    /// Calls `each` with every call in the operator's words, until it says false.
    pub fn list(
        &self,
        look: Look<'_>,
        names: &Names,
        each: &mut dyn FnMut(Connection) -> bool,
    ) -> Result<()> {
        self.each(&mut |key, call| match tell(look, key, call, names) {
            Some(connection) => each(connection),
            None => true,
        })
    }
}

impl Entries<CallKey, Call> for Calls {
    fn find(&self, key: &CallKey) -> Option<Call> {
        let found = self.0.lookup(&MapKey(*key));
        found.map(|Value(call)| call)
    }

    fn enter(&self, key: &CallKey, value: &Call) -> bool {
        self.0.enter(&MapKey(*key), &Value(*value))
    }

    fn replace(&self, key: &CallKey, value: &Call) -> bool {
        self.0.replace(&MapKey(*key), &Value(*value))
    }

    fn delete(&self, key: &CallKey) -> bool {
        self.0.delete(&MapKey(*key))
    }
}

/// A call in the operator's words; `None` if its time is over.
fn tell(look: Look<'_>, key: &CallKey, call: &Call, names: &Names) -> Option<Connection> {
    let template = Told {
        service: key.service,
        server: server_of_call(call),
        client: key.client,
        left: look.rest_of_call(call)?,
    };
    let bytes = key.id.iter().flat_map(|word| word.to_le_bytes());
    let data = bytes.take(key.length as usize).map(char::from).collect();
    let state = if look.is_assured_call(call) {
        State::Assured
    } else {
        State::None
    };
    Some(Connection {
        state,
        engine: Some(EngineData {
            name: "sip".to_owned(),
            data,
        }),
        ..template.tell(names, look.tick_ns)?
    })
}
