//! Reads damaged journals, resumes from them, and makes further changes.

use std::time::Instant;

use anyhow::{Result, ensure};
use shunt_control::director::{Director, Output};
use shunt_daemon::journal::{self, Record, Saved};
use shunt_model::change::Change;

use super::{api, words};
use crate::conform::random::Random;

/// The number of changes in a journal.
const CHANGES: usize = 120;

/// Reads so many damaged journals. Returns the number of records that were read.
pub(super) fn round(seed: u64, runs: u64) -> Result<u64> {
    let mut random = Random::new(seed);
    let whole = whole(&mut random)?;
    let told = journal::read(&whole);
    ensure!(
        told.faults.is_empty() && told.torn == 0,
        "{:?}",
        told.faults
    );
    let mut records = 0;
    for run in 0..runs {
        let mut text = whole.clone();
        for _ in 0..=random.below(4) {
            words::damage(&mut random, &mut text);
        }
        if random.once_in(4) {
            reseal(&mut random, &mut text);
        }
        let told = journal::read(&text);
        records += told.records as u64;
        // Resuming costs more than reading.
        if run % 8 == 0 {
            let mut director = api::resumed(told.saved)?;
            api::settle(&mut director);
            for _ in 0..4 {
                change(&mut random, &mut director);
                api::settle(&mut director);
            }
        }
    }
    Ok(records)
}

fn change(random: &mut Random, director: &mut Director) {
    if let Ok(change) = serde_json::from_str::<Change>(&words::change(random)) {
        let _ = director.change(&change, &api::Idle, Instant::now());
    }
}

/// A journal as a daemon writes it: a whole state, then steps.
fn whole(random: &mut Random) -> Result<Vec<u8>> {
    let mut director = api::director();
    for _ in 0..CHANGES {
        change(random, &mut director);
        api::settle(&mut director);
    }
    let saved = Saved {
        memory: director.snapshot(),
        ..Saved::default()
    };
    let mut text = saved.text()?;
    for _ in 0..CHANGES {
        change(random, &mut director);
        while let Some(output) = director.poll() {
            match output {
                Output::Remember(step) => {
                    let records = step.records().into_iter().map(Record::Director);
                    let records: Vec<Record> = records.collect();
                    text.extend(journal::line(&records)?);
                }
                Output::Pool(service) => director.renew(&service, &api::Idle),
                Output::Write(_) | Output::Probe { .. } | Output::Devices | Output::Event(_) => {}
            }
        }
    }
    Ok(text)
}

/// Damages the text of a line and gives it a fitting checksum, as another version could write it.
fn reseal(random: &mut Random, text: &mut Vec<u8>) {
    let lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
    let chosen = random.below(lines.len());
    let mut sealed = Vec::with_capacity(text.len());
    for (at, line) in lines.iter().enumerate() {
        let body = line.splitn(3, |byte| *byte == b' ').nth(2);
        match body.filter(|_| at == chosen) {
            Some(body) => {
                let mut body = body.to_vec();
                words::damage(random, &mut body);
                sealed.extend(journal::with_checksum(&body));
            }
            None if line.is_empty() => {}
            None => {
                sealed.extend_from_slice(line);
                sealed.push(b'\n');
            }
        }
    }
    *text = sealed;
}
