//! The map of translations, walked in batches.

use std::os::fd::OwnedFd;

use anyhow::Result;
use shunt_datapath::sweep::Entries;
use shunt_datapath::translation::{Translation, Tuple};

use super::batch::{self, Batches, Plain};

/// Entries of one call, so that the kernel's side of it is short.
const BATCH: usize = 2048;

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

impl Translations {
    /// Calls `each` with every entry, and its number within its batch.
    pub fn each(&self, each: &mut dyn FnMut(usize, &Tuple, &Translation)) -> Result<()> {
        let mut keys = vec![TupleKey::default(); BATCH];
        let mut values = vec![Value::default(); BATCH];
        let mut batches = Batches::new(&self.0);
        loop {
            let count = batches.read(&mut keys, &mut values, 1)?;
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
        let found: Option<Value> = batch::lookup(&self.0, &TupleKey(*key));
        found.map(|Value(translation)| translation)
    }

    fn enter(&self, key: &Tuple, value: &Translation) -> bool {
        batch::enter(&self.0, &TupleKey(*key), &Value(*value))
    }

    fn replace(&self, key: &Tuple, value: &Translation) -> bool {
        batch::replace(&self.0, &TupleKey(*key), &Value(*value))
    }

    fn delete(&self, key: &Tuple) -> bool {
        batch::delete(&self.0, &TupleKey(*key))
    }
}
