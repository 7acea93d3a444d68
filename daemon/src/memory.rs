//! Reads the state that an earlier daemon saved, from the journal's file and its second copy.
//!
//! A damaged record costs only that record: it is reported, and the packet path stays as it is. The
//! daemon must always start, because a service manager would only start it again.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;

use shunt_control::programs;
use shunt_model::program::Program;
use tracing::{error, warn};

use crate::journal::{self, Duplicate, Saved, Told};
use crate::kernel::place::Place;

/// The most losses that are reported one by one. The rest is counted.
const TOLD: usize = 16;

/// The recovered state of the earlier daemon.
#[derive(Debug, Default)]
pub(crate) struct Recalled {
    /// `None` if there is no saved state, or none that can be read.
    pub saved: Option<Saved>,
    /// The losses and damages, each as a sentence.
    pub losses: Vec<String>,
    /// Records are lost, so the packet path may hold services that the state lacks.
    pub is_lossy: bool,
}

impl Recalled {
    /// The programs that the table of the daemon before needs.
    pub(crate) fn needed(&self) -> BTreeSet<Program> {
        let saved = self.saved.iter();
        let changes = saved.flat_map(|saved| &saved.memory.changes);
        programs::needed(changes)
    }
}

/// Reads the state of the earlier daemon.
pub(crate) fn recall(place: &Place) -> Recalled {
    let path = place.memory();
    let file = match fs::read(&path) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => {
            warn!(file = %path.display(), %error, "journal not read");
            None
        }
    };
    let is_pinned = place.has_pins();
    // A copy without a packet path belongs to one that was removed.
    let copy = Duplicate::read(&place.duplicate()).ok();
    let copy = copy.filter(|text| is_pinned && !text.is_empty());
    let recalled = choose(file.as_deref(), copy.as_deref(), is_pinned);
    if !recalled.losses.is_empty() {
        let aside = path.with_extension("damaged");
        let _ = fs::remove_file(&aside);
        let _ = fs::hard_link(&path, &aside);
    }
    for loss in &recalled.losses {
        if recalled.is_lossy {
            error!(file = %path.display(), "{loss}");
        } else {
            warn!(file = %path.display(), "{loss}");
        }
    }
    recalled
}

/// Whether no loss in a journal can be seen.
fn is_whole(told: &Told) -> bool {
    told.faults.is_empty() && told.torn == 0 && told.records > 0
}

/// Chooses between the file and its copy: a whole text, or else the text with more records.
fn choose(file: Option<&[u8]>, copy: Option<&[u8]>, is_pinned: bool) -> Recalled {
    let read = file.map(journal::read);
    let goes_on = |copy: &[u8]| file.is_none_or(|file| copy.starts_with(file));
    let other = copy.map(|text| (journal::read(text), goes_on(text)));
    match (read, other) {
        (Some(told), None) if is_whole(&told) => kept(told, Vec::new()),
        (Some(told), Some((other, goes_on))) if is_whole(&told) => {
            let is_behind = goes_on && is_whole(&other) && other.records > told.records;
            let told = if is_behind { other } else { told };
            kept(told, Vec::new())
        }
        (read, Some((other, _))) if is_whole(&other) => {
            let mut losses = vec!["the journal's second copy is used; nothing is lost".to_owned()];
            match read {
                Some(told) => losses.extend(faults(&told)),
                None => losses.push("the journal's file is missing".to_owned()),
            }
            kept(other, losses)
        }
        (Some(told), other) => {
            let better = match other {
                Some((other, _)) if other.records > told.records => other,
                _ => told,
            };
            let losses = faults(&better);
            let is_lossy = !better.faults.is_empty() || better.records == 0;
            Recalled {
                is_lossy,
                ..kept(better, losses)
            }
        }
        (None, Some((other, _))) => {
            let losses = faults(&other);
            Recalled {
                is_lossy: true,
                ..kept(other, losses)
            }
        }
        (None, None) if is_pinned => Recalled {
            saved: None,
            losses: vec![
                "the journal is missing, and so is its second copy: which services there were is \
                 not known; their packets are forwarded as before"
                    .to_owned(),
            ],
            is_lossy: true,
        },
        (None, None) => Recalled::default(),
    }
}

fn kept(told: Told, losses: Vec<String>) -> Recalled {
    Recalled {
        saved: (told.records > 0).then_some(told.saved),
        losses,
        is_lossy: false,
    }
}

/// The losses of a journal, as sentences.
fn faults(told: &Told) -> Vec<String> {
    let mut losses: Vec<String> = told
        .faults
        .iter()
        .take(TOLD)
        .map(|fault| format!("{fault}; what it said is lost, all else is kept"))
        .collect();
    if told.faults.len() > TOLD {
        losses.push(format!(
            "{} more records are lost",
            told.faults.len() - TOLD
        ));
    }
    if told.torn > 0 {
        losses.push(format!(
            "the last record is not whole ({} bytes): its change was never answered, and is left \
             out",
            told.torn
        ));
    }
    if told.records == 0 {
        losses.push(
            "no record of the journal can be read: which services there were is not known; their \
             packets are forwarded as before"
                .to_owned(),
        );
    }
    losses
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(ports: &[u16]) -> Vec<u8> {
        let mut text = Vec::new();
        for port in ports {
            let key = format!(
                r#"{{"kind":"address","protocol":"tcp","address":"192.0.2.1","port":{port}}}"#
            );
            let change = format!(
                r#"[{{"change/1":{{"change":"add_service","service":{{"key":{key},"scheduler":"rr"}}}}}}]"#
            );
            text.extend(journal::with_checksum(change.as_bytes()));
        }
        text
    }

    fn services(recalled: &Recalled) -> usize {
        let saved = recalled.saved.as_ref();
        let changes = saved.map_or(0, |saved| saved.memory.changes.len());
        // The first change sets the timeouts.
        changes.saturating_sub(1)
    }

    #[test]
    fn a_damaged_or_missing_file_loses_nothing_while_its_copy_is_whole() {
        let whole = text(&[80, 81, 82]);
        let mut flipped = whole.clone();
        flipped[40] ^= 1;
        for file in [
            None,
            Some(&b""[..]),
            Some(b"garbage\n"),
            Some(&flipped),
            Some(&whole[..whole.len() - 5]),
            Some(&text(&[80])),
        ] {
            let recalled = choose(file, Some(&whole), true);
            assert_eq!((services(&recalled), recalled.is_lossy), (3, false));
        }
    }

    #[test]
    fn a_whole_file_is_believed_before_a_copy_of_another_table() {
        for copy in [text(&[90, 91, 92, 93]), b"garbage".to_vec()] {
            let recalled = choose(Some(&text(&[80])), Some(&copy), true);
            assert_eq!((services(&recalled), recalled.losses.len()), (1, 0));
        }
    }

    #[test]
    fn one_flipped_bit_costs_one_record_and_is_named() {
        let mut file = text(&[80, 81, 82]);
        let second = text(&[80]).len();
        file[second + 40] ^= 1;
        let recalled = choose(Some(&file), None, true);
        assert_eq!((services(&recalled), recalled.is_lossy), (2, true));
        let named = format!("record 2 at byte {second}: its checksum");
        assert!(
            recalled.losses[0].starts_with(&named),
            "{:?}",
            recalled.losses
        );
    }

    #[test]
    fn a_first_start_has_lost_nothing_and_one_with_pins_has() {
        let first = choose(None, None, false);
        assert!(first.saved.is_none() && !first.is_lossy && first.losses.is_empty());
        let orphaned = choose(None, None, true);
        assert!(orphaned.saved.is_none() && orphaned.is_lossy);
    }
}
