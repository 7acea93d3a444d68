//! Runs the packet cases on the host.

// A test may panic: that is how it fails.
#![allow(clippy::arithmetic_side_effects, clippy::indexing_slicing)]
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic)]

mod cases;

use std::fmt::Write;

use cases::{Case, Step};
use shunt_datapath::host::Hook;

#[test]
fn every_packet_becomes_what_its_case_says() {
    let mut faults = Vec::new();
    let (mut number, mut packets) = (0, 0);
    for hook in [Hook::Xdp, Hook::Tc] {
        for case in cases::all().into_iter().chain(cases::tunnels::of_many()) {
            number += 1;
            packets += run(case, hook, &mut faults);
        }
    }
    println!("{number} cases, {packets} packets");
    assert!(
        faults.is_empty(),
        "{} faults:\n{}",
        faults.len(),
        faults.join("\n")
    );
}

fn run(mut case: Case, hook: Hook, faults: &mut Vec<String>) -> usize {
    let mut packets = 0;
    for (index, step) in case.steps.into_iter().enumerate() {
        let place = || format!("{hook:?}: {} (step {index})", case.sentence);
        match step {
            Step::Wait(ticks) => case.tables.age(ticks),
            Step::Change(change) => change(&mut case.tables),
            Step::Holds(what, test) => {
                if !test(&case.tables) {
                    faults.push(format!("{}: not so: {what}", place()));
                }
            }
            Step::Frame(given) => {
                let Some(mut frame) = given.on(hook) else {
                    continue;
                };
                packets += 1;
                let verdict = case.tables.run(&mut frame);
                if verdict != given.verdict || frame.bytes() != given.out {
                    faults.push(format!(
                        "{}\n  wanted {:?}, got {verdict:?}\n  in     {}\n  wanted {}\n  got    {}",
                        place(),
                        given.verdict,
                        hex(&given.frame),
                        hex(&given.out),
                        hex(frame.bytes())
                    ));
                }
            }
        }
    }
    packets
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}
