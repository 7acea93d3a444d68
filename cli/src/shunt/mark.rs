//! `shunt mark`: rules that mark packets for the services of firewall marks.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::num::NonZeroU32;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use shunt_model::change::{Change, mark};
use shunt_model::mark::Targets;
use shunt_model::origin::{Device, Network};
use shunt_model::{MarkRule, Origin};

use super::change::{Wanted, make_all};
use super::fwmark::read_mark;
use super::iptables;
use super::table::{Side, Table, number};
use super::watch::{self, Watch};
use super::{Form, Halt, Outside, write_json};
use crate::client::Client;

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// List the rules and the service of each
    List(Watch),
    /// Mark packets to these addresses and ports
    Add {
        /// The mark, decimal or hexadecimal (0x7), from 1
        #[arg(value_parser = read_mark)]
        mark: NonZeroU32,
        /// Protocol, address and ports, such as tcp/192.0.2.1:80,443,8000-8010; without ports,
        /// every port
        #[arg(required = true)]
        targets: Vec<Targets>,
        #[command(flatten)]
        origin: FromWhere,
    },
    /// Delete rules, written as "mark list" shows them
    Delete {
        #[arg(value_parser = read_mark)]
        mark: NonZeroU32,
        #[arg(required = true)]
        targets: Vec<Targets>,
        #[command(flatten)]
        origin: FromWhere,
    },
    /// Import the MARK rules of an iptables-save text
    Import {
        /// The output of iptables-save or ip6tables-save; - is standard input
        file: PathBuf,
    },
}

/// Restricts a rule to an origin. If several rules match, the narrowest wins.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct FromWhere {
    /// Match only clients in this network, such as 10.0.0.0/8
    #[arg(long, value_name = "NETWORK")]
    from: Option<Network>,
    /// Match only packets that arrived on this device
    #[arg(long, value_name = "NAME")]
    device: Option<Device>,
}

impl FromWhere {
    fn origin(self) -> Origin {
        Origin {
            network: self.from,
            device: self.device,
        }
    }
}

impl Verb {
    pub(super) fn run(&self, outside: &mut Outside<'_>) -> Result<(), Halt> {
        match self {
            Verb::List(watch) => watch::show(outside, *watch, &draw),
            Verb::Add {
                mark,
                targets,
                origin,
            } => {
                let rules = rules(*mark, targets, origin.origin());
                make_all(outside, |client| add(client, &rules))
            }
            Verb::Delete {
                mark,
                targets,
                origin,
            } => {
                let rules = rules(*mark, targets, origin.origin());
                make_all(outside, |client| delete(client, &rules))
            }
            Verb::Import { file } => import(outside, file),
        }
    }
}

fn rules(mark: NonZeroU32, targets: &[Targets], origin: Origin) -> Vec<MarkRule> {
    let targets = targets.iter().flat_map(|targets| &targets.0);
    let rule = |target: &_| MarkRule {
        mark,
        target: *target,
        origin,
    };
    targets.map(rule).collect()
}

fn add(client: &mut dyn Client, rules: &[MarkRule]) -> Result<Vec<Wanted>, Halt> {
    let mut known: BTreeSet<MarkRule> = client.marks()?.into_iter().collect();
    let rules = rules.iter().map(|rule| {
        if !known.insert(*rule) {
            return Wanted::nothing(&format!("{rule} already exists"));
        }
        let change = Change::Mark(mark::Change::Add { rule: *rule });
        Wanted::change(change, format!("added {rule}"))
    });
    Ok(rules.collect())
}

fn delete(client: &mut dyn Client, rules: &[MarkRule]) -> Result<Vec<Wanted>, Halt> {
    let mut known: BTreeSet<MarkRule> = client.marks()?.into_iter().collect();
    let rules = rules.iter().map(|rule| {
        if !known.remove(rule) {
            return Wanted::nothing(&format!("there is no rule {rule}"));
        }
        let change = Change::Mark(mark::Change::Delete { rule: *rule });
        Wanted::change(change, format!("deleted {rule}"))
    });
    Ok(rules.collect())
}

fn import(outside: &mut Outside<'_>, file: &PathBuf) -> Result<(), Halt> {
    let mut text = String::new();
    let read = if file.as_os_str() == "-" {
        std::io::stdin().read_to_string(&mut text).map(drop)
    } else {
        std::fs::read_to_string(file).map(|content| text = content)
    };
    read.map_err(|error| Halt::Usage(format!("cannot read {}: {error}", file.display())))?;
    let found = iptables::marks(&text);
    make_all(outside, |client| add(client, &found.rules))?;
    let name = file.display();
    for left in &found.left {
        let (line, why) = (left.line, &left.why);
        writeln!(outside.error, "{name}:{line}: left out: {why}")?;
    }
    if !found.left.is_empty() {
        let hint = "netfilter can mark these packets instead: docs/guides/marks-of-netfilter.md";
        writeln!(outside.error, "{hint}")?;
    }
    if !outside.json {
        let (taken, left) = (number(found.rules.len(), "rule"), found.left.len());
        writeln!(outside.out, "read {taken}, left out {left}")?;
    }
    Ok(())
}

fn draw(client: &mut dyn Client, out: &mut dyn Write, form: Form) -> Result<(), Halt> {
    let rules = client.marks()?;
    if form != Form::Text {
        return write_json(out, &rules, form);
    }
    let services = client.services()?;
    let mut table = Table::new(&[
        ("MARK", Side::Right),
        ("TARGET", Side::Left),
        ("FROM", Side::Left),
        ("SERVICE", Side::Left),
    ]);
    for rule in &rules {
        let key = rule.service();
        let is_there = services.iter().any(|status| status.service.key == key);
        table.row([
            rule.mark.to_string(),
            rule.target.to_string(),
            rule.origin.to_string(),
            match is_there {
                true => key.to_string(),
                false => "none: packets pass".to_owned(),
            },
        ]);
    }
    Ok(table.write(out)?)
}
