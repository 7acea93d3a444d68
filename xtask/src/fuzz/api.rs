//! Sends random requests to the API's routes, with a director behind them.

use std::collections::BTreeSet;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use shunt_control::director::{Clock, Director, Output, Running, Sizes};
use shunt_control::table::{Limits, Table};
use shunt_daemon::api::{Ask, Inside};
use shunt_daemon::journal::{self, Saved};
use shunt_datapath::entry::{self, PoolWord};
use shunt_model::batch::{Answer, Batch, Mode, Refused};
use shunt_model::change::Change;
use tokio::sync::mpsc;

use super::words;
use crate::conform::random::Random;

/// The sizes are small, so that the tables are soon full.
const SIZES: Sizes = Sizes {
    services: 24,
    servers: 48,
    pool_words: 1 << 15,
};
const CLOCK: Clock = Clock {
    tick_ns: 1_000_000_000,
};
/// The number of requests between two checks of the saved state.
const LOOK: u64 = 250;

/// A packet path that forwards nothing.
pub struct Idle;

impl Running for Idle {
    fn counters(&self, _: u32) -> shunt_model::Counters {
        shunt_model::Counters::default()
    }

    fn pool_word(&self, _: u32) -> u64 {
        0
    }

    fn is_overloaded(&self, _: u32) -> bool {
        false
    }

    fn counts(&self, _: u32) -> u64 {
        0
    }

    fn server(&self, _: u32) -> Option<entry::Server> {
        None
    }
}

pub fn table() -> Table {
    Table::new(Limits {
        services: 20,
        servers: 40,
    })
}

pub fn director() -> Director {
    Director::new(table(), SIZES, CLOCK, Instant::now())
}

pub fn resumed(saved: Saved) -> Result<Director> {
    let pool = |_| PoolWord(0);
    let now = Instant::now();
    let resumed = Director::resume(saved.memory, table(), SIZES, CLOCK, &Idle, pool, now);
    resumed.map_err(|refusal| anyhow::anyhow!("not resumed: {refusal}"))
}

/// Carries out the director's outputs, as far as they need no packet path.
pub fn settle(director: &mut Director) {
    while let Some(output) = director.poll() {
        if let Output::Pool(service) = output {
            director.renew(&service, &Idle);
        }
    }
}

/// Sends so many requests. Returns the number of changes that were carried out.
pub fn round(seed: u64, requests: u64) -> Result<u64> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().context("no runtime")?;
    runtime.block_on(async {
        let (asks, heard) = mpsc::channel(4);
        let api = Inside::new(asks);
        let mut desk = Desk {
            heard,
            director: director(),
            random: Random::new(!seed),
            taken: 0,
        };
        let mut random = Random::new(seed);
        for number in 1..=requests {
            let request = words::request(&mut random);
            let said = format!("{request:?}");
            let status = {
                let answer = api.ask(request.method, &request.target, request.body);
                tokio::select! {
                    biased;
                    status = answer => status,
                    () = desk.answer_all() => None,
                }
            };
            let status = status.with_context(|| format!("no answer to {said}"))?;
            ensure!(status < 500 || status == 503, "status {status} to {said}");
            if number % LOOK == 0 || number == requests {
                desk.look()?;
            }
        }
        Ok(desk.taken)
    })
}

/// Answers the API in place of the daemon's task.
struct Desk {
    heard: mpsc::Receiver<Ask>,
    director: Director,
    random: Random,
    taken: u64,
}

impl Desk {
    async fn answer_all(&mut self) {
        while let Some(ask) = self.heard.recv().await {
            self.answer(ask);
        }
    }

    fn answer(&mut self, ask: Ask) {
        let table = self.director.table();
        match ask {
            Ask::Change(change, answer) => {
                let done = self.director.change(&change, &Idle, Instant::now());
                self.taken += u64::from(done.is_ok());
                settle(&mut self.director);
                if self.random.once_in(16) {
                    self.director.unused(&BTreeSet::new(), &BTreeSet::new());
                    self.director.pools_settled();
                    settle(&mut self.director);
                }
                let _ = answer.send(done);
            }
            Ask::Batch(batch, answer) => {
                let Batch { mode, changes } = *batch;
                let refused = match mode {
                    Mode::Whole => self.whole(&changes),
                    Mode::Each => self.each(&changes),
                };
                let _ = answer.send(Ok(Answer::new(mode, changes.len(), refused)));
            }
            Ask::Services(_, answer) => drop(answer.send(Vec::new())),
            Ask::Connections(..) | Ask::Inputs(..) => {}
            Ask::Count(answer, _) => drop(answer.send(Default::default())),
            Ask::Timeouts(answer) => drop(answer.send(table.timeouts())),
            Ask::Marks(answer) => drop(answer.send(table.marks().copied().collect())),
            Ask::Locals(answer) => drop(answer.send(table.locals().collect())),
            Ask::Settings(answer) => drop(answer.send(table.settings())),
            Ask::Statistics(answer) => drop(answer.send(Default::default())),
            // The API must answer a request even if the daemon's task drops the question.
            Ask::Status(answer) => drop(answer),
            Ask::Events(answer) => drop(answer),
        }
    }

    /// A change that was rehearsed is never refused, which this panics about.
    fn whole(&mut self, changes: &[Change]) -> Vec<Refused> {
        let before = self.director.table().wanted();
        let refused = self.director.rehearse(changes, &Idle, Instant::now());
        assert!(
            self.director.table().wanted() == before,
            "not rehearsed only"
        );
        if !refused.is_empty() {
            return refused;
        }
        for change in changes {
            let done = self.director.perform(change, &Idle, Instant::now());
            done.unwrap_or_else(|refusal| panic!("rehearsed, but refused: {change}: {refusal}"));
            self.taken += 1;
            settle(&mut self.director);
        }
        Vec::new()
    }

    fn each(&mut self, changes: &[Change]) -> Vec<Refused> {
        let changes = changes.iter().enumerate();
        let refused = changes.filter_map(|(index, change)| {
            let done = self.director.change(change, &Idle, Instant::now());
            self.taken += u64::from(done.is_ok());
            settle(&mut self.director);
            let refusal = done.err()?;
            Some(Refused { index, refusal })
        });
        refused.collect()
    }

    /// Checks that the saved state can be read, is unchanged, and can be resumed.
    fn look(&self) -> Result<()> {
        let saved = Saved {
            memory: self.director.snapshot(),
            ..Saved::default()
        };
        let told = journal::read(&saved.text()?);
        ensure!(told.faults.is_empty(), "{:?}", told.faults);
        ensure!(told.saved.memory == saved.memory, "remembered otherwise");
        let resumed = resumed(told.saved)?;
        ensure!(
            resumed.snapshot().changes == saved.memory.changes,
            "resumed otherwise"
        );
        Ok(())
    }
}
