//! Programs of the packet path that only some tables need. They are loaded while the others forward
//! already.
//!
//! A change that needs such a program waits until the program is loaded, and so do the changes
//! behind it: they are made in the order in which they came. So no packet meets a service whose
//! program is missing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use shunt_model::api::{Reason, Refusal};
use shunt_model::change::{Change, server, service, setting};
use shunt_model::program::Program;
use shunt_model::warning::Warning;
use shunt_model::{Server, Service, ServiceKey, Setting};

use crate::director::translates;

/// The programs without which packets would see a wrong outcome once these changes are made.
#[must_use]
pub fn needed<'a>(changes: impl IntoIterator<Item = &'a Change>) -> BTreeSet<Program> {
    changes.into_iter().flat_map(needed_by).flatten().collect()
}

fn needed_by(change: &Change) -> [Option<Program>; 2] {
    let when = |is_needed: bool, program| is_needed.then_some(program);
    match change {
        Change::Service(service::Change::Add { service } | service::Change::Edit { service }) => [
            when(has_engine(service), Program::Call),
            when(
                service.settings.schedule_icmp == Some(true),
                Program::Quoted,
            ),
        ],
        Change::Server(
            server::Change::Add { key, server } | server::Change::Edit { key, server },
        ) => [
            Some(Program::Callers),
            when(is_translated(key, server), Program::Translate),
        ],
        Change::Setting(setting::Change::Set { setting }) => [
            when(*setting == Setting::ScheduleIcmp(true), Program::Quoted),
            None,
        ],
        Change::Service(
            service::Change::Delete { .. } | service::Change::Flush | service::Change::Zero { .. },
        )
        | Change::Server(server::Change::Delete { .. })
        | Change::Setting(setting::Change::Timeouts { .. })
        | Change::Mark(_)
        | Change::Local(_) => [None, None],
    }
}

fn has_engine(service: &Service) -> bool {
    let persistence = service.persistence.as_ref();
    persistence.is_some_and(|persistence| persistence.engine.is_some())
}

fn is_translated(key: &ServiceKey, server: &Server) -> bool {
    translates(key, server.at, server.method)
}

/// Why a program is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Missing {
    Loading,
    /// The kernel refused it.
    Refused(String),
}

/// What was asked for, when its turn has come.
#[derive(Debug, PartialEq, Eq)]
pub enum Ready<Asked> {
    /// All programs that it needs are there.
    Make(Asked),
    /// It needs what the kernel refused.
    Refuse(Asked, Refusal),
}

/// The programs that are missing, and the changes that wait for them. Each client of the API waits
/// with at most one request, so the clients that the API admits are the limit of the queue.
#[derive(Clone, Debug)]
pub struct Loading<Asked> {
    missing: BTreeMap<Program, Missing>,
    waiting: VecDeque<(BTreeSet<Program>, Asked)>,
}

impl<Asked> Loading<Asked> {
    /// These programs are not loaded yet.
    #[must_use]
    pub fn new(missing: impl IntoIterator<Item = Program>) -> Self {
        let missing = missing.into_iter();
        Self {
            missing: missing.map(|program| (program, Missing::Loading)).collect(),
            waiting: VecDeque::new(),
        }
    }

    /// Takes in changes that need these programs.
    pub fn ask(&mut self, needed: BTreeSet<Program>, asked: Asked) {
        self.waiting.push_back((needed, asked));
    }

    /// Takes in that a program is loaded, or why it never will be.
    pub fn loaded(&mut self, program: Program, result: Result<(), String>) {
        match result {
            Ok(()) => drop(self.missing.remove(&program)),
            Err(why) => drop(self.missing.insert(program, Missing::Refused(why))),
        }
    }

    /// The next changes that need nothing that is still being loaded.
    pub fn poll(&mut self) -> Option<Ready<Asked>> {
        let (needed, _) = self.waiting.front()?;
        let mut refused = None;
        for program in needed {
            match (program, self.missing.get(program)) {
                (_, None) | (Program::Callers, Some(Missing::Refused(_))) => {}
                (_, Some(Missing::Loading)) => return None,
                (_, Some(Missing::Refused(why))) => refused = Some(refusal(*program, why)),
            }
        }
        let (_, asked) = self.waiting.pop_front()?;
        Some(match refused {
            Some(refusal) => Ready::Refuse(asked, refusal),
            None => Ready::Make(asked),
        })
    }

    /// Whether a program is neither loaded nor refused.
    #[must_use]
    pub fn is_loading(&self, program: Program) -> bool {
        self.missing.get(&program) == Some(&Missing::Loading)
    }

    /// The programs that are being loaded.
    pub fn loading(&self) -> impl Iterator<Item = Program> {
        let missing = self.missing.iter();
        let loading = missing.filter(|(_, why)| **why == Missing::Loading);
        loading.map(|(program, _)| *program)
    }

    /// What an operator should look at.
    pub fn warnings(&self) -> impl Iterator<Item = Warning> {
        let missing = self.missing.iter();
        missing.filter_map(|(program, missing)| match missing {
            Missing::Loading => None,
            Missing::Refused(why) => Some(Warning::ProgramRefused {
                program: *program,
                why: why.clone(),
            }),
        })
    }
}

fn refusal(program: Program, why: &str) -> Refusal {
    Refusal {
        reason: Reason::NotSupported,
        text: format!("this kernel refused the program for {program}: {why}"),
    }
}

#[cfg(test)]
mod tests;
