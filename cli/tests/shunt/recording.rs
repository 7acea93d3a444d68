//! What a kernel's IPVS was recorded to answer, question by question.
//!
//! A line is a question (`>`) or the answer to it (`<`), byte by byte in hexadecimal digits. A
//! question that was not recorded fails the test: what we ask is compared byte for byte too.

use std::collections::HashMap;

use shunt_cli::ipvs::{Failure, Ipvs, read};

/// A kernel that has no IPVS: `ENOENT` to the question for the family.
pub(crate) const WITHOUT_IPVS: &str = include_str!("recordings/without-ipvs.txt");
/// The table of `recordings/table.sh`, asked of Linux 6.1.
pub(crate) const TABLE: &str = include_str!("recordings/table.txt");

pub(crate) fn table(recording: &str) -> Result<Ipvs, Failure> {
    let answers = pairs(recording);
    read(&mut |question| {
        let answer = answers.get(question);
        Ok(answer
            .unwrap_or_else(|| panic!("not recorded: {question:02x?}"))
            .clone())
    })
}

/// Questions, and what was answered.
pub(crate) fn pairs(recording: &str) -> HashMap<Vec<u8>, Vec<u8>> {
    let mut pairs = HashMap::new();
    let mut question = Vec::new();
    for line in recording.lines().filter(|line| !line.starts_with('#')) {
        match line.split_at(2) {
            ("> ", digits) => question = bytes(digits),
            ("< ", digits) => {
                let answer: &mut Vec<u8> = pairs.entry(question.clone()).or_default();
                answer.extend(bytes(digits));
            }
            _ => panic!("{line}"),
        }
    }
    pairs
}

fn bytes(digits: &str) -> Vec<u8> {
    let pairs = digits.as_bytes().chunks(2);
    let read = |pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    pairs.map(read).collect()
}
