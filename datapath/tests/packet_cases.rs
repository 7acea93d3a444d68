//! Runs the packet cases on the host.

// A test may panic: that is how it fails.
#![allow(clippy::arithmetic_side_effects, clippy::indexing_slicing)]
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic)]

mod cases;

use std::fmt::Write;

use cases::packet::{Packet, UDP, opening};
use cases::{Case, Step, farm};
use shunt_datapath::entry::method;
use shunt_datapath::host::{Hook, HostFrame};
use shunt_datapath::verdict::{Pass, Verdict};

#[test]
fn every_packet_becomes_what_its_case_says() {
    let mut faults = Vec::new();
    let (mut number, mut packets) = (0, 0);
    for hook in [Hook::Xdp, Hook::Tc] {
        let on_the_host = cases::tunnels::of_many().into_iter();
        let on_the_host = on_the_host.chain(cases::methods::beyond());
        for case in cases::all().into_iter().chain(on_the_host) {
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

/// Before tc sees a socket buffer, the kernel moves the outermost tag out of its bytes.
#[test]
fn tag_beside_a_socket_buffer_is_as_one_in_its_bytes() {
    const PRESENT: u32 = 1 << 16;
    let tables = farm::one(false, UDP, &farm::server(method::ROUTE, false));
    let packet = opening(UDP, farm::client(false), farm::virtual_end(false));
    let run = |tag: u32, packet: &Packet| {
        let mut frame = HostFrame::new(Hook::Tc, &packet.bytes());
        frame.beside = tag;
        let verdict = tables.run(&mut frame);
        (verdict, frame.beside, frame.bytes().to_vec())
    };
    let out = packet.clone().macs(7, 3).ttl(63).bytes();
    let tagged = Verdict::Pass(Pass::Tagged);

    let of_a_vlan = run(PRESENT | 0x2064, &packet);
    assert_eq!(of_a_vlan, (tagged, PRESENT | 0x2064, packet.bytes()));
    let inner = packet.clone().tags(&[0x8100]);
    let urgent = run(PRESENT | 0x2000, &inner);
    assert_eq!(urgent, (tagged, PRESENT | 0x2000, inner.bytes()));
    let sent = Verdict::Send(farm::TO_SERVER);
    for tag in [0, PRESENT, PRESENT | 0xe000] {
        assert_eq!(run(tag, &packet), (sent, 0, out.clone()), "{tag:#x}");
    }
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
