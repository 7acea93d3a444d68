//! Policy rules (`ip rule`): which tables a packet visits.
//!
//! Servers are asked for as IPVS asks: a packet of this machine's own, without source, mark or
//! port. Whatever else a rule minds never fits. The answers to clients have a source, so where a
//! rule may decide about them the packet path asks the kernel ([`Rules::is_plain`]).

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::routes::{DEFAULT, LOCAL, MAIN, Prefix};

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub v4: bool,
    pub priority: u32,
    /// It fits what it would not fit.
    pub inverted: bool,
    /// Of every packet where the length is 0.
    pub source: Prefix,
    pub target: Prefix,
    /// The device that packets come in by. Packets of the machine's own come by `lo`.
    pub input: Option<String>,
    /// The device that a socket is bound to.
    pub output: Option<String>,
    pub mark: u32,
    pub mask: u32,
    /// It minds what no packet of ours has: a type of service, ports, a protocol, a user, a VRF.
    pub narrow: bool,
    pub action: Action,
    /// A route that is no longer than this does not count.
    pub suppressed: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Table(u32),
    /// Go on with the first rule of this priority.
    Goto(u32),
    Nop,
    Blackhole,
    Unreachable,
    Prohibit,
}

/// The name of the loopback device, the same in every network namespace.
const LOOPBACK: &str = "lo";

impl Rule {
    /// Does a packet of this machine's own to this address fit?
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

    /// Does no answer to a client fit, whatever its addresses are?
    fn is_for_others(&self) -> bool {
        !self.inverted && (self.output.is_some() || !self.fits_no_mark())
    }

    /// The table that every packet visits by this rule.
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
    /// Says whether anything is different afterwards.
    pub fn insert(&mut self, rule: Rule) -> bool {
        let same = self.0.entry((rule.v4, rule.priority)).or_default();
        let is_new = !same.contains(&rule);
        if is_new {
            same.push(rule);
        }
        is_new
    }

    pub fn remove(&mut self, rule: &Rule) -> bool {
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

    /// The rules that a packet of this machine's own meets, in order.
    ///
    /// Where none is known they are the kernel's own: a kernel without policy routing has none.
    pub fn met(&self, to: IpAddr) -> Vec<(Action, Option<u32>)> {
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
                // The kernel only takes a goto that leads ahead. One that leads to no rule is none.
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

    /// Does every answer visit the table `local`, then `main`? What comes behind them is met by
    /// packets to which neither leads.
    pub fn is_plain(&self, v4: bool) -> bool {
        let mut ours = self.of(v4).filter(|rule| !rule.is_for_others()).peekable();
        if ours.peek().is_none() {
            return self.of(v4).next().is_none();
        }
        let tables = ours.map(Rule::table_for_all).take(2);
        tables.eq([Some(LOCAL), Some(MAIN)])
    }
}
