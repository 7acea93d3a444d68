//! Pools against a recording of IPVS and against a model of it.

use std::net::{IpAddr, Ipv4Addr};

use proptest::prelude::*;
use shunt_datapath::connection::TICK_MASK;
use shunt_datapath::entry::{scheduler, standing};
use shunt_model::{SchedulerFlags, ServerAddress};

use super::*;
use kernel::{Asker, Dest, Kernel};
use memory::Memory;

mod disruption;
mod drawn;
mod kernel;
mod large;
mod memory;
mod replay;

/// Server ids are below this.
const IDS: u32 = 16;

#[test]
fn pool_without_an_eligible_server_is_empty_and_picks_none() {
    for scheduler in Scheduler::ALL {
        let quiesced = member(1, 0, 3);
        for members in [&[][..], &[quiesced]] {
            let compiled = compile(rule(scheduler), members, &Turn::Start);
            let mut memory = Memory::new(2, SchedulerFlags::default());
            memory.switch(&compiled);

            assert_eq!(compiled.scheduler, scheduler::EMPTY, "{scheduler}");
            assert_eq!(memory.pick(7, 7), 0, "{scheduler}");
        }
    }
}

#[test]
fn turn_of_65_536_choices_is_a_ring_and_a_longer_one_is_left_to_the_walk() {
    let kinds = [65_535, 65_536].map(|weight| {
        let members = [member(1, weight, weight), member(2, 1, 1)];
        let compiled = compile(rule(Scheduler::Wrr), &members, &Turn::Start);
        (compiled.scheduler, compiled.slots.len())
    });

    assert_eq!(kinds, [(scheduler::RING, 65_536), (scheduler::WRR, 2)]);
}

#[test]
fn greatest_weights_do_not_overflow() {
    let heaviest = crate::table::HEAVIEST;
    for scheduler in Scheduler::ALL {
        let members = [member(1, heaviest, heaviest), member(2, heaviest - 1, 1)];
        let compiled = compile(rule(scheduler), &members, &Turn::Start);
        let mut memory = Memory::new(3, SchedulerFlags::default());
        memory.switch(&compiled);

        assert_ne!(memory.pick(7, 7), 0, "{scheduler}");
    }
}

#[test]
fn round_robin_goes_on_before_a_deleted_server_even_if_several_went() {
    let members: Vec<Member> = (1..=5).rev().map(|id| member(id, 1, 1)).collect();
    let pool = compile(rule(Scheduler::Rr), &members, &Turn::Start);
    // 5, 4 and 3 were chosen.
    let turn = turn(Scheduler::Rr, &members, &pool, 3);
    let left: Vec<Member> = members
        .iter()
        .filter(|m| ![3, 4].contains(&m.id))
        .copied()
        .collect();

    let next = compile(rule(Scheduler::Rr), &left, &turn);

    assert_eq!(turn, Turn::After(vec![3, 4, 5]));
    assert_eq!(next.slots[next.head[0] as usize] as u32, 2);
}

#[test]
fn ipv4_service_hashes_the_first_word_of_an_ipv6_server() {
    let at = |address: &str| ServerAddress {
        address: address.parse().unwrap(),
        port: 80,
    };
    let wide = Member {
        at: at("2001:db8::1"),
        ..member(1, 1, 1)
    };
    let narrow = Member {
        at: at("32.1.13.184"),
        ..wide
    };
    let table = |family, first| {
        compile(
            Rule {
                family,
                ..rule(Scheduler::Mh)
            },
            &[first, member(2, 1, 1)],
            &Turn::Start,
        )
        .slots
    };

    assert_eq!(table(Family::Ipv4, wide), table(Family::Ipv4, narrow));
    assert_ne!(table(Family::Ipv6, wide), table(Family::Ipv6, narrow));
}

#[test]
fn hash_tables_give_each_server_its_share() {
    let members = [member(1, 1, 1), member(2, 2, 2), member(3, 0, 3)];
    for (scheduler, size) in [(Scheduler::Sh, 256), (Scheduler::Mh, 4093)] {
        let compiled = compile(rule(scheduler), &members, &Turn::Start);
        let share = |id: u32| compiled.slots.iter().filter(|s| **s as u32 == id).count();

        assert_eq!(compiled.slots.len(), size);
        // sh counts a quiesced server with weight 1, mh with its last weight.
        let (parts, third) = if size == 256 { (4, 1) } else { (6, 3) };
        for (id, weight) in [(1, 1), (2, 2), (3, third)] {
            let fair = size * weight / parts;
            assert!(share(id).abs_diff(fair) <= 3, "{scheduler} {id}");
        }
    }
}

// The oldest servers keep their slots, because clients are on them. Servers beyond the size of the
// table are left out.
#[test]
fn maglev_of_more_servers_than_slots_keeps_the_oldest() {
    let members: Vec<Member> = (1..=4100).rev().map(|id| member(id, 1, 1)).collect();

    let compiled = compile(rule(Scheduler::Mh), &members, &Turn::Start);

    let mut ids: Vec<u32> = compiled.slots.iter().map(|slot| *slot as u32).collect();
    ids.sort_unstable();
    assert_eq!(ids, (1..=4093).collect::<Vec<_>>());
}

