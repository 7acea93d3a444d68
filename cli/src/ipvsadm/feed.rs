//! `-R`: lines are done one after the other, and changes that arrive together are sent together.

use std::io::{self, BufRead};

use shunt_model::batch::{Batch, Mode, Refused};
use shunt_model::change::{Change, service};

use super::halt::{self, Halt, Subject};
use super::restore::{self, Lines, Next, Queue};
use super::{Face, complain};

impl Face<'_> {
    /// Line after line. A line that the daemon refuses is complained of and passed over; the status
    /// is that of the last line. A mistake in a line ends it.
    ///
    /// Changes of lines that arrived together are sent together. None waits for further input.
    pub(super) fn restore(&mut self, input: &mut dyn BufRead) -> Result<u8, Halt> {
        self.queue = Some(Queue::default());
        self.status = 0;
        let mut lines = Lines::new(input);
        loop {
            let words = match lines.next_line()? {
                Next::Line(words) => words,
                Next::Waiting => {
                    self.send_queue()?;
                    continue;
                }
                Next::End => break,
            };
            match self.line(&words, None) {
                Ok(status) => self.status = status,
                Err(halt) => {
                    self.send_queue()?;
                    let Halt::Line { text } = halt else {
                        return Err(halt);
                    };
                    self.status = complain(self.out, self.error, &text, 255);
                }
            }
        }
        self.send_queue()?;
        Ok(self.status)
    }

    /// Clears the table first, but reads the input before that.
    pub(super) fn restore_anew(&mut self, input: &mut dyn BufRead) -> Result<u8, Halt> {
        let input = restore::without_comments(input)?;
        self.change(Change::Service(service::Change::Flush), Subject::Service)?;
        self.restore(&mut io::Cursor::new(input))
    }

    /// Sends the changes that wait, and complains of those that the daemon refused.
    pub(super) fn send_queue(&mut self) -> Result<(), Halt> {
        let Some(queue) = self.queue.as_mut().map(std::mem::take) else {
            return Ok(());
        };
        let Some(subject) = queue.subjects.last() else {
            return Ok(());
        };
        let batch = Batch {
            mode: Mode::Each,
            changes: queue.changes,
        };
        let refused = self.client.batch(&batch);
        let refused = refused.map_err(|failure| halt::failed(failure, *subject))?;
        self.status = 0;
        for Refused { index, refusal } in refused {
            let subject = queue.subjects.get(index).unwrap_or(subject);
            let text = halt::refused(refusal, *subject);
            let status = complain(self.out, self.error, &text, 255);
            if index + 1 == queue.subjects.len() {
                self.status = status;
            }
        }
        Ok(())
    }
}
