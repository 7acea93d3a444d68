//! Policy rules (`ip rule`): which tables a packet visits.
//!
//! Routes to servers are looked up as IPVS does: for a packet of this machine without source, mark
//! or port. A rule that asks for anything else never matches. Answers to clients have a source, so
//! where a rule may decide about them the packet path asks the kernel (`Rules::is_plain`).

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::routes::{DEFAULT, LOCAL, MAIN, Prefix};

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// It is for IPv4; otherwise it is for IPv6.
    pub v4: bool,
    /// Rules are tried in ascending order.
    pub priority: u32,
    /// `not`: it matches what it would otherwise not match.
    pub inverted: bool,
    /// Length 0 matches every source.
    pub source: Prefix,
    /// Length 0 matches every target.
    pub target: Prefix,
    /// The device that packets arrive by. Packets of this machine arrive by `lo`.
    pub input: Option<String>,
    /// The device that a socket is bound to.
    pub output: Option<String>,
    /// The firewall mark that it asks for, under the mask.
    pub mark: u32,
    /// The bits of the mark that count; 0 asks for no mark.
    pub mask: u32,
    /// It matches on what no look-up has: a type of service, ports, a protocol, a user, a VRF.
    pub narrow: bool,
    /// What becomes of a packet that matches.
    pub action: Action,
    /// A route with this prefix length or a shorter one is ignored (`suppress_prefixlength`).
    pub suppressed: Option<u32>,
}

/// What becomes of a packet that matches a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// Its route is looked up in this table. If there is none, the next rule is tried.
    Table(u32),
    /// Go on with the first rule of this priority.
    Goto(u32),
    /// The next rule is tried.
    Nop,
    /// It is dropped in silence.
    Blackhole,
    /// It is refused by "host unreachable".
    Unreachable,
    /// It is refused by "administratively prohibited".
    Prohibit,
}

/// The name of the loopback device, the same in every network namespace.
const LOOPBACK: &str = "lo";

impl Rule {
    /// Whether a packet of this machine to this address matches.
    pub(super) fn fits(&self, to: IpAddr) -> bool {
        let fits = self.target.contains(to)
            && self.source.length() == 0
            && self.input.as_deref().is_none_or(|name| name == LOOPBACK)
            && self.output.is_none()
            && self.fits_no_mark()
            && !self.narrow;
        fits != self.inverted
    }

    fn fits_no_mark(&self) -> bool {
        self.mark & self.mask == 0
    }

    /// Whether no answer to a client can match, whatever its addresses are.
    fn is_for_others(&self) -> bool {
        !self.inverted && (self.output.is_some() || !self.fits_no_mark())
    }

    /// The table that this rule sends every packet to, if it does.
    fn table_for_all(&self) -> Option<u32> {
        let any = self.source.length() == 0 && self.target.length() == 0;
        let any = any && self.input.is_none() && self.output.is_none();
        let any = any && self.fits_no_mark() && !self.narrow && !self.inverted;
        match self.action {
            Action::Table(table) if any && self.suppressed.is_none() => Some(table),
            Action::Table(_)
            | Action::Goto(_)
            | Action::Nop
            | Action::Blackhole
            | Action::Unreachable
            | Action::Prohibit => None,
        }
    }
}

/// The rules of both families, by family and priority, in the order in which they came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rules(BTreeMap<(bool, u32), Vec<Rule>>);

impl Rules {
    /// Adds a rule; true if it was not there.
    pub(super) fn insert(&mut self, rule: Rule) -> bool {
        let same = self.0.entry((rule.v4, rule.priority)).or_default();
        let is_new = !same.contains(&rule);
        if is_new {
            same.push(rule);
        }
        is_new
    }

    pub(super) fn remove(&mut self, rule: &Rule) -> bool {
        let key = (rule.v4, rule.priority);
        let Some(same) = self.0.get_mut(&key) else {
            return false;
        };
        let Some(place) = same.iter().position(|known| known == rule) else {
            return false;
        };
        same.remove(place);
        if same.is_empty() {
            self.0.remove(&key);
        }
        true
    }

    fn of(&self, v4: bool) -> impl Iterator<Item = &Rule> {
        let all = self.0.range((v4, 0)..=(v4, u32::MAX));
        all.flat_map(|(_, rules)| rules)
    }

    /// The actions of the rules that a packet of this machine meets, in order, with the prefix
    /// length that each suppresses.
    ///
    /// Without rules the kernel's defaults hold: a kernel without policy routing has none.
    pub(super) fn met(&self, to: IpAddr) -> Vec<(Action, Option<u32>)> {
        if self.of(to.is_ipv4()).next().is_none() {
            let table = |table| (Action::Table(table), None);
            return [LOCAL, MAIN, DEFAULT].map(table).to_vec();
        }
        let mut from = 0;
        let mut met = Vec::new();
        for rule in self.of(to.is_ipv4()) {
            if rule.priority < from || !rule.fits(to) {
                continue;
            }
            match rule.action {
                // The kernel accepts only a goto to a later rule. A goto to a missing rule does
                // nothing.
                Action::Goto(priority) if self.0.contains_key(&(rule.v4, priority)) => {
                    from = priority;
                }
                Action::Goto(_) | Action::Nop => {}
                action @ (Action::Table(_)
                | Action::Blackhole
                | Action::Unreachable
                | Action::Prohibit) => met.push((action, rule.suppressed)),
            }
        }
        met
    }

    /// Whether every answer visits the table `local`, then `main`. Only packets that match no route
    /// there meet later rules.
    pub(super) fn is_plain(&self, v4: bool) -> bool {
        let mut ours = self.of(v4).filter(|rule| !rule.is_for_others()).peekable();
        if ours.peek().is_none() {
            return self.of(v4).next().is_none();
        }
        let tables = ours.map(Rule::table_for_all).take(2);
        tables.eq([Some(LOCAL), Some(MAIN)])
    }
}
