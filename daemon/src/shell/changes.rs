//! Changes, alone and in batches. A whole batch is rehearsed, written down and then performed.

use std::time::Instant;

use shunt_control::director::{Director, Running, Step, records};
use shunt_control::programs::Ready;
use shunt_control::retired;
use shunt_model::api::{Done, Reason, Refusal};
use shunt_model::batch::{Answer, Batch, Mode, Refused};
use shunt_model::change::Change;
use shunt_model::event::Fact;
use shunt_model::program::Program;
use shunt_model::{ServerAddress, ServiceKey};
use tokio::sync::oneshot;
use tracing::{error, info, warn};

use super::Shell;
use crate::journal::Record;
use crate::kernel::rcu;

/// What a client asks for, and where it waits for the answer.
pub enum Asked {
    Change(Box<Change>, oneshot::Sender<Result<Done, Refusal>>),
    Batch(Box<Batch>, oneshot::Sender<Result<Answer, Refusal>>),
}

impl Shell {
    /// A program was loaded behind, or the kernel refused it.
    pub fn loaded(&mut self, (program, result): (Program, Result<(), String>)) {
        match &result {
            Ok(()) => info!(%program, "program loaded"),
            Err(why) => warn!(%program, why, "program refused by the kernel"),
        }
        let is_there = result.is_ok();
        self.loading.loaded(program, result);
        if program == Program::Callers && is_there && self.settled {
            self.give_servers_to_callers();
        }
        self.make_changes();
    }

    /// Makes the changes whose turn has come.
    pub(super) fn make_changes(&mut self) {
        while let Some(ready) = self.loading.poll() {
            let (asked, refusal) = match ready {
                Ready::Make(asked) => (asked, None),
                Ready::Refuse(asked, refusal) => (asked, Some(refusal)),
            };
            match asked {
                Asked::Change(change, answer) => {
                    let result = refusal.map_or_else(|| self.change(&change), Err);
                    let awaited = self.awaited(result.is_ok(), std::slice::from_ref(&change));
                    self.answer_after(awaited, Box::new(move || drop(answer.send(result))));
                }
                Asked::Batch(batch, answer) => {
                    let result = refusal.map_or_else(|| self.batch(&batch), Err);
                    let awaited = self.awaited(result.is_ok(), &batch.changes);
                    self.answer_after(awaited, Box::new(move || drop(answer.send(result))));
                }
            }
        }
    }

    /// Sends an answer as soon as the next hops of these servers are known, or when it has waited
    /// for long enough.
    fn answer_after(&mut self, servers: Vec<(ServiceKey, ServerAddress)>, answer: super::Answer) {
        let at_once = self.answers.hold(servers, answer, Instant::now());
        if let Some(answer) = at_once {
            answer();
        }
    }

    fn change(&mut self, change: &Change) -> Result<Done, Refusal> {
        self.keep_room(std::slice::from_ref(change))?;
        let make = |director: &mut Director, running: &dyn Running| {
            director.change(change, running, Instant::now())
        };
        let mut result = self.follow(change, make);
        let is_full = matches!(&result, Err(refusal) if refusal.reason == Reason::NoRoom);
        if is_full && rcu::wait() {
            self.settle_pools();
            result = self.follow(change, make);
        }
        self.carry_out();
        if self.retired.has_news() {
            self.remember(Step::default());
        }
        let unkept = self.keeper.unkept(std::slice::from_ref(change));
        if let (Ok(_), Some(refusal)) = (&result, unkept) {
            result = Err(refusal);
        }
        let told = change.clone();
        self.events.add(match &result {
            Ok(_) => Fact::TableChanged { change: told },
            Err(refusal) => Fact::ChangeRefused {
                change: told,
                reason: refusal.reason,
                why: refusal.text.clone(),
            },
        });
        result
    }

