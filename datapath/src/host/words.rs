//! Words in plain memory, safe to use from many threads.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::table::flows::{Layout, Words};

/// Words in plain memory.
#[derive(Clone, Copy, Debug)]
pub struct HostWords<'a>(pub &'a [AtomicU64]);

impl Words for HostWords<'_> {
    fn skip(self, count: usize) -> Self {
        Self(&self.0[count..])
    }

    fn pick<L: Layout>(self, index: usize) -> Self {
        self.skip(index * L::STRIDE)
    }

    fn load(self, at: usize) -> u64 {
        self.0[at].load(Ordering::SeqCst)
    }

    fn store(self, at: usize, value: u64) {
        self.0[at].store(value, Ordering::SeqCst);
    }

    fn swap(self, at: usize, from: u64, to: u64) -> bool {
        let word = &self.0[at];
        word.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }

    fn add(self, at: usize, value: u64) -> u64 {
        self.0[at].fetch_add(value, Ordering::SeqCst)
    }
}

/// The words from this place on, if there are any.
pub(super) fn word_at(words: &[AtomicU64], at: u32) -> Option<HostWords<'_>> {
    words
        .get(at as usize..)
        .filter(|words| !words.is_empty())
        .map(HostWords)
}
