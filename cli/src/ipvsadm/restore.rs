//! `ipvsadm -R` and `ipvsadm-restore`: lines of commands from standard input.

use std::io::{self, BufRead};

use shunt_model::change::Change;

use super::halt::Subject;

/// The most changes that are sent together.
const MOST: usize = 4096;

/// Changes of lines that were read and wait to be sent together.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pub changes: Vec<Change>,
    /// What each change is about, for the words of a refusal.
    pub subjects: Vec<Subject>,
}

impl Queue {
    pub(super) fn add(&mut self, change: Change, subject: Subject) {
        self.changes.push(change);
        self.subjects.push(subject);
    }

    pub(super) fn is_full(&self) -> bool {
        self.changes.len() >= MOST
    }
}

/// What the input has next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The words of a line that has some, without the word `ipvsadm`.
    Line(Vec<String>),
    /// Every line that came was read. The next call waits for more.
    Waiting,
    End,
}

/// The lines of an input.
pub(super) struct Lines<'a> {
    input: &'a mut dyn BufRead,
    /// What was read. The bytes from `at` on are not a line yet.
    text: Vec<u8>,
    at: usize,
    waiting: bool,
}

impl<'a> Lines<'a> {
    pub(super) fn new(input: &'a mut dyn BufRead) -> Self {
        Self {
            input,
            text: Vec::new(),
            at: 0,
            waiting: false,
        }
    }

    pub(super) fn next_line(&mut self) -> io::Result<Next> {
        loop {
            let rest = self.text.get(self.at..).unwrap_or_default();
            let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
                if !std::mem::replace(&mut self.waiting, true) {
                    return Ok(Next::Waiting);
                }
                self.waiting = false;
                if self.read_more()? {
                    continue;
                }
                // The last line may lack its newline.
                let last = words(&self.text.split_off(self.at));
                return Ok(match last.is_empty() {
                    true => Next::End,
                    false => Next::Line(last),
                });
            };
            let words = words(rest.get(..end).unwrap_or_default());
            self.at += end + 1;
            if !words.is_empty() {
                return Ok(Next::Line(words));
            }
        }
    }

    /// Waits for input. Returns false at its end.
    fn read_more(&mut self) -> io::Result<bool> {
        let more = self.input.fill_buf()?;
        let length = more.len();
        self.text.drain(..self.at);
        self.at = 0;
        self.text.extend_from_slice(more);
        self.input.consume(length);
        Ok(length != 0)
    }
}

/// Words end at white space and nowhere else: there are no quotes and no comments.
fn words(line: &[u8]) -> Vec<String> {
    let line = String::from_utf8_lossy(line);
    line.split([' ', '\t', '\r', '\n'])
        .filter(|word| !word.is_empty() && *word != "ipvsadm")
        .map(str::to_owned)
        .collect()
}

/// What `ipvsadm-restore` feeds to `-R`: everything but the lines that begin with `#`.
pub(super) fn without_comments(input: &mut dyn BufRead) -> io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    let mut line = Vec::new();
    while input.read_until(b'\n', &mut line)? != 0 {
        if !line.starts_with(b"#") {
            kept.extend_from_slice(&line);
        }
        line.clear();
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Read};

    use super::*;

    /// Hands out a piece at each read, as a pipe does.
    struct Pieces(Vec<&'static str>);

    impl Read for Pieces {
        fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
            let piece = match self.0.is_empty() {
                true => "",
                false => self.0.remove(0),
            };
            to[..piece.len()].copy_from_slice(piece.as_bytes());
            Ok(piece.len())
        }
    }

    #[test]
    fn lines_are_done_before_more_input_is_waited_for() {
        let pieces = ["-A -t one\n\n", "ipvsadm -A", " -t two\n-A -t three"];
        let mut input = BufReader::new(Pieces(pieces.to_vec()));
        let mut lines = Lines::new(&mut input);
        let line = |text: &str| Next::Line(text.split(' ').map(str::to_owned).collect());
        let mut seen = Vec::new();
        while seen.last() != Some(&Next::End) {
            seen.push(lines.next_line().unwrap());
        }
        let waiting = || Next::Waiting;
        let wanted = [
            waiting(),
            line("-A -t one"),
            waiting(),
            waiting(),
            line("-A -t two"),
            waiting(),
            line("-A -t three"),
            waiting(),
            Next::End,
        ];
        assert_eq!(seen, wanted);
    }
}
