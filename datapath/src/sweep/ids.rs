//! A set of ids of the packet path: one bit each, in pages that are allocated when needed.

use std::boxed::Box;
use std::vec::Vec;

const WORDS: usize = 64;
const PAGE: u32 = WORDS as u32 * 64;

#[derive(Debug, Default)]
pub struct Ids {
    pages: Vec<Option<Box<[u64; WORDS]>>>,
}

impl Ids {
    pub fn insert(&mut self, id: u32) {
        let page = (id / PAGE) as usize;
        if self.pages.len() <= page {
            self.pages.resize_with(page + 1, || None);
        }
        let Some(page) = self.pages.get_mut(page) else {
            return;
        };
        let words = page.get_or_insert_with(|| Box::new([0; WORDS]));
        if let Some(word) = words.get_mut((id % PAGE / 64) as usize) {
            *word |= 1 << (id % 64);
        }
    }

    /// The ids in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        let pages = (0u32..).zip(&self.pages);
        let pages = pages.filter_map(|(number, page)| Some((number, page.as_ref()?)));
        pages.flat_map(|(number, words)| {
            let first = number * PAGE;
            let words = (0u32..).zip(words.iter());
            words.flat_map(move |(at, word)| {
                let bits = (0..64).filter(move |bit| word >> bit & 1 != 0);
                bits.map(move |bit| first + at * 64 + bit)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_come_back_in_order_and_once() {
        let mut ids = Ids::default();
        for id in [0xff_ffff, 4_096, 63, 64, 0, 4_095, 64] {
            ids.insert(id);
        }
        let all: Vec<u32> = ids.iter().collect();
        assert_eq!(all, [0, 63, 64, 4_095, 4_096, 0xff_ffff]);
    }
}
