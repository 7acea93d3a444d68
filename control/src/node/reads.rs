//! What the node reads from the live packet path while it handles an input: noted, and answered
//! again from the notes.

use std::cell::{Cell, RefCell};

use serde::{Deserialize, Serialize};
use shunt_datapath::entry;
use shunt_model::Counters;

use crate::director::Running;

/// A question to the live packet path and its answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Read {
    /// A word of a pool, such as the cursor of rr.
    PoolWord {
        /// The index of the word.
        at: u32,
        /// The word.
        word: u64,
    },
    /// Whether the packet path has marked a server as overloaded.
    IsOverloaded {
        /// The server's id.
        server: u32,
        /// The answer.
        is: bool,
    },
    /// The live connections of a server.
    Counts {
        /// The server's id.
        server: u32,
        /// Active and inactive connections in one word ([`entry::counts`]).
        word: u64,
    },
    /// The totals of a server.
    Counters {
        /// The server's id.
        server: u32,
        /// The totals.
        counters: Box<Counters>,
    },
}

/// The live packet path, with questions and answers noted.
pub(super) struct Noting<'a> {
    running: &'a dyn Running,
    reads: RefCell<Vec<Read>>,
    most: usize,
    is_full: Cell<bool>,
}

impl<'a> Noting<'a> {
    /// Notes at most so many questions.
    pub(super) fn new(running: &'a dyn Running, most: usize) -> Self {
        Self {
            running,
            reads: RefCell::default(),
            most,
            is_full: Cell::new(false),
        }
    }

    /// All questions; `None` if there were too many.
    pub(super) fn reads(self) -> Option<Vec<Read>> {
        (!self.is_full.get()).then(|| self.reads.into_inner())
    }

    fn note(&self, read: Read) {
        let mut reads = self.reads.borrow_mut();
        match reads.len() < self.most {
            true => reads.push(read),
            false => self.is_full.set(true),
        }
    }
}

impl Running for Noting<'_> {
    fn pool_word(&self, at: u32) -> u64 {
        let word = self.running.pool_word(at);
        self.note(Read::PoolWord { at, word });
        word
    }

    fn is_overloaded(&self, server: u32) -> bool {
        let is = self.running.is_overloaded(server);
        self.note(Read::IsOverloaded { server, is });
        is
    }

    fn counts(&self, server: u32) -> u64 {
        let word = self.running.counts(server);
        self.note(Read::Counts { server, word });
        word
    }

    fn counters(&self, server: u32) -> Counters {
        let counters = self.running.counters(server);
        self.note(Read::Counters {
            server,
            counters: Box::new(counters),
        });
        counters
    }

    // Only a start reads entries, before the first input.
    fn server(&self, id: u32) -> Option<entry::Server> {
        self.running.server(id)
    }
}

/// The packet path as it was noted: it answers the same questions in the same order.
pub(super) struct Noted<'a> {
    reads: &'a [Read],
    next: Cell<usize>,
    is_other: Cell<bool>,
}

impl<'a> Noted<'a> {
    pub(super) fn new(reads: &'a [Read]) -> Self {
        Self {
            reads,
            next: Cell::new(0),
            is_other: Cell::new(false),
        }
    }

    /// Whether exactly the noted questions were asked.
    pub(super) fn is_faithful(&self) -> bool {
        !self.is_other.get() && self.next.get() == self.reads.len()
    }

    fn answer<T: Default>(&self, of: impl Fn(&Read) -> Option<T>) -> T {
        let answer = self.reads.get(self.next.get()).and_then(of);
        self.next.set(self.next.get() + 1);
        if answer.is_none() {
            self.is_other.set(true);
        }
        answer.unwrap_or_default()
    }
}

impl Running for Noted<'_> {
    fn pool_word(&self, asked: u32) -> u64 {
        self.answer(|read| match read {
            Read::PoolWord { at, word } => (*at == asked).then_some(*word),
            Read::IsOverloaded { .. } | Read::Counts { .. } | Read::Counters { .. } => None,
        })
    }

    fn is_overloaded(&self, asked: u32) -> bool {
        self.answer(|read| match read {
            Read::IsOverloaded { server, is } => (*server == asked).then_some(*is),
            Read::PoolWord { .. } | Read::Counts { .. } | Read::Counters { .. } => None,
        })
    }

    fn counts(&self, asked: u32) -> u64 {
        self.answer(|read| match read {
            Read::Counts { server, word } => (*server == asked).then_some(*word),
            Read::PoolWord { .. } | Read::IsOverloaded { .. } | Read::Counters { .. } => None,
        })
    }

    fn counters(&self, asked: u32) -> Counters {
        self.answer(|read| match read {
            Read::Counters { server, counters } => (*server == asked).then_some(**counters),
            Read::PoolWord { .. } | Read::IsOverloaded { .. } | Read::Counts { .. } => None,
        })
    }

    fn server(&self, _: u32) -> Option<entry::Server> {
        self.is_other.set(true);
        None
    }
}
