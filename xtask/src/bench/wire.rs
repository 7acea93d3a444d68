//! Packets per second through a real device: a veth pair between two namespaces of the lab.
//!
//! Frames are made by `BPF_PROG_TEST_RUN` with live frames at one end, go through the director at
//! the other by native XDP, and are counted and dropped where they come back. Generator, both
//! devices, the program and the sink share one processor, so that its time is the time of all.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use aya::maps::PerCpuArray;
use aya::programs::xdp::XdpLinkId;
use aya::programs::{TestRun, TestRunAttrs, TestRunOptions, Xdp, XdpMode};
use serde::Serialize;
use shunt_lab::{Host, veth};
use shunt_model::Scheduler;

use super::director::{self, Director, Farm, Method};
use super::driver::{Driver, bytes};
use super::figures::Figures;
use super::scenario::{self, Kind, Scenario, Transport};
use super::traffic::{ACK, Fixed, SYN, Traffic, opening, traffic};

const NEAR: &str = "near";
const FAR: &str = "far";
/// Frames that are sent at once.
const BATCH: u32 = 64;

/// One target in one scenario.
#[derive(Debug, Serialize)]
pub(super) struct WireRow {
    pub scenario: String,
    pub target: String,
    /// Millions of packets a second.
    pub rate: Figures,
    /// How many came back, in percent.
    pub back: f64,
}

/// Measures every method in turn, and a MAC swap for what the wire itself costs.
pub(super) fn measure(scheduler: Scheduler, rounds: usize, turn: Duration) -> Result<Vec<WireRow>> {
    let (near, far) = (Host::new("bench-near")?, Host::new("bench-far")?);
    veth(&near, NEAR, &far, FAR)?;
    near.up(NEAR)?;
    far.up(FAR)?;
    let (near_index, far_index) = (near.link(NEAR)?.index, far.link(FAR)?.index);
    let mut ends = Ends {
        near,
        far,
        far_index,
        near_index,
        driver: Driver::new(1 << 16)?,
    };
    let sink = ends.driver.program_mut("sink")?;
    ends.near.run(|| attach(sink, near_index))?;
    let mut rows = Vec::new();
    for scenario in scenarios() {
        println!("\n{}, over veth", scenario.title());
        println!("  target                       million packets/s  quartiles     came back");
        for target in [
            None,
            Some(Method::Route),
            Some(Method::Masquerade),
            Some(Method::Tunnel),
        ] {
            let row = ends.one(&scenario, target, scheduler, rounds, turn)?;
            println!(
                "  {:<28} {:>17.3}  {:.3} to {:.3} {:>9.1} %",
                row.target, row.rate.median, row.rate.quarter, row.rate.three_quarters, row.back
            );
            rows.push(row);
        }
    }
    Ok(rows)
}

fn scenarios() -> impl Iterator<Item = Scenario> {
    let kinds = [Kind::Established, Kind::New, Kind::Connections];
    scenario::all(true).into_iter().filter(move |scenario| {
        !scenario.v6 && scenario.transport == Transport::Tcp && kinds.contains(&scenario.kind)
    })
}

struct Ends {
    near: Host,
    far: Host,
    near_index: u32,
    far_index: u32,
    driver: Driver,
}

impl Ends {
    fn one(
        &mut self,
        scenario: &Scenario,
        method: Option<Method>,
        scheduler: Scheduler,
        rounds: usize,
        turn: Duration,
    ) -> Result<WireRow> {
        // Room for every flow of a turn, so that none is refused.
        let director =
            method.map(|m| Director::new(m, Farm::usual(scheduler), 1 << 22, self.far_index));
        let mut director = director.transpose()?;
        let index = self.far_index;
        let (far, program) = match &mut director {
            Some(director) => (&self.far, director.xdp_mut()?),
            None => (&self.far, self.driver.program_mut("macswap")?),
        };
        let link = far.run(|| attach(program, index))?;
        let mut rates = Vec::new();
        let (mut sent, mut back) = (0, 0);
        let mut sequence = 0;
        for _ in 0..rounds {
            let to = Fixed {
                address: director::service(false),
                port: director::PORT,
                back: false,
            };
            if scenario.kind == Kind::Established {
                for flags in [SYN, ACK] {
                    self.send(opening(scenario, to, flags), Some(scenario.flows))?;
                }
            }
            let before = self.driver.counted()?;
            let begun = Instant::now();
            while begun.elapsed() < turn {
                self.send(traffic(scenario, to, sequence), None)?;
                sequence = self.driver.sequence()?;
            }
            let time = begun.elapsed();
            let after = self.driver.counted()?;
            sent += after[0] - before[0];
            back += after[1] - before[1];
            rates.push((after[0] - before[0]) as f64 / time.as_secs_f64() / 1e6);
        }
        let program = match &mut director {
            Some(director) => director.xdp_mut()?,
            None => self.driver.program_mut("macswap")?,
        };
        self.far
            .run(|| program.detach(link).context("cannot detach"))?;
        ensure!(sent > 0, "nothing was sent");
        Ok(WireRow {
            scenario: scenario.title(),
            target: method.map_or("macswap", Method::name).to_owned(),
            rate: Figures::of(&rates),
            back: 100.0 * back as f64 / sent as f64,
        })
    }

    /// Sends so many frames, or a hundredth of a second's worth.
    fn send(&mut self, traffic: Traffic, frames: Option<u32>) -> Result<()> {
        let traffic = Traffic {
            interface: self.near_index,
            ..traffic
        };
        self.driver.set(&traffic)?;
        let driver = &self.driver;
        self.near.run(|| {
            let frame = bytes(&traffic);
            let options = TestRunOptions {
                data_in: Some(&frame),
                repeat: frames.unwrap_or(1 << 16).next_multiple_of(BATCH),
                attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
                ..TestRunOptions::default()
            };
            driver
                .program("generate")?
                .test_run(options)
                .context("cannot send live frames")?;
            Ok(())
        })
    }
}

fn attach(program: &mut Xdp, interface: u32) -> Result<XdpLinkId> {
    program
        .attach_to_if_index(interface, XdpMode::Driver)
        .context("cannot attach by native XDP")
}

impl Driver {
    /// Frames sent, and come back.
    fn counted(&mut self) -> Result<[u64; 2]> {
        let counted = PerCpuArray::<_, u64>::try_from(self.map_mut("COUNTED")?)?;
        let sum = |at: u32| -> Result<u64> { Ok(counted.get(&at, 0)?.iter().sum()) };
        Ok([sum(0)?, sum(1)?])
    }
}