    /// Makes the changes of a batch. An error means that none was made, or that they cannot be
    /// kept.
    fn batch(&mut self, batch: &Batch) -> Result<Answer, Refusal> {
        let Batch { mode, changes } = batch;
        let refused = match mode {
            Mode::Whole => self.whole(changes)?,
            Mode::Each => self.each(changes),
        };
        Ok(Answer::new(*mode, changes.len(), refused))
    }

    fn each(&mut self, changes: &[Change]) -> Vec<Refused> {
        let changes = changes.iter().enumerate();
        let refused = changes.filter_map(|(index, change)| {
            let refusal = self.change(change).err()?;
            Some(Refused { index, refusal })
        });
        refused.collect()
    }

    fn whole(&mut self, changes: &[Change]) -> Result<Vec<Refused>, Refusal> {
        let director = &mut self.director;
        let refused = director.rehearse(changes, &self.tables, Instant::now());
        if let Some(first) = refused.first() {
            let why = &first.refusal.text;
            info!(changes = changes.len(), why, "batch refused");
            return Ok(refused);
        }
        self.write_down(changes)?;
        for change in changes {
            self.perform(change);
        }
        // A journal that was begun anew meanwhile has a part of the batch.
        if self.begun_anew {
            self.remember_all();
        }
        match self.keeper.unkept(changes) {
            Some(refusal) => Err(refusal),
            None => Ok(refused),
        }
    }

    /// Writes all changes of a batch into the journal, in one line.
    fn write_down(&mut self, changes: &[Change]) -> Result<(), Refusal> {
        self.keep_room(changes)?;
        let records = records(changes).into_iter().map(Record::Director);
        let records: Vec<Record> = records.collect();
        if !records.is_empty() && !self.keeper.add(&records) {
            self.remember_all();
            if !self.keeper.add(&records) {
                let orphans = self.director.count_orphans();
                return Err(self.keeper.refusal(changes, orphans).unwrap_or(Refusal {
                    reason: Reason::NotKept,
                    text: "the batch cannot be written down; try again".to_owned(),
                }));
            }
        }
        self.begun_anew = false;
        Ok(())
    }

    fn perform(&mut self, change: &Change) {
        let make = |director: &mut Director, running: &dyn Running| {
            director.perform(change, running, Instant::now())
        };
        match self.follow(change, make) {
            Ok(()) => self.events.add(Fact::TableChanged {
                change: change.clone(),
            }),
            Err(refusal) => error!(%change, why = refusal.text, "batch not whole: a bug"),
        }
        self.carry_out();
        if self.director.is_crowded() && rcu::wait() {
            self.settle_pools();
            self.carry_out();
        }
        if self.retired.has_news() {
            self.remember(Step::default());
        }
    }

    /// Lets the director make a change, and keeps what is counted in step with it.
    fn follow<T>(
        &mut self,
        change: &Change,
        make: impl Fn(&mut Director, &dyn Running) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let turn = retired::turn(change, self.director.table());
        let turn = turn.map(|turn| (turn, self.counted(&turn.key, turn.at)));
        let result = make(&mut self.director, &self.tables);
        if result.is_ok() {
            self.retire(change, turn);
            self.samples.follow(change);
        }
        result
    }

    /// Refuses changes that the journal would have no room for.
    fn keep_room(&mut self, changes: &[Change]) -> Result<(), Refusal> {
        let orphans = self.director.count_orphans();
        if self.keeper.has_room(changes, orphans) {
            return Ok(());
        }
        self.remember_all();
        self.keeper.refusal(changes, orphans).map_or(Ok(()), Err)
    }

    /// No packet uses the pools that were replaced before this grace period: their room is free.
    fn settle_pools(&mut self) {
        self.director.pools_settled();
        self.director.pools_settled();
    }

    /// The servers of changes that were made, to which a next hop may be known in a moment.
    fn awaited(&self, is_made: bool, changes: &[Change]) -> Vec<(ServiceKey, ServerAddress)> {
        let changes = changes.iter().filter(|_| is_made);
        let servers = changes.filter_map(Change::put_server);
        servers
            .filter(|(key, at)| self.director.is_awaited(key, *at))
            .collect()
    }
}
