//! The names of the counters of outcomes.

use super::COUNTERS;

/// The kind of a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// A packet that was passed, sent, held or answered.
    Verdict,
    /// A dropped packet, by its reason.
    Drop,
    /// An event that is no outcome.
    Note,
}

/// The name of each counter, in its place.
pub const NAMES: [(Class, &str); COUNTERS as usize] = [
    (Class::Verdict, "pass-not-ip"),
    (Class::Verdict, "pass-not-ours"),
    (Class::Verdict, "pass-not-understood"),
    (Class::Verdict, "pass-not-opening"),
    (Class::Verdict, "pass-local"),
    (Class::Verdict, "pass-icmp"),
    (Class::Verdict, "pass-no-rest"),
    (Class::Verdict, "pass-bypassed"),
    (Class::Verdict, "pass-lost-fragment"),
    (Class::Verdict, "pass-other-host"),
    (Class::Verdict, "pass-tagged"),
    (Class::Verdict, "pass-wrong-device"),
    (Class::Verdict, "sent"),
    (Class::Verdict, "held"),
    (Class::Verdict, "answered-unreachable"),
    (Class::Verdict, "answered-too-big"),
    (Class::Verdict, "answered-time-exceeded"),
    (Class::Verdict, "answered-reset"),
    (Class::Drop, "server-gone"),
    (Class::Drop, "no-next-hop"),
    (Class::Drop, "table-full"),
    (Class::Drop, "no-server"),
    (Class::Drop, "expired"),
    (Class::Drop, "too-big"),
    (Class::Drop, "bad-checksum"),
    (Class::Drop, "bad-source"),
    (Class::Drop, "no-room"),
    (Class::Drop, "lost-fragment"),
    (Class::Drop, "bad-fragment"),
    (Class::Drop, "internal"),
    (Class::Drop, "no-way-back"),
    (Class::Drop, "defence"),
    (Class::Drop, "no-local-port"),
    (Class::Drop, "no-translation"),
    (Class::Drop, "cut-checksum"),
    (Class::Drop, "untranslatable"),
    (Class::Drop, "no-call-id"),
    (Class::Drop, "not-carried"),
    (Class::Note, "opened"),
    (Class::Note, "untracked"),
    (Class::Note, "displaced"),
    (Class::Note, "reused"),
    (Class::Note, "icmp-related"),
    (Class::Note, "fragment-followed"),
    (Class::Note, "route-asked"),
    (Class::Note, "caller-served"),
];
