//! The packet driver's user side: which target, which traffic, how many packets, how long.

use std::time::Duration;

use anyhow::{Context, Result};
use aya::maps::{Array, Map, MapData, ProgramArray};
use aya::programs::{ProgramFd, TestRun, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader, Pod};
use nix::time::{ClockId, clock_gettime};

use super::traffic::Traffic;

/// [`Traffic`] as a map's value.
#[repr(transparent)]
#[derive(Clone, Copy)]
struct Value(Traffic);
// SAFETY: integers only, no padding.
unsafe impl Pod for Value {}

/// What one packet came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub verdict: u32,
    /// Bytes of the frame afterwards.
    pub length: usize,
}

/// The loaded bench object.
pub(super) struct Driver {
    ebpf: Ebpf,
    traffic: Array<MapData, Value>,
    target: ProgramArray<MapData>,
}

/// What the driver's own time is measured with.
pub(super) const NOTHING: &str = "nothing";
/// The floors.
pub(super) const FLOORS: [&str; 2] = ["macswap", "lru_array"];

impl Driver {
    /// Loads it. The reference remembers `flows` flows of each family.
    pub(super) fn new(flows: u32) -> Result<Self> {
        let mut loader = EbpfLoader::new();
        loader
            .map_max_entries("SEEN4", flows)
            .map_max_entries("SEEN6", flows);
        let mut ebpf = loader
            .load(shunt_ebpf::BENCH)
            .context("cannot load the bench's programs")?;
        let all: Vec<String> = ebpf.programs().map(|(name, _)| name.to_owned()).collect();
        for name in all {
            let program: &mut Xdp = ebpf
                .program_mut(&name)
                .with_context(|| format!("no program {name}"))?
                .try_into()?;
            program
                .load()
                .with_context(|| format!("cannot load {name}"))?;
        }
        let mut map = |name: &str| -> Result<Map> {
            ebpf.take_map(name)
                .with_context(|| format!("no map {name}"))
        };
        let traffic = Array::try_from(map("TRAFFIC")?)?;
        let target = ProgramArray::try_from(map("TARGET")?)?;
        Ok(Self {
            ebpf,
            traffic,
            target,
        })
    }

    pub(super) fn program(&self, name: &str) -> Result<&Xdp> {
        let program = self
            .ebpf
            .program(name)
            .with_context(|| format!("no program {name}"))?;
        Ok(program.try_into()?)
    }

    pub(super) fn program_mut(&mut self, name: &str) -> Result<&mut Xdp> {
        let program = self
            .ebpf
            .program_mut(name)
            .with_context(|| format!("no program {name}"))?;
        Ok(program.try_into()?)
    }

    pub(super) fn map_mut(&mut self, name: &str) -> Result<&mut Map> {
        self.ebpf
            .map_mut(name)
            .with_context(|| format!("no map {name}"))
    }

    /// What the driver calls from here on.
    pub(super) fn aim(&mut self, program: &ProgramFd) -> Result<()> {
        self.target
            .set(0, program, 0)
            .context("the driver cannot call this program")
    }

    /// As `aim`, for a program of the bench's own.
    pub(super) fn aim_at(&mut self, name: &str) -> Result<()> {
        let program = self
            .ebpf
            .program(name)
            .with_context(|| format!("no program {name}"))?;
        let program: &Xdp = program.try_into()?;
        let fd = program
            .fd()?
            .try_clone()
            .context("cannot copy a descriptor")?;
        self.aim(&fd)
    }

    pub(super) fn set(&mut self, traffic: &Traffic) -> Result<()> {
        self.traffic
            .set(0, Value(*traffic), 0)
            .context("cannot say what traffic is wanted")
    }

    /// Where the traffic has come to.
    pub(super) fn sequence(&self) -> Result<u64> {
        Ok(self.traffic.get(&0, 0)?.0.sequence)
    }

    /// So many packets; the thread's own time for all of them.
    pub(super) fn run(&self, traffic: &Traffic, packets: u32) -> Result<(Duration, Outcome)> {
        let program = self.program("drive")?;
        let frame = bytes(traffic);
        let mut after = [0u8; 2048];
        let options = TestRunOptions {
            data_in: Some(&frame),
            data_out: Some(&mut after),
            repeat: packets,
            ..TestRunOptions::default()
        };
        let before = now()?;
        let result = program.test_run(options).context("the driver cannot run")?;
        let time = now()?.saturating_sub(before);
        let outcome = Outcome {
            verdict: result.return_value,
            length: result.data_size_out as usize,
        };
        Ok((time, outcome))
    }
}

/// A frame for the first run to begin with.
pub(super) fn bytes(traffic: &Traffic) -> Vec<u8> {
    let all = traffic.template.iter().flat_map(|word| word.to_ne_bytes());
    all.take(traffic.length as usize).collect()
}

fn now() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}
