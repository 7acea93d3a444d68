//! Known differences in the listing of connections.

use std::collections::BTreeSet;

use super::{ASSURED, Known, LEFT_BEHIND, TIMEOUTS, TIMERS};
use crate::conform::view::{View, connection};

/// The seconds by which a clock that counts ticks may differ.
const TICK: u64 = 2;
/// The states whose timeouts `--set` changes.
const SET: [&str; 3] = ["ESTABLISHED", "FIN_WAIT", "UDP"];
/// A closed connection lasts ten seconds, less the granularity of a timer.
pub(super) const CLOSED: u64 = 8;
/// The port of a template that IPVS made invalid.
const NOWHERE: (&str, &str) = ("65535", "65535");

impl Known<'_> {
    /// A UDP client's template is assured by the client's second packet, in IPVS by an answer. An
    /// SCTP client's template is assured a tick later than in IPVS.
    pub(super) fn templates(&mut self, kernel: &mut View, shunt: &mut View) {
        let states = |view: &mut View| {
            let mut states = BTreeSet::new();
            for line in &mut view.said {
                let words: Vec<&str> = line.split_whitespace().collect();
                let is_template = matches!(words.first(), Some(&"UDP" | &"SCTP" | &"IP"))
                    && words.get(3).is_some_and(|client| client.ends_with(":0"));
                if let (true, Some(state @ (&"NONE" | &"ASSURED"))) = (is_template, words.get(2)) {
                    states.insert((words[3].to_owned(), (*state).to_owned()));
                    *line = line.replacen(&format!("{state:<11}"), "NONE       ", 1);
                }
            }
            let rest = view.said.len().min(2);
            view.said[rest..].sort_by_key(|line| connection(line).unwrap_or_default());
            // The templates of two calls, which only their states distinguished.
            let text = |line: &String| connection(line).map(|(text, _)| text);
            view.said
                .dedup_by(|one, other| text(one).is_some() && text(one) == text(other));
            states
        };
        if states(kernel) != states(shunt) {
            self.names.insert(ASSURED);
        }
    }

    /// IPVS gives a template whose server was unavailable the port 65535, so that nothing finds it.
    /// In Shunt the template is unchanged, or names the server that the client got since.
    pub(super) fn left_behind(&mut self, kernel: &mut View, shunt: &View) {
        let hosts = |ends: [(&str, &str); 3]| ends.map(|(host, _)| host.to_owned());
        kernel.said = std::mem::take(&mut kernel.said)
            .into_iter()
            .filter_map(|theirs| {
                let Some(ends) = ends(&theirs).filter(|[_, at, to]| (at.1, to.1) == NOWHERE) else {
                    return Some(theirs);
                };
                self.names.insert(LEFT_BEHIND);
                let is_it = |ours: &&String| {
                    let ours = self::ends(ours).filter(|[client, ..]| client.1 == "0");
                    ours.is_some_and(|ours| hosts(ours) == hosts(ends))
                };
                shunt.said.iter().find(is_it).cloned()
            })
            .collect();
    }

    pub(super) fn connections(&mut self, kernel: &mut View, shunt: &mut View) {
        let unseen = |line: &String| {
            let client = line.split_whitespace().nth(3);
            client.is_some_and(|client| self.unseen.contains(client))
        };
        kernel.said.retain(|line| !unseen(line));
        shunt.said.retain(|line| !unseen(line));
        // Remaining times may differ by the time that the playing took, and by a tick.
        let allowed = kernel.elapsed_s.max(shunt.elapsed_s) + TICK;
        let there: BTreeSet<_> = kernel
            .said
            .iter()
            .filter_map(|line| connection(line))
            .collect();
        let is_there = |text: &str| there.iter().any(|(other, _)| other == text);
        if kernel.elapsed_s >= CLOSED {
            shunt.said.retain(|line| {
                connection(line)
                    .is_none_or(|(text, _)| !text.contains(" CLOSE ") || is_there(&text))
            });
        }
        for (theirs, ours) in kernel.said.iter().zip(&mut shunt.said) {
            let (Some(one), Some(other)) = (connection(theirs), connection(ours)) else {
                continue;
            };
            let state = |text: &str| text.split(' ').nth(1).map(str::to_owned);
            let is_set = state(&one.0).is_some_and(|state| SET.contains(&&*state));
            let name = if one.0 == other.0 && one.1.abs_diff(other.1) <= allowed {
                TIMERS
            } else if one.0 == other.0 && self.timeouts_changed && is_set {
                TIMEOUTS
            } else {
                continue;
            };
            ours.clone_from(theirs);
            self.names.insert(name);
        }
    }
}

/// The client, virtual address and server of a line of `-Lnc`, each with its port.
fn ends(line: &str) -> Option<[(&str, &str); 3]> {
    let mut words = line.split_whitespace().skip(3);
    let mut next = || words.next()?.rsplit_once(':');
    Some([next()?, next()?, next()?])
}
