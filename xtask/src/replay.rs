//! `cargo xtask replay`: replays what `shunt inputs` printed, each input with its outputs.

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};
use shunt_control::node::recording::{Head, Recorded};

/// The recording.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// A file with the output of `shunt inputs`, of a daemon that began without saved state
    file: PathBuf,
}

/// Prints the inputs and outputs. Fails if the recording does not replay.
pub(crate) fn run(options: &Options) -> Result<()> {
    let text = fs::read_to_string(&options.file).context("cannot read the recording")?;
    let mut lines = text.lines();
    let head: Head = serde_json::from_str(lines.next().context("the recording is empty")?)
        .context("line 1 is no beginning of a recording")?;
    let begun = Instant::now();
    let (mut node, outputs) = head.node(begun)?;
    for output in outputs {
        println!("    {output:?}");
    }
    for (number, line) in lines.enumerate() {
        let recorded: Recorded = serde_json::from_str(line)
            .with_context(|| format!("line {} is no input", number + 2))?;
        println!(
            "{:.3} s  {:?}",
            recorded.after.as_secs_f64(),
            recorded.input
        );
        for output in recorded.replay(number, &mut node, begun)? {
            println!("    {output:?}");
        }
    }
    Ok(())
}
