//! `shunt stats`: what happened to packets.

use std::collections::BTreeMap;
use std::io::Write;

use clap::Args;
use serde::Serialize;
use shunt_model::api::{ServiceStatus, Statistics};
use shunt_model::outcome::meaning;
use shunt_model::{Counters, Rates};

use super::table::{Side, Table};
use super::watch::{self, Watch};
use super::{Form, Halt, Outside, services, write_json};
use crate::client::Client;

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Show only the drop reasons, including those that never occurred
    #[arg(long)]
    drops: bool,
    #[command(flatten)]
    watch: Watch,
}

/// The shape that `--json` prints: all counters of the packet path, and those of each service.
#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    statistics: Statistics,
    services: Vec<ServiceStatus>,
}

impl Options {
    pub(super) fn run(&self, outside: &mut Outside<'_>) -> Result<(), Halt> {
        if self.drops {
            watch::show(outside, self.watch, &draw_drops)
        } else {
            watch::show(outside, self.watch, &draw)
        }
    }
}

fn draw_drops(client: &mut dyn Client, out: &mut dyn Write, form: Form) -> Result<(), Halt> {
    let drops = client.statistics()?.drops;
    if form != Form::Text {
        return write_json(out, &drops, form);
    }
    write_counters(out, ["DROP", "PACKETS"], &drops)
}

fn draw(client: &mut dyn Client, out: &mut dyn Write, form: Form) -> Result<(), Halt> {
    let report = Report {
        statistics: client.statistics()?,
        services: services(client)?,
    };
    if form != Form::Text {
        return write_json(out, &report, form);
    }
    let Report {
        statistics,
        services,
    } = report;
    write_counters(
        out,
        ["VERDICT", "PACKETS"],
        &that_occurred(statistics.verdicts),
    )?;
    writeln!(out)?;
    write_counters(out, ["DROP", "PACKETS"], &that_occurred(statistics.drops))?;
    writeln!(out)?;
    write_counters(out, ["NOTE", "TIMES"], &that_occurred(statistics.notes))?;
    writeln!(out)?;
    let mut table = traffic_table();
    for status in &services {
        traffic_rows(&mut table, status);
    }
    traffic_row(
        &mut table,
        "total".to_owned(),
        statistics.counters,
        statistics.rates,
    );
    Ok(table.write(out)?)
}

fn that_occurred(counters: BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    counters
        .into_iter()
        .filter(|(_, count)| *count != 0)
        .collect()
}

fn write_counters(
    out: &mut dyn Write,
    [name, unit]: [&'static str; 2],
    counters: &BTreeMap<String, u64>,
) -> Result<(), Halt> {
    let columns = [
        (name, Side::Left),
        (unit, Side::Right),
        ("MEANING", Side::Left),
    ];
    let mut table = Table::new(&columns);
    for (name, count) in counters {
        table.row([name.clone(), count.to_string(), meaning(name).to_owned()]);
    }
    if table.is_empty() {
        table.row(["none".to_owned(), "0".to_owned()]);
    }
    Ok(table.write(out)?)
}

/// The head of a traffic table: totals since the last zeroing, then rates per second.
pub(super) fn traffic_table() -> Table {
    Table::new(&[
        ("SERVICE, SERVER", Side::Left),
        ("CONNECTIONS", Side::Right),
        ("PACKETS IN", Side::Right),
        ("OUT", Side::Right),
        ("BYTES IN", Side::Right),
        ("OUT", Side::Right),
        ("CONNECTIONS/S", Side::Right),
        ("PACKETS IN/S", Side::Right),
        ("OUT/S", Side::Right),
        ("BYTES IN/S", Side::Right),
        ("OUT/S", Side::Right),
    ])
}

/// A service, and below it its servers.
pub(super) fn traffic_rows(table: &mut Table, status: &ServiceStatus) {
    let key = status.service.key.to_string();
    traffic_row(table, key, status.counters, status.rates);
    for server in &status.servers {
        let name = format!("  {}", server.server.at);
        traffic_row(table, name, server.counters, server.rates);
    }
}

fn traffic_row(table: &mut Table, name: String, counters: Counters, rates: Rates) {
    let numbers = [
        counters.connections,
        counters.in_packets,
        counters.out_packets,
        counters.in_bytes,
        counters.out_bytes,
        rates.connections,
        rates.in_packets,
        rates.out_packets,
        rates.in_bytes,
        rates.out_bytes,
    ];
    let numbers = numbers.iter().map(ToString::to_string);
    table.row(std::iter::once(name).chain(numbers));
}

#[cfg(test)]
mod tests {
    use shunt_datapath::verdict::NAMES;
    use shunt_model::outcome::MEANINGS;

    #[test]
    fn each_counter_has_a_meaning_and_a_line_in_the_reference() {
        let reference = include_str!("../../../docs/reference/counters.md");
        let names: Vec<_> = MEANINGS.iter().map(|(name, _)| *name).collect();
        let lines = reference.lines();
        let lines = lines.filter_map(|line| line.strip_prefix("| `")?.split_once("` |"));
        let listed: Vec<_> = lines.map(|(name, _)| name).collect();

        assert_eq!(names, NAMES.map(|(_, name)| name));
        assert_eq!(listed, names);
    }
}
