//! Answers to changes that wait until the next hops of the added servers are resolved. A client
//! that adds a server and then sends to it loses no packet, as with the kernel's own queue for
//! neighbours.

use std::time::{Duration, Instant};

use shunt_model::{ServerAddress, ServiceKey};

/// The longest wait of an answer. A neighbour answers within a millisecond, within a hundred on a
/// busy machine, or not at all.
const LONGEST: Duration = Duration::from_millis(200);

/// Sends an answer.
pub type Answer = Box<dyn FnOnce() + Send>;

/// Changes that are carried out and not answered yet.
struct Held {
    until: Instant,
    servers: Vec<(ServiceKey, ServerAddress)>,
    answer: Answer,
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

impl Waiting {
    /// Answers when no server is awaited any more; at once if none is.
    pub fn hold(&mut self, servers: Vec<(ServiceKey, ServerAddress)>, answer: Answer) {
        if servers.is_empty() {
            return answer();
        }
        let until = Instant::now() + self.patience;
        self.held.push(Held {
            until,
            servers,
            answer,
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
        for mut held in std::mem::take(&mut self.held) {
            held.servers.retain(|(key, at)| is_awaited(key, *at));
            let vain = !held.servers.is_empty();
            if vain && now < held.until {
                self.held.push(held);
                continue;
            }
            self.patience = match vain {
                true => self.patience / 2,
                false => LONGEST,
            };
            (held.answer)();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use shunt_model::Protocol;

    use super::*;

    fn name() -> (ServiceKey, ServerAddress) {
        let key = ServiceKey::Address {
            protocol: Protocol::Tcp,
            address: "192.0.2.1".parse().unwrap(),
            port: 80,
        };
        (key, "10.1.0.11:80".parse().unwrap())
    }

    fn answer() -> (Answer, Receiver<()>) {
        let (sent, heard) = channel();
        (Box::new(move || sent.send(()).unwrap_or_default()), heard)
    }

    #[test]
    fn a_batch_waits_for_the_last_of_its_servers() {
        let mut waiting = Waiting::default();
        let (answer, heard) = answer();
        let (key, first) = name();
        let second: ServerAddress = "10.1.0.12:80".parse().unwrap();
        waiting.hold(vec![(key, first), (key, second)], answer);
        waiting.review(|_, at| at == second);
        waiting.review(|_, at| at == second);
        assert!(heard.try_recv().is_err());
        waiting.review(|_, _| false);
        assert_eq!(heard.try_recv(), Ok(()));
    }

    #[test]
    fn an_answer_waits_for_the_next_hop_and_not_for_ever() {
        let mut waiting = Waiting::default();
        let (answer, heard) = answer();
        waiting.hold(vec![name()], answer);
        waiting.review(|_, _| true);
        assert!(heard.try_recv().is_err());
        waiting.review(|_, _| false);
        assert_eq!(heard.try_recv(), Ok(()));
        assert_eq!(waiting.deadline(), None);
    }

    #[test]
    fn a_thousand_servers_that_are_off_cost_no_more_than_two_waits() {
        let mut waiting = Waiting::default();
        let mut waited = Duration::ZERO;
        for _ in 0..1000 {
            let (answer, _heard) = answer();
            waited += waiting.patience;
            waiting.hold(vec![name()], answer);
            waiting.held[0].until = Instant::now();
            waiting.review(|_, _| true);
        }
        assert!(waited <= 2 * LONGEST, "{waited:?}");
        let (answer, _heard) = answer();
        waiting.hold(vec![name()], answer);
        waiting.review(|_, _| false);
        assert_eq!(waiting.patience, LONGEST);
    }
}
