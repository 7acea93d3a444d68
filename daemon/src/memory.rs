//! What an earlier daemon wrote down, and what becomes of a packet path without such notes.
//!
//! The tables in the kernel say how packets are forwarded, the notes whose ids stand in them. Where
//! the notes cannot be read nobody could change what is forwarded any more, so the packet path is
//! taken away and the daemon begins with an empty table. It says so, and it never fails by it:
//! a service manager that starts it again and again would not help.

use std::fs;
use std::io::ErrorKind;

use shunt_control::carried::Gate;
use shunt_control::director::Memory;
use shunt_control::table::{Limits, Table};
use tracing::error;

use crate::kernel::object;
use crate::kernel::place::Place;

/// The notes of the daemon before, if it left any that make sense.
pub fn recall(place: &Place) -> Option<Memory> {
    let path = place.memory();
    let why = match read(place) {
        Ok(memory) => return Some(memory),
        Err(None) => None,
        Err(Some(why)) => Some(why),
    };
    if let Some(why) = why {
        let aside = path.with_extension("broken");
        let _ = fs::rename(&path, &aside);
        error!(
            file = %path.display(),
            why,
            kept = %aside.display(),
            action = "the packet path is taken away; beginning with an empty table",
            "table of the daemon before not readable"
        );
    }
    if let Err(error) = object::empty(place) {
        error!(%error, "packet path of the daemon before not taken away");
    }
    None
}

/// The notes; `None` as error if there are none.
fn read(place: &Place) -> Result<Memory, Option<String>> {
    let text = match fs::read(place.memory()) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(None),
        Err(error) => return Err(Some(error.to_string())),
    };
    let memory: Memory = serde_json::from_slice(&text).map_err(|error| Some(error.to_string()))?;
    let mut table = Table::new(Gate::Carried, Limits::default());
    for change in &memory.changes {
        table.apply(change).map_err(|refusal| Some(refusal.text))?;
    }
    Ok(memory)
}
