//! Medians and quartiles, and the table that is printed of them.

use std::time::Duration;

use serde::Serialize;

/// Nanoseconds a packet, over all rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Figures {
    pub median: f64,
    pub quarter: f64,
    pub three_quarters: f64,
}

impl Figures {
    pub(super) fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let [quarter, median, three_quarters] = [0.25, 0.5, 0.75].map(|at| quantile(&sorted, at));
        Self {
            median,
            quarter,
            three_quarters,
        }
    }
}

/// Between the two neighbours, in proportion.
fn quantile(sorted: &[f64], at: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else {
        return 0.0;
    };
    let place = at * last as f64;
    let below = place as usize;
    let above = (below + 1).min(last);
    sorted[below] + (sorted[above] - sorted[below]) * (place - below as f64)
}

pub(super) fn a_packet(time: Duration, packets: u32) -> f64 {
    time.as_secs_f64() * 1e9 / f64::from(packets)
}

/// What one target came to in one scenario.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    pub scenario: String,
    pub target: String,
    pub ns: Figures,
    /// The driver's own time, already taken off.
    pub driver_ns: f64,
    pub to_lru_array: f64,
    /// None where a MAC swap took less than can be told from nothing.
    pub to_macswap: Option<f64>,
    pub goal: Option<f64>,
    pub met: Option<bool>,
    /// How many of the packets had the outcome that they should, in percent.
    pub as_expected: f64,
}

pub(super) const HEAD: &str = "  target                       ns a packet  quartiles      \
                        / lru_array  / macswap   goal";

impl Row {
    pub(super) fn line(&self) -> String {
        let verdict = match (self.goal, self.met) {
            (Some(goal), Some(true)) => format!("{goal:>6.2} met"),
            (Some(goal), _) => format!("{goal:>6.2} MISSED"),
            _ => String::new(),
        };
        let others = if self.as_expected > 99.99 {
            String::new()
        } else {
            format!("  only {:.1} % as expected", self.as_expected)
        };
        let ns = self.ns;
        let to_macswap = self
            .to_macswap
            .map_or("-".to_owned(), |ratio| format!("{ratio:.1}"));
        let quartiles = format!("{:.1} to {:.1}", ns.quarter, ns.three_quarters);
        format!(
            "  {:<28} {:>11.1}  {quartiles:<15} {:>10.2}  {to_macswap:>9} {verdict}{others}",
            self.target, ns.median, self.to_lru_array
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_lie_between_neighbours() {
        let figures = Figures::of(&[4.0, 1.0, 3.0, 2.0]);

        assert_eq!(
            figures,
            Figures {
                median: 2.5,
                quarter: 1.75,
                three_quarters: 3.25
            }
        );
    }

    #[test]
    fn a_figure_of_nothing_is_zero() {
        assert_eq!(Figures::of(&[]).median, 0.0);
    }
}
