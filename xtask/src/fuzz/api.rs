//! Sends random requests to the API's routes, with a node behind them.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use shunt_control::director::{self, Clock, Director, Running, Sizes};
use shunt_control::node::{Input, Made, Node, Output, Reply, Start};
use shunt_control::table::{Limits, Table};
use shunt_daemon::api::{Ask, Inside};
use shunt_daemon::journal::{self, Saved};
use shunt_datapath::entry::{self, PoolWord};
use shunt_model::api::{Done, Refusal};
use shunt_model::batch::{Answer, Mode};
use shunt_model::event::Fact;
use tokio::sync::{mpsc, oneshot};

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
pub(super) struct Idle;

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

pub(super) fn table() -> Table {
    Table::new(Limits {
        services: 20,
        servers: 40,
    })
}

pub(super) fn director() -> Director {
    Director::new(table(), SIZES, CLOCK, Instant::now())
}

pub(super) fn resumed(saved: Saved) -> Result<Director> {
    let pool = |_| PoolWord(0);
    let now = Instant::now();
    // A damaged key is another service. The daemon's limits, with which journals are read, have
    // room for it.
    let table = Table::new(Limits::default());
    let resumed = Director::resume(saved.memory, table, SIZES, CLOCK, &Idle, pool, now);
    resumed.map_err(|refusal| anyhow::anyhow!("not resumed: {refusal}"))
}

/// Carries out the director's outputs, as far as they need no packet path.
pub(super) fn settle(director: &mut Director) {
    while let Some(output) = director.poll() {
        if let director::Output::Pool(service) = output {
            director.renew(&service, &Idle);
        }
    }
}

/// Sends so many requests. Returns the number of changes that were carried out.
pub(super) fn round(seed: u64, requests: u64) -> Result<u64> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().context("no runtime")?;
    runtime.block_on(async {
        let (asks, heard) = mpsc::channel(4);
        let api = Inside::new(asks);
        let mut desk = Desk::new(heard, Random::new(!seed));
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
    node: Node,
    random: Random,
    /// The number of changes that were made.
    taken: u64,
    /// Who waits for an answer, by ticket.
    changes: BTreeMap<u64, oneshot::Sender<Result<Done, Refusal>>>,
    batches: BTreeMap<u64, oneshot::Sender<Result<Answer, Refusal>>>,
    ticket: u64,
    /// A whole batch is written down and not confirmed.
    in_batch: bool,
}

impl Desk {
    fn new(heard: mpsc::Receiver<Ask>, random: Random) -> Self {
        Self {
            heard,
            node: Node::new(director(), Start::default(), Instant::now()),
            random,
            taken: 0,
            changes: BTreeMap::new(),
            batches: BTreeMap::new(),
            ticket: 0,
            in_batch: false,
        }
    }

    async fn answer_all(&mut self) {
        while let Some(ask) = self.heard.recv().await {
            self.answer(ask);
        }
    }

    fn answer(&mut self, ask: Ask) {
        let ticket = self.ticket;
        self.ticket += 1;
        let table = self.node.forward().table();
        match ask {
            Ask::Change(change, answer) => {
                self.changes.insert(ticket, answer);
                self.take(Input::Change { ticket, change });
                if self.random.once_in(16) {
                    self.take(Input::Swept(Box::default()));
                }
            }
            Ask::Batch(batch, answer) => {
                self.batches.insert(ticket, answer);
                let (before, batch) = (table.wanted(), *batch);
                let mode = batch.mode;
                let taken = self.taken;
                self.take(Input::Batch { ticket, batch });
                if mode == Mode::Whole && self.taken == taken {
                    let after = self.node.forward().table().wanted();
                    assert!(after == before, "not rehearsed only");
                }
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

    /// Hands an input to the node, and carries out its outputs as far as they need no packet path.
    fn take(&mut self, input: Input) {
        self.hand(input);
        while let Some(output) = self.node.poll() {
            match output {
                Output::Compile(service) => self.hand(Input::Compile(service)),
                Output::Reserve { .. } => self.hand(Input::Reserved(Ok(()))),
                Output::WriteDown { .. } => {
                    self.in_batch = true;
                    self.hand(Input::Reserved(Ok(())));
                }
                Output::LetPacketsPass => self.hand(Input::PacketsPassed(true)),
                Output::Confirm(made) => {
                    self.in_batch &= !matches!(made, Made::Whole(_));
                    self.hand(Input::Confirmed(Ok(())));
                }
                Output::Event(fact) => self.follow(&fact),
                Output::Answer { ticket, reply } => self.reply(ticket, reply),
                Output::Write(_)
                | Output::Probe { .. }
                | Output::Devices
                | Output::Remember { .. }
                | Output::Sweep(_) => {}
            }
        }
    }

    fn hand(&mut self, input: Input) {
        self.node.handle(input, Instant::now(), &Idle);
    }

    /// A change that was rehearsed is never refused, which this panics about.
    fn follow(&mut self, fact: &Fact) {
        if let Fact::TableChanged { .. } = fact {
            self.taken += 1;
        }
        if let (Fact::ChangeRefused { change, why, .. }, true) = (fact, self.in_batch) {
            panic!("rehearsed, but refused: {change}: {why}");
        }
    }

    fn reply(&mut self, ticket: u64, reply: Reply) {
        match reply {
            Reply::Change(result) => {
                let answer = self.changes.remove(&ticket);
                drop(answer.map(|answer| answer.send(result)));
            }
            Reply::Batch(result) => {
                let answer = self.batches.remove(&ticket);
                drop(answer.map(|answer| answer.send(result)));
            }
        }
    }

    /// Checks that the saved state can be read, is unchanged, and can be resumed.
    fn look(&self) -> Result<()> {
        let saved = Saved {
            memory: self.node.forward().snapshot(),
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
