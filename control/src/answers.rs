//! Answers to changes that wait until the next hops of the added servers are resolved. A client
//! that adds a server and then sends to it loses no packet, as with the kernel's own queue for
//! neighbours.

use std::time::{Duration, Instant};

use shunt_model::{ServerAddress, ServiceKey};

/// The longest wait of an answer. A neighbour answers within a millisecond, within a hundred on a
/// busy machine, or not at all.
const LONGEST: Duration = Duration::from_millis(200);

/// An answer to changes that are carried out.
#[derive(Clone, Debug)]
struct Held<Answer> {
    until: Instant,
    servers: Vec<(ServiceKey, ServerAddress)>,
    answer: Answer,
}

/// All answers that wait. Each client of the API waits for at most one, so the clients that the API
/// admits are the limit.
#[derive(Clone, Debug)]
pub struct Answers<Answer> {
    held: Vec<Held<Answer>>,
    /// The next wait. It is halved after each wait in vain, so that a thousand unreachable servers
    /// cost no more time than a few. It is restored after a wait that succeeded.
    patience: Duration,
}

impl<Answer> Default for Answers<Answer> {
    fn default() -> Self {
        Self {
            held: Vec::new(),
            patience: LONGEST,
        }
    }
}

impl<Answer> Answers<Answer> {
    /// Holds an answer until no server of `servers` is awaited. Returns the answer if there is
    /// nothing to wait for.
    #[must_use]
    pub fn hold(
        &mut self,
        servers: Vec<(ServiceKey, ServerAddress)>,
        answer: Answer,
        now: Instant,
    ) -> Option<Answer> {
        if servers.is_empty() {
            return Some(answer);
        }
        let until = now + self.patience;
        self.held.push(Held {
            until,
            servers,
            answer,
        });
        None
    }

    /// When [`Self::due`] must be called at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.held.iter().map(|held| held.until).min()
    }

    /// Takes the answers none of whose servers is awaited, and the answers that waited for long
    /// enough.
    pub fn due(
        &mut self,
        is_awaited: impl Fn(&ServiceKey, ServerAddress) -> bool,
        now: Instant,
    ) -> Vec<Answer> {
        let mut due = Vec::new();
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
            due.push(held.answer);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> (ServiceKey, ServerAddress) {
        let key = "tcp/192.0.2.1:80".parse().unwrap();
        (key, "10.1.0.11:80".parse().unwrap())
    }

    #[test]
    fn an_answer_waits_for_the_next_hop_and_not_for_ever() {
        let now = Instant::now();
        let cases = [
            ("resolved at once", false, Duration::ZERO, true),
            ("not resolved", true, Duration::ZERO, false),
            ("not resolved in time", true, LONGEST, true),
        ];
        for (what, is_awaited, later, is_due) in cases {
            let mut answers = Answers::default();
            assert_eq!(answers.hold(vec![name()], 7, now), None, "{what}");
            assert_eq!(answers.deadline(), Some(now + LONGEST));
            let due = answers.due(|_, _| is_awaited, now + later);
            assert_eq!(due, if is_due { vec![7] } else { vec![] }, "{what}");
            assert_eq!(answers.deadline().is_none(), is_due, "{what}");
        }
    }

    #[test]
    fn an_answer_without_an_awaited_server_does_not_wait() {
        let mut answers = Answers::default();
        assert_eq!(answers.hold(Vec::new(), 7, Instant::now()), Some(7));
        assert_eq!(answers.deadline(), None);
    }

    #[test]
    fn a_batch_waits_for_the_last_of_its_servers() {
        let now = Instant::now();
        let (key, first) = name();
        let second: ServerAddress = "10.1.0.12:80".parse().unwrap();
        let mut answers = Answers::default();
        assert_eq!(
            answers.hold(vec![(key, first), (key, second)], 7, now),
            None
        );
        for _ in 0..2 {
            assert!(answers.due(|_, at| at == second, now).is_empty());
        }
        assert_eq!(answers.due(|_, _| false, now), [7]);
    }

    #[test]
    fn a_thousand_servers_that_are_off_cost_no_more_than_two_waits() {
        let begun = Instant::now();
        let mut now = begun;
        let mut answers = Answers::default();
        for _ in 0..1000 {
            assert_eq!(answers.hold(vec![name()], (), now), None);
            now = answers.deadline().unwrap();
            assert_eq!(answers.due(|_, _| true, now).len(), 1);
        }
        assert!(now - begun <= 2 * LONGEST, "{:?}", now - begun);
        assert_eq!(answers.hold(vec![name()], (), now), None);
        answers.due(|_, _| false, now);
        assert_eq!(answers.hold(vec![name()], (), now), None);
        assert_eq!(answers.deadline(), Some(now + LONGEST));
    }
}
