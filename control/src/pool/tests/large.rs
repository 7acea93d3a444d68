//! Large pools with their short list, and when it is stale.

use shunt_datapath::entry::{SHORT_LENGTH, counts};
use shunt_datapath::schedule::STALE_TICKS;

use super::*;

const SERVERS: u32 = 4_096;

const COMPARING: [Scheduler; 4] = [Scheduler::Lc, Scheduler::Wlc, Scheduler::Sed, Scheduler::Nq];

#[test]
fn only_pools_above_the_stated_size_have_a_short_list() {
    for (servers, is_short) in [(256, false), (257, true)] {
        for scheduler in COMPARING {
            let members: Vec<Member> = (1..=servers).map(|id| member(id, 1, 1)).collect();
            let compiled = compile(rule(scheduler), &members, &Turn::Start);
            assert_eq!(compiled.is_short(), is_short, "{scheduler}");
        }
    }
}

// The kernel's scheduler over all servers picks the first of the short list's best.
#[test]
fn a_fresh_short_list_chooses_as_the_whole_list_would() {
    for scheduler in COMPARING {
        let farm = Farm::new(scheduler, &mut Dice(3));
        for _ in 0..20 {
            farm.compile();
            let chosen = farm.memory.pick(7, 7);
            assert_eq!(chosen, farm.least_of_all(), "{scheduler}");
            farm.open(chosen);
        }
    }
}

// 500 connections between two compilations of the list: 100,000 a second.
#[test]
fn between_two_compilations_no_server_gets_far_more_than_its_share() {
    let farm = Farm::new(Scheduler::Lc, &mut Dice(4));
    for _ in 0..SERVERS * 20 / 500 {
        farm.compile();
        for _ in 0..500 {
            let chosen = farm.memory.pick(7, 7);
            farm.open(chosen);
        }
    }

    let loads: Vec<u32> = (1..=SERVERS).map(|id| farm.memory.counts(id).0).collect();
    let (least, most) = (loads.iter().min().unwrap(), loads.iter().max().unwrap());
    assert!(most - least <= 8, "{least} to {most}");
}

#[test]
fn without_the_daemon_the_better_of_two_drawn_servers_is_taken() {
    for scheduler in COMPARING {
        let farm = Farm::new(scheduler, &mut Dice(5));
        farm.compile();
        farm.memory.now.set(STALE_TICKS + 1);
        let mut chosen = std::collections::BTreeSet::new();
        for _ in 0..5_000 {
            let server = farm.memory.pick(7, 7);
            assert!((1..=SERVERS).contains(&server));
            chosen.insert(server);
            farm.open(server);
        }

        // This is more than the short list has.
        assert!(chosen.len() > 10 * SHORT_LENGTH as usize, "{scheduler}");
    }
}

#[test]
fn a_short_list_has_no_overloaded_server_and_may_have_free_places() {
    let slots: Vec<u64> = (1..=300).map(|id| member(id, 1, 1).slot()).collect();
    let open = |slot: u64| (slot as u32 > 290).then_some(0);

    let list = short::compile(scheduler::WLC, &slots, open);

    assert_eq!(list.len(), SHORT_LENGTH as usize);
    assert_eq!(list[..10], slots[290..]);
    assert!(list[10..].iter().all(|slot| *slot == 0));
}

/// A pool of lc or a similar scheduler with 4,096 servers of any load.
struct Farm {
    scheduler: Scheduler,
    memory: Memory,
    members: Vec<Member>,
}

impl Farm {
    fn new(scheduler: Scheduler, dice: &mut Dice) -> Self {
        let mut memory = Memory::new(SERVERS as usize + 1, SchedulerFlags::default());
        let mut members = Vec::new();
        for id in 1..=SERVERS {
            let weight = 1 + dice.below(9);
            memory.add(id, dice.below(3).into(), 0);
            members.push(member(id, weight, weight));
        }
        memory.switch(&compile(rule(scheduler), &members, &Turn::Start));
        Self {
            scheduler,
            memory,
            members,
        }
    }

    fn open(&self, id: u32) {
        self.memory.add(id, 1, 0);
    }

    /// What the director does every few milliseconds.
    fn compile(&self) {
        let pool = self.memory.read_back();
        let rule = pool.scheduler & !scheduler::SHORT;
        let list = short::compile(rule, &pool.slots, |slot| {
            let (active, inactive) = self.memory.counts(slot as u32);
            Some(u64::from(active) * counts::ACTIVE + u64::from(inactive) * counts::INACTIVE)
        });
        let stamp = self.memory.now.get().into();
        let words: Vec<u64> = std::iter::once(stamp).chain(list).collect();
        self.memory.write(1, &words);
    }

    /// The choice of the kernel's scheduler over every server.
    fn least_of_all(&self) -> u32 {
        let dest = |member: &Member| Dest {
            id: member.id,
            active: self.memory.counts(member.id).0 as i32,
            ..Dest::default()
        };
        let mut dests = vec![Dest::default()];
        dests.extend(self.members.iter().map(dest));
        let mut kernel = Kernel::new(self.scheduler, SchedulerFlags::default(), dests);
        for member in self.members.iter().rev() {
            kernel.add(member.id, member.weight, (0, 0));
        }
        kernel.schedule(Asker {
            address: 7,
            port: 7,
            target: 7,
        })
    }
}
