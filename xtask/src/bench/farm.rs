//! What a new connection costs by each scheduler, in pools of 16 to 4,096 servers.
//!
//! Every packet is the SYN of another client to one IPv4 service; the servers are reached by route.
//! The tables are full, as in a flood, so that each connection takes the place of an earlier one.

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use shunt_model::{Scheduler, SchedulerFlags};

use super::director::{Director, Farm, Method};
use super::driver::{Driver, NOTHING};
use super::figures::{Figures, a_packet};
use super::scenario::{Kind, Scenario, Transport};
use super::traffic::traffic;
use super::{LOOPBACK, director, to};

/// Servers of a service.
const SIZES: [u16; 5] = [16, 64, 256, 1_024, 4_096];
/// Flows that the tables have room for.
const FLOWS: u32 = 1 << 16;
/// Packets between two compilations of the short lists: what 5 ms bring at ten millions a second.
const STRETCH: u32 = 50_000;

/// A scheduler at one size.
#[derive(Debug, Serialize)]
pub(super) struct FarmRow {
    scheduler: String,
    servers: u16,
    /// Nanoseconds a new connection.
    ns: Figures,
}

/// Measures every scheduler at every size, and prints a line for each scheduler.
pub(super) fn measure(rounds: usize, packets: u32) -> Result<Vec<FarmRow>> {
    let mut driver = Driver::new(FLOWS)?;
    let mut rows = Vec::new();
    print!("{:<10}", "scheduler");
    SIZES.iter().for_each(|size| print!("{size:>8}"));
    println!("  servers; nanoseconds a new connection");
    let large = SchedulerFlags {
        large: true,
        ..SchedulerFlags::default()
    };
    let usual = Scheduler::ALL.map(|scheduler| (scheduler, SchedulerFlags::default()));
    for (scheduler, flags) in usual.into_iter().chain([(Scheduler::Mh, large)]) {
        let name = format!("{scheduler}{}", if flags.large { " large" } else { "" });
        print!("{name:<10}");
        for servers in SIZES {
            let farm = Farm {
                scheduler,
                flags,
                servers,
                // ovf takes no more than the weight.
                weight: if scheduler == Scheduler::Ovf {
                    1 << 20
                } else {
                    1
                },
                families: &[false],
            };
            let mut director = Director::new(Method::Route, farm, FLOWS, LOOPBACK)?;
            let ns = one(&mut driver, &mut director, rounds, packets)
                .with_context(|| format!("{name}, {servers} servers"))?;
            print!("{:>8.0}", ns.median);
            rows.push(FarmRow {
                scheduler: name.clone(),
                servers,
                ns,
            });
        }
        println!();
    }
    Ok(rows)
}

fn one(
    driver: &mut Driver,
    director: &mut Director,
    rounds: usize,
    packets: u32,
) -> Result<Figures> {
    let scenario = Scenario {
        name: "new flows",
        kind: Kind::New,
        flows: 1,
        transport: Transport::Tcp,
        v6: false,
    };
    let mut sequence = 0;
    let mut turn = |driver: &mut Driver, packets| -> Result<f64> {
        let traffic = traffic(&scenario, to(&scenario), sequence);
        driver.set(&traffic)?;
        let (time, _) = driver.run(&traffic, packets)?;
        sequence = driver.sequence()?;
        Ok(a_packet(time, packets))
    };
    let mut times = Vec::new();
    let stretch = STRETCH.min(packets);
    director.compile_short_lists()?;
    driver.aim(director.program()?)?;
    turn(driver, 2 * FLOWS)?;
    let sent = |director: &director::Director| {
        let outcomes = director.outcomes().into_iter();
        outcomes
            .filter(|(name, _)| name == "sent")
            .map(|(_, n)| n)
            .sum::<u64>()
    };
    let before = sent(director);
    for _ in 0..rounds {
        driver.aim_at(NOTHING)?;
        let own = turn(driver, stretch)?;
        driver.aim(director.program()?)?;
        let stretches = packets.div_ceil(stretch);
        let mut sum = 0.0;
        for _ in 0..stretches {
            director.compile_short_lists()?;
            sum += turn(driver, stretch)?;
        }
        times.push(sum / f64::from(stretches) - own);
    }
    let expected = rounds as u64 * u64::from(packets.div_ceil(stretch) * stretch);
    let forwarded = sent(director) - before;
    ensure!(
        forwarded * 100 >= expected * 99,
        "only {forwarded} of {expected} connections were forwarded"
    );
    Ok(Figures::of(&times))
}
