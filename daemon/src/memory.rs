//! What an earlier daemon wrote down, and what becomes of a packet path without such notes.
//!
//! The tables in the kernel say how packets are forwarded, the notes whose ids stand in them. Where
//! the notes cannot be read nobody could change what is forwarded any more, so the packet path is
//! taken away and the daemon begins with an empty table. It says so, and it never fails by it:
//! a service manager that starts it again and again would not help.

use std::fs;
use std::io::ErrorKind;

use shunt_control::director::Memory;
use tracing::{error, warn};

use crate::journal::{self, Unreadable};
use crate::kernel::object;
use crate::kernel::place::Place;

/// The notes of the daemon before, if it left any that make sense.
pub fn recall(place: &Place) -> Option<Memory> {
    let path = place.memory();
    let told = match fs::read(&path) {
        Ok(text) => journal::read(&text),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            take_away(place);
            return None;
        }
        Err(error) => Err(Unreadable::Read(error)),
    };
    match told {
        Ok(told) => {
            if told.torn > 0 {
                warn!(
                    file = %path.display(),
                    bytes = told.torn,
                    action = "it is left out; its change was never answered",
                    "last record not whole"
                );
            }
            Some(told.memory)
        }
        Err(why) => {
            let aside = path.with_extension("broken");
            let _ = fs::rename(&path, &aside);
            error!(
                file = %path.display(),
                %why,
                kept = %aside.display(),
                action = "the packet path is taken away; beginning with an empty table",
                "table of the daemon before not readable"
            );
            take_away(place);
            None
        }
    }
}

fn take_away(place: &Place) {
    if let Err(error) = object::empty(place) {
        error!(%error, "packet path of the daemon before not taken away");
    }
}
