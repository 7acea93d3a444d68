//! Packet cases: one sentence, tables, frames in, verdicts and frames out.
//!
//! The same list runs on the host (`datapath/tests/packet_cases.rs`) and in the kernel
//! (`daemon/tests/kernel_cases.rs`).

#![allow(dead_code)] // Each of the two test programs uses its part.

mod across;
mod answers;
mod calls;
mod claims;
mod connections;
mod devices;
mod every_port;
pub(crate) mod farm;
mod fragments;
mod here;
mod hostile;
mod icmp;
mod introduced;
pub(crate) mod methods;
mod origins;
pub(crate) mod packet;
mod persistence;
mod schedulers;
mod sctp;
mod secured;
mod settings;
pub(crate) mod translated;
pub(crate) mod tunnels;

use shunt_datapath::host::{Hook, HostFrame, HostTables};
use shunt_datapath::verdict::Verdict;

use packet::Packet;

pub(crate) struct Case {
    pub sentence: String,
    pub tables: HostTables,
    pub steps: Vec<Step>,
}

pub(crate) enum Step {
    Frame(Box<Given>),
    /// Time passes.
    Wait(u32),
    /// The daemon changes the tables.
    Change(fn(&mut HostTables)),
    /// A condition, in words and as a test.
    Holds(String, Box<dyn Fn(&HostTables) -> bool>),
}

/// A frame, and its outcome.
pub(crate) struct Given {
    pub frame: Vec<u8>,
    pub verdict: Verdict,
    /// The frame as it leaves.
    pub out: Vec<u8>,
    /// The only hook that has this outcome.
    pub hook: Option<Hook>,
    /// Payload bytes of a segment, for a GSO frame.
    pub segment: usize,
}

/// All cases.
pub(crate) fn all() -> Vec<Case> {
    let mut cases = methods::cases();
    cases.extend(across::cases());
    cases.extend(answers::cases());
    cases.extend(calls::cases());
    cases.extend(claims::cases());
    cases.extend(connections::cases());
    cases.extend(devices::cases());
    cases.extend(every_port::cases());
    cases.extend(fragments::cases());
    cases.extend(here::cases());
    cases.extend(hostile::cases());
    cases.extend(icmp::cases());
    cases.extend(introduced::cases());
    cases.extend(origins::cases());
    cases.extend(persistence::cases());
    cases.extend(schedulers::cases());
    cases.extend(sctp::cases());
    cases.extend(secured::cases());
    cases.extend(settings::cases());
    cases.extend(translated::cases());
    cases.extend(tunnels::cases());
    cases
}

pub(crate) fn case(sentence: impl Into<String>, tables: HostTables) -> Case {
    Case {
        sentence: sentence.into(),
        tables,
        steps: Vec::new(),
    }
}

impl Case {
    /// A packet comes, and leaves as `out`, without the tags that it came with.
    pub(crate) fn turns(self, packet: &Packet, verdict: Verdict, out: &Packet) -> Self {
        let out = out.clone().tags(&[]);
        self.given(packet.bytes(), verdict, out.bytes(), None, 0)
    }

    /// A packet comes, and is left unchanged.
    pub(crate) fn leaves(self, packet: &Packet, verdict: Verdict) -> Self {
        self.leaves_bytes(packet.bytes(), verdict)
    }

    pub(crate) fn leaves_bytes(self, frame: Vec<u8>, verdict: Verdict) -> Self {
        self.given(frame.clone(), verdict, frame, None, 0)
    }

    pub(crate) fn given(
        mut self,
        frame: Vec<u8>,
        verdict: Verdict,
        out: Vec<u8>,
        hook: Option<Hook>,
        segment: usize,
    ) -> Self {
        self.steps.push(Step::Frame(Box::new(Given {
            frame,
            verdict,
            out,
            hook,
            segment,
        })));
        self
    }

    pub(crate) fn waits(mut self, ticks: u32) -> Self {
        self.steps.push(Step::Wait(ticks));
        self
    }

    pub(crate) fn changes(mut self, change: fn(&mut HostTables)) -> Self {
        self.steps.push(Step::Change(change));
        self
    }

    pub(crate) fn holds(
        mut self,
        what: impl Into<String>,
        test: impl Fn(&HostTables) -> bool + 'static,
    ) -> Self {
        self.steps.push(Step::Holds(what.into(), Box::new(test)));
        self
    }
}

impl Given {
    /// The frame as this hook gets it; `None` if the step is for the other hook.
    pub(crate) fn on(&self, hook: Hook) -> Option<HostFrame> {
        if self.hook.is_some_and(|only| only != hook) {
            return None;
        }
        let mut frame = HostFrame::new(hook, &self.frame);
        frame.segment = self.segment;
        Some(frame)
    }
}
