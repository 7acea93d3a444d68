//! twos and p2c against the chances that their rules give each server.

use super::*;

const DRAWS: u32 = 100_000;

/// Servers with weight, active connections, and whether they are overloaded.
type Farm = &'static [(u32, u32, bool)];

const FARMS: [Farm; 5] = [
    &[(3, 0, false), (2, 0, false), (1, 0, false)],
    &[(3, 9, false), (2, 1, false), (1, 5, false), (0, 0, false)],
    &[(1, 1, true), (1, 2, false), (1, 4, false)],
    &[
        (5, 3, false),
        (50, 60, true),
        (5, 2, false),
        (500, 9, false),
    ],
    &[(7, 7, true)],
];

// ip_vs_twos.c: two numbers from 0 to the sum of the weights, both inclusive.
#[test]
fn twos_draws_with_the_chances_of_the_kernel() {
    for farm in FARMS {
        let open = open(farm);
        let sum: u32 = open.iter().map(|server| server.weight).sum();
        let chance = |index: usize| {
            let first = u32::from(index == 0);
            f64::from(open[index].weight + first) / f64::from(sum + 1)
        };
        let mut expected = vec![0.0; farm.len() + 1];
        for (one, first) in open.iter().enumerate() {
            for (other, second) in open.iter().enumerate() {
                let better = second.weight * first.active > first.weight * second.active;
                let chosen = if better { second } else { first };
                expected[chosen.id] += chance(one) * chance(other);
            }
        }
        assert_drawn(Scheduler::Twos, farm, &expected);
    }
}

#[test]
fn p2c_draws_two_different_servers_by_weight() {
    for farm in FARMS {
        let open = open(farm);
        let sum: u32 = open.iter().map(|server| server.weight).sum();
        let mut expected = vec![0.0; farm.len() + 1];
        for first in &open {
            let one = f64::from(first.weight) / f64::from(sum);
            if open.len() == 1 {
                expected[first.id] = 1.0;
            }
            for second in open.iter().filter(|second| second.id != first.id) {
                let other = f64::from(second.weight) / f64::from(sum - first.weight);
                let better =
                    second.weight * (first.active + 1) > first.weight * (second.active + 1);
                let chosen = if better { second } else { first };
                expected[chosen.id] += one * other;
            }
        }
        assert_drawn(Scheduler::P2c, farm, &expected);
    }
}

struct Open {
    id: usize,
    weight: u32,
    active: u32,
}

fn open(farm: Farm) -> Vec<Open> {
    let servers = farm.iter().zip(1..);
    servers
        .filter(|((weight, _, overloaded), _)| *weight > 0 && !overloaded)
        .map(|((weight, active, _), id)| Open {
            id,
            weight: *weight,
            active: *active,
        })
        .collect()
}

fn assert_drawn(scheduler: Scheduler, farm: Farm, expected: &[f64]) {
    let mut memory = Memory::new(farm.len() + 1, SchedulerFlags::default());
    let mut members = Vec::new();
    for ((weight, active, overloaded), id) in farm.iter().zip(1..) {
        let upper = if *overloaded { active } else { &0 };
        memory.stand(id, *weight, (*upper, 0), true);
        memory.add(id, i64::from(*active) - 1, 0);
        memory.open(id, true);
        members.push(Member {
            limited: *overloaded,
            ..member(id, *weight, *weight)
        });
    }
    memory.switch(&compile(rule(scheduler), &members, &Turn::Start));

    let mut drawn = vec![0_u32; farm.len() + 1];
    for _ in 0..DRAWS {
        drawn[memory.pick(7, 7) as usize] += 1;
    }

    for (id, expected) in expected.iter().enumerate().skip(1) {
        let share = f64::from(drawn[id]) / f64::from(DRAWS);
        // Five standard deviations.
        let width = 5.0 * (expected * (1.0 - expected) / f64::from(DRAWS)).sqrt() + 1e-9;
        assert!(
            (share - expected).abs() <= width,
            "{scheduler} {farm:?}, server {id}: {share} instead of {expected}"
        );
    }
    assert_eq!(drawn[0] == 0, expected.iter().any(|chance| *chance > 0.0));
}
