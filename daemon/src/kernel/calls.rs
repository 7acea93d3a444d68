//! The map of calls, walked in batches.

use aya::maps::MapData;
use shunt_datapath::sweep::Entries;
use shunt_datapath::table::call::{Call, CallKey};

use super::batch::{self, Held, Plain};

/// The most entries that one system call reads.
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
// SAFETY: the type consists of 64-bit words.
unsafe impl Plain for Value {}

/// The map of calls.
#[derive(Debug)]
pub struct Calls(Held<MapKey, Value>);

impl Calls {
    /// Holds the map.
    pub fn hold(map: &MapData) -> Result<Self, batch::Error> {
        Ok(Self(Held::new(map)?))
    }

    /// Calls `each` with every call, until it returns false.
    pub fn each(&self, each: &mut dyn FnMut(&CallKey, &Call) -> bool) -> Result<(), batch::Error> {
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
