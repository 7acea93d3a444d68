//! Rates of turns, and the table of their medians.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use shunt_lab::LoadReport;

use super::super::figures::Figures;
use super::target::Target;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    /// On connections that are kept.
    Requests,
    /// A connection for each request, closed by the server.
    Connections,
}

impl Kind {
    pub(super) const ALL: [Kind; 2] = [Kind::Requests, Kind::Connections];

    fn title(self) -> &'static str {
        match self {
            Kind::Requests => "requests per second, connections kept",
            Kind::Connections => "connections per second, one request each",
        }
    }
}

/// What one target did in one round.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    answered: u64,
    failed: u64,
    /// Good answers a second.
    rate: f64,
    p50: Duration,
    p99: Duration,
    /// Of all processors of the machine.
    spent: Duration,
}

impl Turn {
    pub(super) fn of(report: &LoadReport, spent: Duration) -> Turn {
        Turn {
            answered: report.ok,
            failed: report.failed(),
            rate: report.rate(),
            p50: report.latency.percentile(50.0),
            p99: report.latency.percentile(99.0),
            spent,
        }
    }

    fn processor_seconds_a_thousand(&self) -> f64 {
        self.spent.as_secs_f64() * 1000.0 / self.answered.max(1) as f64
    }
}

/// What one target came to over all rounds.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    pub target: &'static str,
    pub kind: Kind,
    /// Good answers a second.
    pub rate: Figures,
    /// To the direct path of the same round, the median of all rounds.
    pub to_direct: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    /// What the whole machine spent, and whatever else ran on it.
    pub processor_seconds_a_thousand: f64,
    pub answered: u64,
    pub failed: u64,
}

/// A row for each target and kind, kinds together.
pub(super) fn rows(targets: &[Target], turns: &BTreeMap<(Target, Kind), Vec<Turn>>) -> Vec<Row> {
    let of = |target, kind| turns.get(&(target, kind)).map_or(&[][..], Vec::as_slice);
    let mut rows = Vec::new();
    for kind in Kind::ALL {
        let direct = of(Target::Direct, kind);
        for target in targets {
            let own = of(*target, kind);
            let figures =
                |value: fn(&Turn) -> f64| Figures::of(&own.iter().map(value).collect::<Vec<_>>());
            let micros = |time: Duration| time.as_secs_f64() * 1e6;
            rows.push(Row {
                target: target.name(),
                kind,
                rate: figures(|turn| turn.rate),
                to_direct: ratio(own, direct),
                p50_us: micros(median(own, |turn| turn.p50)),
                p99_us: micros(median(own, |turn| turn.p99)),
                processor_seconds_a_thousand: figures(Turn::processor_seconds_a_thousand).median,
                answered: own.iter().map(|turn| turn.answered).sum(),
                failed: own.iter().map(|turn| turn.failed).sum(),
            });
        }
    }
    rows
}

/// What else the machine does changes from round to round, so that each has its own base.
fn ratio(own: &[Turn], direct: &[Turn]) -> f64 {
    let pairs = own.iter().zip(direct);
    let ratios: Vec<f64> = pairs.map(|(own, direct)| own.rate / direct.rate).collect();
    Figures::of(&ratios).median
}

fn median(turns: &[Turn], value: fn(&Turn) -> Duration) -> Duration {
    let seconds: Vec<f64> = turns.iter().map(|turn| value(turn).as_secs_f64()).collect();
    Duration::from_secs_f64(Figures::of(&seconds).median)
}

/// The rows of a kind as text.
pub(super) fn table(kind: Kind, rows: &[Row]) -> String {
    let mut text = format!(
        "{}\n  {:<26} {:>8}  {:<16} {:>8} {:>9} {:>9} {:>14}",
        kind.title(),
        "target",
        "a second",
        "quartiles",
        "/ direct",
        "p50, ms",
        "p99, ms",
        "CPU s / 1,000"
    );
    for row in rows.iter().filter(|row| row.kind == kind) {
        let quartiles = format!("{:.0} to {:.0}", row.rate.quarter, row.rate.three_quarters);
        text.push_str(&format!(
            "\n  {:<26} {:>8.0}  {quartiles:<16} {:>8.2} {:>9.2} {:>9.2} {:>14.3}",
            row.target,
            row.rate.median,
            row.to_direct,
            row.p50_us / 1000.0,
            row.p99_us / 1000.0,
            row.processor_seconds_a_thousand
        ));
        if row.failed > 0 {
            text.push_str(&format!("  {} FAILED", row.failed));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(rate: f64) -> Turn {
        Turn {
            answered: 2000,
            failed: 0,
            rate,
            p50: Duration::from_micros(1500),
            p99: Duration::from_millis(4),
            spent: Duration::from_millis(500),
        }
    }

    /// The machine was half as fast in the second round: no target is slower for that.
    fn turns() -> BTreeMap<(Target, Kind), Vec<Turn>> {
        let direct = [1000.0, 500.0, 1000.0].map(turn).to_vec();
        let mut proxy = [800.0, 400.0, 700.0].map(turn).to_vec();
        proxy[1].failed = 3;
        [
            ((Target::Direct, Kind::Requests), direct),
            ((Target::HaProxy, Kind::Requests), proxy),
        ]
        .into()
    }

    #[test]
    fn ratios_are_to_the_direct_path_of_the_same_round() {
        let rows = rows(&[Target::Direct, Target::HaProxy], &turns());

        assert_eq!(rows[0].to_direct, 1.0);
        assert_eq!(rows[1].to_direct, 0.8);
        assert_eq!(rows[1].rate.median, 700.0);
        assert_eq!(rows[1].processor_seconds_a_thousand, 0.25);
        assert_eq!((rows[1].answered, rows[1].failed), (6000, 3));
    }

    #[test]
    fn a_table_has_one_kind_and_names_what_failed() {
        let rows = rows(&[Target::Direct, Target::HaProxy], &turns());

        let text = table(Kind::Requests, &rows);

        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4, "{text}");
        let words: Vec<&str> = lines[3].split_whitespace().collect();
        assert_eq!(
            words,
            [
                "HAProxy,", "TCP", "mode", "700", "550", "to", "750", "0.80", "1.50", "4.00",
                "0.250", "3", "FAILED"
            ]
        );
        assert!(!lines[2].contains("FAILED"));
    }
}
