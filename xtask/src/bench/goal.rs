//! A figure beside the most that it may be.

use serde::Serialize;

/// A figure with its goal, which is the most that it may be.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    what: String,
    figure: f64,
    unit: &'static str,
    goal: f64,
    met: bool,
}

impl Row {
    pub(super) fn new(what: &str, figure: f64, unit: &'static str, goal: f64) -> Self {
        let met = figure <= goal;
        let verdict = if met { "met" } else { "MISSED" };
        println!("{what:<76} {figure:>8.2} {unit:<8} goal {goal:>5.2} {verdict}");
        Self {
            what: what.to_owned(),
            figure,
            unit,
            goal,
            met,
        }
    }
}
