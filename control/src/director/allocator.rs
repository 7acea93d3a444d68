//! An allocator of ids: it gives away the lowest id that is free.

use std::collections::BTreeSet;

/// Knows which ids are taken, not who has them. It never gives id 0 away.
#[derive(Clone, Debug)]
pub(super) struct Allocator {
    /// Free ids below `end`.
    free: BTreeSet<u32>,
    /// This id and all above are free.
    end: u32,
}

impl Default for Allocator {
    fn default() -> Self {
        Self {
            free: BTreeSet::new(),
            end: 1,
        }
    }
}

impl Allocator {
    /// The lowest free id.
    pub(super) fn lowest(&self) -> u32 {
        self.free.first().copied().unwrap_or(self.end)
    }

    pub(super) fn take(&mut self, number: u32) {
        if number >= self.end {
            self.free.extend(self.end..number);
            self.end = number.saturating_add(1);
        } else {
            self.free.remove(&number);
        }
    }

    pub(super) fn give_back(&mut self, number: u32) {
        if number != 0 && number < self.end {
            self.free.insert(number);
        }
        while self.end > 1 && self.free.remove(&(self.end - 1)) {
            self.end -= 1;
        }
    }

    /// This id and all above are free.
    pub(super) fn end(&self) -> u32 {
        self.end
    }

    /// The number of ids that are taken.
    pub(super) fn len(&self) -> usize {
        self.end as usize - 1 - self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_free_number_is_next_whatever_came_back_first() {
        let mut numbers = Allocator::default();
        for wanted in 1..=5 {
            assert_eq!(numbers.lowest(), wanted);
            numbers.take(wanted);
        }
        for number in [4, 2, 5] {
            numbers.give_back(number);
        }
        assert_eq!((numbers.lowest(), numbers.len()), (2, 2));
        numbers.take(2);
        assert_eq!((numbers.lowest(), numbers.len()), (4, 3));
    }

    #[test]
    fn numbers_may_be_taken_in_any_order() {
        let mut numbers = Allocator::default();
        for number in [7, 3, 1] {
            numbers.take(number);
        }
        assert_eq!((numbers.lowest(), numbers.len()), (2, 3));
        for number in [3, 7, 7, 1, 9, 0] {
            numbers.give_back(number);
        }
        assert_eq!((numbers.lowest(), numbers.len()), (1, 0));
    }
}
