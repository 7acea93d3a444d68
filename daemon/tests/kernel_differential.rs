//! Random and mutated frames over random tables: the kernel's two hooks against the host.
//!
//! 200,000 frames a hook and run; `SHUNT_FRAMES` sets another number. A fault says the seed of its
//! round, which `SHUNT_SEED` runs again as the first, and the frame.

#[path = "../../datapath/tests/cases/mod.rs"]
mod cases;
mod kernel;
mod random;

use std::env;

use cases::Step;
use kernel::{Kernel, action, hex};
use random::{Random, mutated, tables};
use shunt_datapath::host::{HELD_BYTES, Hook, HostFrame, HostTables};
use shunt_datapath::verdict::Verdict;

/// Frames between two sets of tables.
const ROUND: u64 = 400;
/// Frames between two leaps of time.
const LEAP: u64 = 40;

fn number(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

#[test]
fn host_and_kernel_do_the_same_with_any_frame() {
    if let Some(why) = kernel::missing() {
        println!("skipped: {why}");
        return;
    }
    kernel::alone().expect("a network of its own");
    let frames = known_frames();
    let total = number("SHUNT_FRAMES").unwrap_or(200_000);
    let mut seed = number("SHUNT_SEED").unwrap_or(0x5eed_0001);
    for hook in [Hook::Xdp, Hook::Tc] {
        let mut kernel = Kernel::load(random::sizes(), random::SEED).expect("the director");
        let (mut compared, mut refused, mut verdicts) = (0, 0, [0u64; 5]);
        while compared < total {
            let mut random = Random::new(seed);
            let tables = tables(&mut random);
            kernel.reset(&tables).expect("the kernel's maps");
            for turn in 0..ROUND {
                if turn % LEAP == LEAP - 1 {
                    tables.age([1, 11, 31, 61, 121, 301, 901][random.below(7)]);
                    kernel.upload(&tables).expect("the kernel's maps");
                }
                let frame = mutated(&mut random, &frames);
                match compare(&mut kernel, &tables, hook, &frame) {
                    Ok(None) => refused += 1,
                    Ok(Some(verdict)) => {
                        compared += 1;
                        verdicts[place(verdict)] += 1;
                    }
                    Err(fault) => {
                        panic!(
                            "{hook:?}, SHUNT_SEED={seed}, turn {turn}: {fault}\n  in     {}",
                            hex(&frame)
                        )
                    }
                }
            }
            let difference = kernel.deep_difference(&tables).expect("the kernel's maps");
            assert_eq!(difference, None, "{hook:?}, SHUNT_SEED={seed}");
            seed += 1;
        }
        println!("{hook:?}: {compared} frames, no difference; {refused} that a test run refuses");
        println!("  pass, send, bounce, hold, drop: {verdicts:?}");
        // A run that only ever passed would prove nothing.
        for place in [0, 1, 2, 3, 4] {
            assert!(
                verdicts[place] * 1000 > compared,
                "too few of a kind: {verdicts:?}"
            );
        }
    }
}

fn place(verdict: Verdict) -> usize {
    match verdict {
        Verdict::Pass(_) => 0,
        Verdict::Send(_) => 1,
        Verdict::Bounce(_) => 2,
        Verdict::Hold => 3,
        Verdict::Drop(_) => 4,
    }
}

/// The frames of all cases: those that go somewhere, and those that pass.
fn known_frames() -> [Vec<Vec<u8>>; 2] {
    let mut frames = [Vec::new(), Vec::new()];
    for step in cases::all().into_iter().flat_map(|case| case.steps) {
        if let Step::Frame(given) = step
            && given.frame.len() <= HELD_BYTES
        {
            let passes = matches!(given.verdict, Verdict::Pass(_));
            frames[usize::from(passes)].push(given.frame);
        }
    }
    for frames in &mut frames {
        frames.sort();
        frames.dedup();
    }
    frames
}

/// What both did with a frame, or how they differ; `None` if there can be no such test run.
fn compare(
    kernel: &mut Kernel,
    tables: &HostTables,
    hook: Hook,
    bytes: &[u8],
) -> Result<Option<Verdict>, String> {
    let Some((done, out)) = kernel
        .run(hook, bytes, 0)
        .map_err(|error| error.to_string())?
    else {
        return Ok(None);
    };
    let mut frame = HostFrame::new(hook, bytes);
    let verdict = tables.run(&mut frame);
    if done != action(hook, verdict) {
        return Err(format!("host {verdict:?}, kernel {done}"));
    }
    if out != frame.bytes() {
        let host = hex(frame.bytes());
        return Err(format!(
            "{verdict:?}\n  host   {host}\n  kernel {}",
            hex(&out)
        ));
    }
    if verdict == Verdict::Hold {
        let held = kernel.held().map_err(|error| error.to_string())?;
        // Without a priority that it came with.
        if held.as_ref().map(|(_, bytes)| bytes.as_slice()) != Some(frame.bytes()) {
            return Err(format!("held {held:?}"));
        }
    }
    match kernel.difference(tables) {
        Some(difference) => Err(format!("{verdict:?}: {difference}")),
        None => Ok(Some(verdict)),
    }
}
