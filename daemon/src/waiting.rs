//! Answers to changes that wait until the next hop of the added server is resolved. A client that
//! adds a server and then sends to it loses no packet, as with the kernel's own queue for
//! neighbours.

use std::time::{Duration, Instant};

use shunt_model::api::{Change, Done, Refusal};
use shunt_model::{ServerAddress, ServiceKey};
use tokio::sync::oneshot;

/// The longest wait of an answer. A neighbour answers within a millisecond, within a hundred on a
/// busy machine, or not at all.
const LONGEST: Duration = Duration::from_millis(200);

pub type Answer = oneshot::Sender<Result<Done, Refusal>>;

/// A change that is carried out and not answered yet.
struct Held {
    until: Instant,
    key: ServiceKey,
    at: ServerAddress,
    answer: Answer,
    done: Done,
}

/// All answers that wait.
pub struct Waiting {
    held: Vec<Held>,
    /// The next wait. It is halved after each wait in vain, so that a thousand unreachable servers
    /// cost no more time than a few. It is restored after a wait that succeeded.
    patience: Duration,
}

impl Default for Waiting {
    fn default() -> Self {
        Self {
            held: Vec::new(),
            patience: LONGEST,
        }
    }
}

/// The server that a change makes reachable.
pub fn server(change: &Change) -> Option<(ServiceKey, ServerAddress)> {
    match change {
        Change::AddServer { key, server } | Change::EditServer { key, server } => {
            Some((*key, server.at))
        }
        _ => None,
    }
}

impl Waiting {
    pub fn hold(&mut self, server: (ServiceKey, ServerAddress), answer: Answer, done: Done) {
        let (key, at) = server;
        let until = Instant::now() + self.patience;
        self.held.push(Held {
            until,
            key,
            at,
            answer,
            done,
        });
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.held.iter().map(|held| held.until).min()
    }

    /// Sends the answers whose server is not awaited, and the answers that waited for long enough.
    pub fn review(&mut self, is_awaited: impl Fn(&ServiceKey, ServerAddress) -> bool) {
        if self.held.is_empty() {
            return;
        }
        let now = Instant::now();
        for held in std::mem::take(&mut self.held) {
            let vain = is_awaited(&held.key, held.at);
            if vain && now < held.until {
                self.held.push(held);
                continue;
            }
            self.patience = match vain {
                true => self.patience / 2,
                false => LONGEST,
            };
            let _ = held.answer.send(Ok(held.done));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shunt_model::Protocol;

    fn name() -> (ServiceKey, ServerAddress) {
        let key = ServiceKey::Address {
            protocol: Protocol::Tcp,
            address: "192.0.2.1".parse().unwrap(),
            port: 80,
        };
        (key, "10.1.0.11:80".parse().unwrap())
    }

    #[test]
    fn an_answer_waits_for_the_next_hop_and_not_for_ever() {
        let mut waiting = Waiting::default();
        let (answer, mut heard) = oneshot::channel();
        waiting.hold(name(), answer, Done::default());
        waiting.review(|_, _| true);
        assert!(heard.try_recv().is_err());
        waiting.review(|_, _| false);
        assert_eq!(heard.try_recv(), Ok(Ok(Done::default())));
        assert_eq!(waiting.deadline(), None);
    }

    #[test]
    fn a_thousand_servers_that_are_off_cost_no_more_than_two_waits() {
        let mut waiting = Waiting::default();
        let mut waited = Duration::ZERO;
        for _ in 0..1000 {
            let (answer, _heard) = oneshot::channel();
            waited += waiting.patience;
            waiting.hold(name(), answer, Done::default());
            waiting.held[0].until = Instant::now();
            waiting.review(|_, _| true);
        }
        assert!(waited <= 2 * LONGEST, "{waited:?}");
        let (answer, _heard) = oneshot::channel();
        waiting.hold(name(), answer, Done::default());
        waiting.review(|_, _| false);
        assert_eq!(waiting.patience, LONGEST);
    }
}
