//! The running director with real TCP and UDP stacks: clients, router, director and real servers
//! in namespaces, `shuntd` as its own process, and the operator's commands.
//!
//! Each test has a bed and a daemon of its own. Nothing sleeps; all waits have limits.

mod across;
mod bed;
mod big;
mod callers;
mod calls;
mod cells;
mod change;
mod director;
mod ftp;
mod here;
mod hops;
mod introduced;
mod listing;
mod marks;
mod netfilter;
mod packets;
mod peers;
mod persistence;
mod reach;
mod refusal;
mod restart;
mod sctp;
mod settings;
mod size;
mod spread;
mod start;
mod state;
mod table;
mod toa;
mod translated;
