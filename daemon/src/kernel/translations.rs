//! The map of translations, walked in batches.

use aya::maps::MapData;
use shunt_datapath::sweep::Entries;
use shunt_datapath::translation::{Translation, Tuple};

use super::batch::{self, Held, Plain};

/// The most entries that one system call reads, so that it stays short.
const BATCH: usize = 2048;

/// [`Tuple`] as a map's key.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default)]
struct TupleKey(Tuple);
// SAFETY: the type consists of 64-bit words.
unsafe impl Plain for TupleKey {}

/// [`Translation`] as a map's value.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default)]
struct Value(Translation);
// SAFETY: the type consists of 64-bit words.
unsafe impl Plain for Value {}

/// The map of translations.
#[derive(Debug)]
pub struct Translations(Held<TupleKey, Value>);

impl Translations {
    /// Holds the map.
    pub fn hold(map: &MapData) -> Result<Self, batch::Error> {
        Ok(Self(Held::new(map)?))
    }

    /// Calls `each` with every entry, and its number within its batch.
    pub fn each(
        &self,
        each: &mut dyn FnMut(usize, &Tuple, &Translation),
    ) -> Result<(), batch::Error> {
        let mut keys = vec![TupleKey::default(); BATCH];
        let mut values = vec![Value::default(); BATCH];
        let mut batches = self.0.batches();
        loop {
            let count = batches.read(&mut keys, &mut values)?;
            if count == 0 {
                return Ok(());
            }
            let entries = keys.iter().zip(&values).take(count);
            for (index, (TupleKey(tuple), Value(translation))) in entries.enumerate() {
                each(index, tuple, translation);
            }
        }
    }
}

impl Entries<Tuple, Translation> for Translations {
    fn find(&self, key: &Tuple) -> Option<Translation> {
        let found = self.0.lookup(&TupleKey(*key));
        found.map(|Value(translation)| translation)
    }

    fn enter(&self, key: &Tuple, value: &Translation) -> bool {
        self.0.enter(&TupleKey(*key), &Value(*value))
    }

    fn replace(&self, key: &Tuple, value: &Translation) -> bool {
        self.0.replace(&TupleKey(*key), &Value(*value))
    }

    fn delete(&self, key: &Tuple) -> bool {
        self.0.delete(&TupleKey(*key))
    }
}
