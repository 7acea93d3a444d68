//! Runs the packet cases in the kernel, and compares it with the host after every packet.

#[path = "../../datapath/tests/cases/mod.rs"]
mod cases;
mod kernel;

use cases::{Case, Given, Step};
use kernel::{Kernel, action, hex};
use shunt_datapath::host::{Hook, HostTables, Sizes};
use shunt_datapath::verdict::{Pass, Verdict};

#[test]
fn the_kernel_does_what_the_cases_say() {
    if let Some(why) = kernel::missing() {
        println!("skipped: {why}");
        return;
    }
    kernel::alone().expect("a network of its own");
    let mut kernels: Vec<(usize, Kernel)> = Vec::new();
    let mut faults = Vec::new();
    let (mut number, mut packets) = (0, 0);
    for hook in [Hook::Xdp, Hook::Tc] {
        for case in cases::all() {
            let flows = case.tables.flows4.len() / 8;
            let found = kernels.iter().position(|(size, _)| *size == flows);
            let at = found.unwrap_or_else(|| {
                let sizes = Sizes {
                    flows,
                    ..Sizes::default()
                };
                let kernel = Kernel::load(sizes, case.tables.shape.seed).expect("the director");
                kernels.push((flows, kernel));
                kernels.len() - 1
            });
            number += 1;
            packets += run(&mut kernels[at].1, case, hook, &mut faults);
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

#[test]
fn frames_pass_counted_where_the_program_for_them_is_missing() {
    if let Some(why) = kernel::missing() {
        println!("skipped: {why}");
        return;
    }
    kernel::alone().expect("a network of its own");
    let mut kernel = Kernel::load(Sizes::default(), 1).expect("the director");
    // An ARP request, and a ping of 192.0.2.10.
    let mut arp = vec![0; 60];
    arp[12..14].copy_from_slice(&[0x08, 0x06]);
    let ping = [
        &[0; 12][..],
        &[0x08, 0x00, 0x45, 0, 0, 28, 0, 0, 0, 0, 64, 1],
        &[0x8e, 0x9a, 198, 51, 100, 9, 192, 0, 2, 10],
        &[8, 0, 0xf7, 0xff, 0, 0, 0, 0],
    ]
    .concat();

    for hook in [Hook::Xdp, Hook::Tc] {
        kernel
            .reset(&HostTables::new(Sizes::default()))
            .expect("the maps");
        let passed = action(hook, Verdict::Pass(Pass::NoRest));
        let done = kernel.run(hook, &ping, 0).expect("a run");
        assert_eq!(done, Some((passed, ping.clone())), "{hook:?}");
        assert_eq!(kernel.count("pass-icmp").expect("a counter"), 1, "{hook:?}");
    }
    kernel.forget_rest().expect("the arrays");
    for hook in [Hook::Xdp, Hook::Tc] {
        kernel
            .reset(&HostTables::new(Sizes::default()))
            .expect("the maps");
        let passed = action(hook, Verdict::Pass(Pass::NoRest));
        for frame in [&ping, &arp] {
            let done = kernel.run(hook, frame, 0).expect("a run");
            assert_eq!(done, Some((passed, frame.clone())), "{hook:?}");
        }
        let counts = ["pass-no-rest", "pass-not-ip", "pass-icmp"].map(|name| kernel.count(name));
        let counts = counts.map(|count| count.expect("a counter"));
        assert_eq!(counts, [1, 1, 0], "{hook:?}");
    }
}

fn run(kernel: &mut Kernel, mut case: Case, hook: Hook, faults: &mut Vec<String>) -> usize {
    let mut packets = 0;
    let before = faults.len();
    kernel.reset(&case.tables).expect("the kernel's maps");
    for (index, step) in case.steps.into_iter().enumerate() {
        match step {
            Step::Holds(..) => {}
            Step::Wait(ticks) => {
                case.tables.age(ticks);
                kernel.upload(&case.tables).expect("the kernel's maps");
            }
            Step::Change(change) => {
                change(&mut case.tables);
                kernel.upload(&case.tables).expect("the kernel's maps");
            }
            Step::Frame(given) => {
                if let Some(fault) = compare(kernel, &case.tables, hook, &given, &mut packets) {
                    faults.push(format!(
                        "{hook:?}: {} (step {index}): {fault}",
                        case.sentence
                    ));
                    break;
                }
            }
        }
    }
    if faults.len() == before {
        let difference = kernel
            .deep_difference(&case.tables)
            .expect("the kernel's maps");
        faults.extend(difference.map(|what| format!("{hook:?}: {}: {what}", case.sentence)));
    }
    packets
}

/// Runs a packet through both. What is wrong, if anything is.
fn compare(
    kernel: &mut Kernel,
    tables: &HostTables,
    hook: Hook,
    given: &Given,
    packets: &mut usize,
) -> Option<String> {
    let mut frame = given.on(hook)?;
    let (done, out) = kernel
        .run(hook, &given.frame, given.segment)
        .unwrap_or_else(|error| panic!("{hook:?} {}: {error}", hex(&given.frame)))?;
    *packets += 1;
    tables.run(&mut frame);
    if done != action(hook, given.verdict) {
        return Some(format!("wanted {:?}, the kernel did {done}", given.verdict));
    }
    if out != given.out {
        return Some(format!(
            "in {}\n  wanted {}\n  kernel {}",
            hex(&given.frame),
            hex(&given.out),
            hex(&out)
        ));
    }
    if given.verdict == Verdict::Hold {
        let held = kernel.held().expect("the ring");
        if held != Some((1, given.frame.clone())) {
            return Some(format!("held {held:?}"));
        }
    }
    kernel.difference(tables)
}
