//! The log. A thread of its own writes the lines, so that a slow or dead reader stops nothing.
//!
//! The queue is bounded. A line without room, or one that cannot be written, is lost and counted.
//! When a line can be written again, the log reports how many were lost.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tracing_subscriber::fmt::MakeWriter;

/// The most bytes that wait for the writer.
const ROOM: usize = 1 << 20;

/// The number of lines that this process lost.
static LOST: AtomicU64 = AtomicU64::new(0);

/// The number of lines lost since the start.
#[must_use]
pub(crate) fn lost() -> u64 {
    LOST.load(Ordering::Relaxed)
}

/// The queue of lines. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Log(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Lines lost since the last report.
    lost: u64,
    is_writing: bool,
}

impl Queue {
    /// Queues a line, or counts it as lost.
    fn push(&mut self, line: &[u8]) {
        if self.bytes + line.len() > ROOM {
            self.lose();
            return;
        }
        self.bytes += line.len();
        self.lines.push_back(line.to_vec());
    }

    fn pop(&mut self) -> Option<Vec<u8>> {
        let line = self.lines.pop_front()?;
        self.bytes -= line.len();
        Some(line)
    }

    fn lose(&mut self) {
        self.lost += 1;
        LOST.fetch_add(1, Ordering::Relaxed);
    }
}

impl Log {
    /// A log to stderr.
    pub(crate) fn to_stderr() -> Self {
        let log = Self(Arc::default());
        if let Ok(out) = io::stderr().as_fd().try_clone_to_owned() {
            log.begin(File::from(out));
        }
        log
    }

    /// Starts the thread that writes.
    fn begin(&self, out: impl Write + AsFd + Send + 'static) {
        let shared = self.0.clone();
        let thread = std::thread::Builder::new().name("log".to_owned());
        let _ = thread.spawn(move || shared.write_to(out));
    }

    /// Waits until all lines are written, at most for `limit`.
    pub(crate) fn settle(&self, limit: Duration) {
        let end = Instant::now() + limit;
        let mut queue = self.0.lock();
        while queue.is_writing || !queue.lines.is_empty() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.0.changed.wait_timeout(queue, left);
            (queue, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_to(&self, mut out: impl Write + AsFd) {
        loop {
            let line = self.next();
            let written = write(&mut out, &line);
            let mut queue = self.lock();
            queue.is_writing = false;
            match written {
                Ok(()) if queue.lost > 0 => {
                    let lines = std::mem::take(&mut queue.lost);
                    drop(queue);
                    tracing::warn!(
                        lines,
                        action = "read stderr, or make room where it is written",
                        "the log could not be written"
                    );
                }
                Ok(()) => {}
                Err(_) => queue.lose(),
            }
            self.changed.notify_all();
        }
    }

    /// Waits for a line and removes it from the queue.
    fn next(&self) -> Vec<u8> {
        let mut queue = self.lock();
        loop {
            if let Some(line) = queue.pop() {
                queue.is_writing = true;
                return line;
            }
            let waited = self.changed.wait(queue);
            queue = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Writes a whole line, however long that takes.
fn write(out: &mut (impl Write + AsFd), line: &[u8]) -> io::Result<()> {
    let mut left = line;
    while !left.is_empty() {
        match out.write(left) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => left = left.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // The process that started the daemon made this descriptor non-blocking.
            Err(error) if error.kind() == ErrorKind::WouldBlock => wait(out.as_fd()),
            Err(error) => return Err(error),
        }
    }
    out.flush()
}

fn wait(out: BorrowedFd<'_>) {
    let _ = poll(
        &mut [PollFd::new(out, PollFlags::POLLOUT)],
        PollTimeout::NONE,
    );
}

/// One event of the log. Writing it never fails and never waits.
#[derive(Debug)]
pub(crate) struct Event<'a>(&'a Log);

impl Write for Event<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.0.lock().push(line);
        self.0.0.changed.notify_all();
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Event<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        Event(self)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{PipeWriter, Read};

    use nix::fcntl::{FcntlArg, OFlag, fcntl};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    fn log(out: impl Write + AsFd + Send + 'static) -> Log {
        let log = Log(Arc::default());
        log.begin(out);
        log
    }

    fn say(log: &Log, line: &str) {
        log.make_writer().write_all(line.as_bytes()).unwrap();
    }

    fn lost_of(log: &Log) -> u64 {
        log.0.lock().lost
    }

    fn set_flags(pipe: impl AsFd, flag: OFlag) {
        fcntl(pipe, FcntlArg::F_SETFL(flag)).unwrap();
    }

    /// Writes until the pipe takes no more. Returns the number of bytes.
    fn fill(pipe: &mut PipeWriter) -> usize {
        set_flags(&*pipe, OFlag::O_NONBLOCK);
        let mut bytes = 0;
        while let Ok(count) = pipe.write(&[b'.'; 4096]) {
            bytes += count;
        }
        set_flags(&*pipe, OFlag::empty());
        bytes
    }

    #[test]
    fn a_pipe_that_nobody_reads_stops_nobody_and_keeps_what_there_is_room_for() {
        let (mut reader, mut writer) = io::pipe().unwrap();
        let filled = fill(&mut writer);
        let log = log(writer);
        let line = format!("{}\n", "x".repeat(1023));
        for _ in 0..4096 {
            say(&log, &line);
        }
        // The writer holds one line as soon as its thread runs.
        let kept = 4096 - lost_of(&log);
        assert!((1024..=1025).contains(&kept), "{kept} lines kept");
        assert!(log.0.lock().bytes <= ROOM);

        let mut first = vec![0; filled + line.len()];
        reader.read_exact(&mut first).unwrap();
        assert_eq!(&first[filled..], line.as_bytes());
    }

    #[test]
    fn a_pipe_that_does_not_wait_gets_all_of_it() {
        let (mut reader, writer) = io::pipe().unwrap();
        set_flags(&writer, OFlag::O_NONBLOCK);
        let log = log(writer);
        for _ in 0..512 {
            say(&log, &format!("{}\n", "x".repeat(1023)));
        }
        let mut all = vec![0; 512 * 1024];
        reader.read_exact(&mut all).unwrap();
        log.settle(LIMIT);
        assert_eq!(lost_of(&log), 0);
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let log_to_full = log(full);
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let log_to_nobody = log(writer);
        for log in [log_to_full, log_to_nobody] {
            say(&log, "one\n");
            say(&log, "two\n");
            log.settle(LIMIT);
            assert_eq!(lost_of(&log), 2);
        }
    }
}
