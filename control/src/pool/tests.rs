//! Filled by the branch that proves the schedulers.
