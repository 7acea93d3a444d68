//! The account of what happened: each event is written to the log, kept in a ring, and passed to
//! those who follow.

use std::collections::VecDeque;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::Bytes;
use shunt_model::event::{Event, Fact};
use tokio::sync::broadcast;
use tracing::{debug, error, info, warn};

/// Events that are kept, and their bytes. The oldest go first.
const MOST: usize = 1024;
const MOST_BYTES: usize = 1 << 20;
/// Events that wait for a reader that follows. A slower reader misses the oldest of them.
const BACKLOG: usize = 256;

/// The events that are kept, each as a line of JSON, and those that follow.
pub(crate) type Account = (Vec<Bytes>, broadcast::Receiver<Bytes>);

/// The last events.
#[derive(Debug)]
pub(crate) struct Events {
    lines: VecDeque<Bytes>,
    bytes: usize,
    next: u64,
    followers: broadcast::Sender<Bytes>,
}

impl Default for Events {
    fn default() -> Self {
        Self {
            lines: VecDeque::new(),
            bytes: 0,
            next: 0,
            followers: broadcast::Sender::new(BACKLOG),
        }
    }
}

impl Events {
    /// Takes in what happened.
    pub(crate) fn add(&mut self, fact: Fact) {
        log(&fact);
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let at_ms = since.map_or(0, |since| since.as_millis() as u64);
        let event = Event::new(self.next, at_ms, fact);
        self.next += 1;
        let Ok(mut line) = serde_json::to_vec(&event) else {
            return;
        };
        line.push(b'\n');
        self.keep(line.into());
    }

    fn keep(&mut self, line: Bytes) {
        self.bytes += line.len();
        self.lines.push_back(line.clone());
        while self.lines.len() > MOST || self.bytes > MOST_BYTES {
            let Some(oldest) = self.lines.pop_front() else {
                break;
            };
            self.bytes -= oldest.len();
        }
        // An error means that nobody follows.
        let _ = self.followers.send(line);
    }

    /// The events that are kept, and those that follow.
    pub(crate) fn listen(&self) -> Account {
        let lines = self.lines.iter().cloned().collect();
        (lines, self.followers.subscribe())
    }
}

/// The line of the log.
fn log(fact: &Fact) {
    match fact {
        Fact::DirectorReady => info!("ready"),
        Fact::TableChanged { change } => info!(%change, "table changed"),
        Fact::ChangeRefused { why, .. } => info!(why, "change refused"),
        Fact::ServerReached { service, server } => debug!(%service, %server, "server reached"),
        Fact::ServerUnreached { service, server } => {
            debug!(%service, %server, "server not reached");
        }
        Fact::DefencesChanged { up } if up.is_empty() => info!("defences down"),
        Fact::DefencesChanged { up } => warn!(?up, "defences changed"),
        Fact::DeviceAttached { device, hook } => info!(device, hook, "device attached"),
        Fact::DeviceNotAttached { device, why } => warn!(device, why, "device not attached"),
        Fact::CallersWithoutServers { why } => {
            warn!(why, "processes on this machine are given no servers");
        }
        Fact::WritesRefused { why } => error!(
            why,
            action = "trying again",
            "packet path not as it should be"
        ),
        Fact::WritesDone => info!("packet path as it should be"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(device: String) -> Fact {
        let hook = "tc".to_owned();
        Fact::DeviceAttached { device, hook }
    }

    fn numbers(lines: &[Bytes]) -> Vec<u64> {
        let event = |line: &Bytes| serde_json::from_slice::<Event>(line).unwrap().number;
        lines.iter().map(event).collect()
    }

    #[test]
    fn the_last_events_are_kept_within_count_and_bytes() {
        let mut events = Events::default();
        for _ in 0..MOST + 7 {
            events.add(Fact::DirectorReady);
        }
        let kept = numbers(&events.listen().0);
        assert_eq!((kept.len(), kept.first()), (MOST, Some(&7)));
        for _ in 0..8 {
            events.add(changed("x".repeat(MOST_BYTES / 4)));
        }
        let (lines, _) = events.listen();
        assert_eq!(lines.len(), 3);
        assert!(lines.iter().map(Bytes::len).sum::<usize>() <= MOST_BYTES);
    }

    #[test]
    fn who_follows_misses_nothing_between_the_kept_events_and_the_next() {
        let mut events = Events::default();
        events.add(Fact::DirectorReady);
        let (kept, mut following) = events.listen();
        events.add(changed("eth0".to_owned()));
        let next = following.try_recv().unwrap();
        assert_eq!(numbers(&[kept[0].clone(), next]), [0, 1]);
    }
}