/// Choices by each scheduler: the number in this variable, or few enough to keep the suite quick.
const CHOICES: (&str, u32) = ("SHUNT_CHOICES", 20_000);

// sh and mh divide the choices among their flags.
#[test]
fn choices_between_changes_are_those_of_the_kernel() {
    let (variable, usual) = CHOICES;
    let choices = std::env::var(variable).map_or(usual, |count| count.parse().unwrap());
    for scheduler in Scheduler::ALL {
        if matches!(scheduler, Scheduler::Twos | Scheduler::P2c) {
            continue;
        }
        let flagged = matches!(scheduler, Scheduler::Sh | Scheduler::Mh);
        let sets = if flagged { 4 } else { 1 };
        for bits in 0..sets {
            let flags = SchedulerFlags {
                fallback: bits & 1 != 0,
                port: bits & 2 != 0,
                ..SchedulerFlags::default()
            };
            for thresholds in [false, true] {
                let mut pair = Pair::new(scheduler, flags, LONGEST_RING);
                pair.thresholds = thresholds;
                let mut dice = Dice(u64::from(bits) + 1);
                for _server in 0..5 {
                    pair.add(&mut dice);
                }
                while pair.choices < choices / sets / 2 {
                    pair.step(&mut dice);
                }
                assert!(pair.changes > 10, "{scheduler}");
                // Most choices found a server, and thresholds overloaded some if set.
                let refused = pair.refused * 100 / pair.choices;
                assert!(refused < 98, "{scheduler}: {refused}% refused");
                assert_eq!(thresholds, pair.overloads > 0, "{scheduler}");
            }
        }
    }
}

proptest! {
    #[test]
    fn turns_go_on_as_in_the_kernel_whether_ring_or_not(
        seed: u64,
        rr: bool,
        longest in prop_oneof![Just(0), Just(20), Just(LONGEST_RING)],
    ) {
        let scheduler = if rr { Scheduler::Rr } else { Scheduler::Wrr };
        let mut pair = Pair::new(scheduler, SchedulerFlags::default(), longest);
        let mut dice = Dice(seed);
        for _ in 0..400 {
            pair.step(&mut dice);
        }
    }

    #[test]
    fn ring_and_walked_turn_choose_the_same(
        weights in proptest::collection::vec(0_u32..60, 1..12),
        asked in 0_u32..70,
    ) {
        let members: Vec<Member> = (1..).zip(&weights).map(|(id, w)| member(id, *w, *w)).collect();
        let turn = Turn::Weight(asked);
        let mut sequences = [0, LONGEST_RING].map(|longest| {
            let mut memory = Memory::new(20, SchedulerFlags::default());
            memory.switch(&round::weighted(&members, &turn, longest));
            (0..500).map(|_| memory.pick(0, 0)).collect::<Vec<_>>()
        });
        prop_assert_eq!(std::mem::take(&mut sequences[0]), std::mem::take(&mut sequences[1]));
    }
}

/// The same service in the tables and in the model.
struct Pair {
    scheduler: Scheduler,
    longest: u64,
    memory: Memory,
    kernel: Kernel,
    members: Vec<Member>,
    /// Deleted servers keep their connections.
    deleted: Vec<u32>,
    /// Whether servers have thresholds.
    thresholds: bool,
    choices: u32,
    refused: u32,
    changes: u32,
    overloads: u32,
}

impl Pair {
    fn new(scheduler: Scheduler, flags: SchedulerFlags, longest: u64) -> Self {
        let mut memory = Memory::new(IDS as usize, flags);
        memory.switch(&compile(rule(scheduler), &[], &Turn::Start));
        let dest = |id| Dest {
            id,
            address: 0x0a01_0000 + id,
            port: 80,
            ..Dest::default()
        };
        Self {
            scheduler,
            longest,
            memory,
            kernel: Kernel::new(scheduler, flags, (0..IDS).map(dest).collect()),
            members: Vec::new(),
            deleted: (1..IDS).collect(),
            thresholds: false,
            choices: 0,
            refused: 0,
            changes: 0,
            overloads: 0,
        }
    }

