//! Samples of all counters, for the rates. Another thread reads them every two seconds.

use shunt_control::node::Input;
use shunt_model::Counters;
use tracing::error;

use super::Shell;
use crate::chain::chain;
use crate::kernel::traffic;

impl Shell {
    /// Starts reading all counters on another thread. The caller gives them to [`Self::sampled`].
    pub(crate) fn sample(&self) -> tokio::task::JoinHandle<Vec<Counters>> {
        let (shared, end) = (
            self.tables.shared.clone(),
            self.node.forward().server_ids_end(),
        );
        tokio::task::spawn_blocking(move || {
            traffic::read(&shared.traffic, end).unwrap_or_else(|error| {
                error!(error = chain(&error), "rates not measured");
                Vec::new()
            })
        })
    }

    pub(crate) fn sampled(&mut self, counters: Vec<Counters>) {
        self.handle(Input::Sampled(counters));
    }

    pub(crate) fn is_taking_samples(&self) -> bool {
        self.node.samples().is_taking()
    }

    /// Processes a piece of the sample.
    pub(crate) fn take_samples(&mut self) {
        self.handle(Input::TakeSample);
    }
}