    fn step(&mut self, dice: &mut Dice) {
        let servers = self.kernel.list.len() as u32;
        // The tables of sh and mh are slow to compile, so they change a tenth as often.
        let hashed = matches!(self.scheduler, Scheduler::Sh | Scheduler::Mh);
        match dice.below(if hashed { 400 } else { 40 }) {
            0 if servers < 12 => self.add(dice),
            1 if servers > 0 && dice.below(2) == 0 => {
                let id = self.any(dice);
                self.kernel.delete(id);
                self.memory.absent(id);
                self.deleted.push(id);
                self.change();
            }
            2 if servers > 0 => {
                let id = self.any(dice);
                let (weight, thresholds) = (dice.weight(), self.draw_thresholds(dice));
                let anew = self.is_relieved(id, thresholds);
                self.kernel.edit(id, weight, thresholds);
                self.memory.stand(id, weight, thresholds, anew);
                self.change();
            }
            3..10 => {
                // Connections of a deleted server go on too.
                let id = 1 + dice.below(IDS - 1);
                if self.kernel.close(id) {
                    self.memory.add(id, -1, 1);
                }
            }
            10..18 => {
                let id = 1 + dice.below(IDS - 1);
                if self.kernel.expire(id) {
                    self.memory.add(id, 0, -1);
                }
            }
            18 if dice.below(20) == 0 => {
                let seconds = [1, 3_600, 90_000][dice.below(3) as usize];
                self.kernel.wait(seconds);
                let now = self.kernel.now & u64::from(TICK_MASK);
                self.memory.now.set(now as u32);
            }
            _ => self.choose(dice),
        }
    }

    fn add(&mut self, dice: &mut Dice) {
        let index = dice.below(self.deleted.len() as u32) as usize;
        let id = self.deleted.swap_remove(index);
        let (weight, thresholds) = (dice.weight(), self.draw_thresholds(dice));
        let anew = self.is_relieved(id, thresholds);
        self.kernel.add(id, weight, thresholds);
        self.memory.stand(id, weight, thresholds, anew);
        self.change();
    }

    /// Whether these thresholds clear the mark of an overloaded server: the upper one rises, or the
    /// load is below the former lower one.
    fn is_relieved(&self, id: u32, (upper, _): (u32, u32)) -> bool {
        let dest = self.kernel.dest(id);
        let below = standing::bounds(dest.upper as u32, dest.lower as u32) >> 32;
        let (active, inactive) = self.memory.counts(id);
        upper == 0 || upper > dest.upper as u32 || u64::from(active + inactive) < below
    }

    fn draw_thresholds(&self, dice: &mut Dice) -> (u32, u32) {
        if !self.thresholds || dice.below(4) == 0 {
            return (0, 0);
        }
        let upper = 1 + dice.below(12);
        (upper, dice.below(upper + 1))
    }

    fn any(&self, dice: &mut Dice) -> u32 {
        self.kernel.list[dice.below(self.kernel.list.len() as u32) as usize]
    }

    fn choose(&mut self, dice: &mut Dice) {
        let asker = Asker {
            address: dice.next() as u32,
            port: dice.next() as u16,
            target: 0x0a00_0300 + dice.below(16),
        };
        let expected = self.kernel.schedule(asker);
        let chosen = self.memory.pick_to(asker.address, asker.port, asker.target);
        let (scheduler, choices) = (self.scheduler, self.choices);
        assert_eq!(
            chosen, expected,
            "{scheduler}, choice {choices}: {:?}",
            self.members
        );
        self.choices += 1;
        if chosen == 0 {
            self.refused += 1;
            return;
        }
        let held = dice.below(4) > 0;
        self.memory.open(chosen, held);
        self.kernel.connect(chosen, held);
        self.overloads += u32::from(self.kernel.dest(chosen).overloaded);
    }

    /// Compiles the present list, continuing the running pool's turn.
    fn change(&mut self) {
        self.changes += 1;
        let pool = self.memory.read_back();
        let turn = turn(self.scheduler, &self.members, &pool, self.memory.cursor());
        let dests = self.kernel.list.iter().map(|id| self.kernel.dest(*id));
        self.members = dests
            .map(|dest| Member {
                limited: dest.upper != 0,
                ..member(dest.id, dest.weight as u32, dest.last_weight as u32)
            })
            .collect();
        let compiled = if self.scheduler == Scheduler::Wrr {
            round::weighted(&self.members, &turn, self.longest)
        } else {
            compile(rule(self.scheduler), &self.members, &turn)
        };
        self.memory.switch(&compiled);
    }
}

fn rule(scheduler: Scheduler) -> Rule {
    Rule {
        scheduler,
        family: Family::Ipv4,
        large: false,
    }
}

fn member(id: u32, weight: u32, last_weight: u32) -> Member {
    let [_, _, high, low] = id.to_be_bytes();
    Member {
        id,
        at: ServerAddress {
            address: IpAddr::V4(Ipv4Addr::new(10, 1, high, low)),
            port: 80,
        },
        weight,
        last_weight,
        limited: false,
    }
}

/// SplitMix64 (Steele, Lea, Flood, 2014): random numbers that are the same in each run.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, limit: u32) -> u32 {
        (self.next() % u64::from(limit.max(1))) as u32
    }

    /// Often 0, often with a common divisor, seldom heavy.
    fn weight(&mut self) -> u32 {
        match self.below(200) {
            0..40 => 0,
            40..100 => 10 * self.below(8),
            100..199 => self.below(12),
            _ => self.below(40_000),
        }
    }
}
