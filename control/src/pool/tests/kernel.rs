//! IPVS's schedulers once more, as close to their sources as Rust allows: what the pools are
//! compared with. Nothing is prepared here; servers are looked at one by one, as the kernel does.

use std::net::IpAddr;

use shunt_datapath::schedule::hsiphash;
use shunt_model::{Scheduler, SchedulerFlags};

use super::super::Member;

#[derive(Clone, Debug)]
pub(super) struct Dest {
    pub(super) member: Member,
    pub(super) active: i32,
    pub(super) inactive: i32,
}

impl Dest {
    fn weight(&self) -> i32 {
        self.member.weight as i32
    }

    fn last_weight(&self) -> i32 {
        self.member.last_weight as i32
    }

    fn overhead(&self) -> i64 {
        i64::from((self.active << 8) + self.inactive)
    }
}

/// A service with its list of servers, the newest first, and the scheduler's data.
pub(super) struct Kernel {
    scheduler: Scheduler,
    flags: SchedulerFlags,
    pub(super) list: Vec<Dest>,
    /// rr's `sched_data`, wrr's `cl`: an id, or `None` for the head of the list.
    place: Option<u32>,
    /// wrr's `cw`, `mw` and `di`.
    current: i32,
    greatest: i32,
    step: i32,
    /// sh's buckets, mh's lookup.
    table: Vec<u32>,
}

impl Kernel {
    pub(super) fn new(scheduler: Scheduler, flags: SchedulerFlags) -> Self {
        Self {
            scheduler,
            flags,
            list: Vec::new(),
            place: None,
            current: 0,
            greatest: 0,
            step: 1,
            table: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, dest: Dest) {
        self.list.insert(0, dest);
        self.changed();
    }

    /// `__ip_vs_update_dest`.
    pub(super) fn edit(&mut self, id: u32, weight: u32) {
        let index = self.index(id);
        let member = &mut self.list[index].member;
        member.weight = weight;
        if weight != 0 {
            member.last_weight = weight;
        }
        self.changed();
    }

    pub(super) fn delete(&mut self, id: u32) -> Dest {
        let index = self.index(id);
        if self.scheduler == Scheduler::Rr && self.place == Some(id) {
            let before = index.checked_sub(1);
            self.place = before.map(|before| self.list[before].member.id);
        }
        let dest = self.list.remove(index);
        self.changed();
        dest
    }

    /// A connection that is held, or one that is closed.
    pub(super) fn connect(&mut self, id: u32, held: bool) {
        let index = self.index(id);
        self.list[index].active += i32::from(held);
        self.list[index].inactive += i32::from(!held);
    }

    /// A held connection that comes to be closed.
    pub(super) fn close(&mut self, index: usize) {
        if self.list[index].active > 0 {
            self.list[index].active -= 1;
            self.list[index].inactive += 1;
        }
    }

    fn index(&self, id: u32) -> usize {
        self.list.iter().position(|d| d.member.id == id).unwrap()
    }

    fn changed(&mut self) {
        match self.scheduler {
            Scheduler::Wrr => self.wrr_changed(),
            Scheduler::Sh => self.sh_reassign(),
            Scheduler::Mh => self.mh_reassign(),
            _ => {}
        }
    }

    pub(super) fn schedule(&mut self, address: u32, port: u16) -> u32 {
        let port = if self.flags.port { u32::from(port) } else { 0 };
        let key = port.wrapping_add(address);
        let chosen = match self.scheduler {
            Scheduler::Rr => self.rr(),
            Scheduler::Wrr => self.wrr(),
            Scheduler::Lc => self.lc(),
            Scheduler::Wlc => self.wlc(),
            Scheduler::Sed => self.sed(),
            Scheduler::Nq => self.nq(),
            Scheduler::Sh => self.hashed(|offset| {
                let golden = key.wrapping_mul(0x61c8_8647) >> 24;
                (offset.wrapping_add(golden) & 255) as usize
            }),
            Scheduler::Mh => self.hashed(|offset| {
                let hash = hsiphash(offset.wrapping_add(key), 2_654_435_761);
                (hash % 4093) as usize
            }),
            _ => unreachable!("not carried"),
        };
        chosen.unwrap_or(0)
    }

    /// The places after `place`, up to the end of the list.
    fn rest(&self, place: Option<u32>) -> std::ops::Range<usize> {
        place.map_or(0, |id| self.index(id) + 1)..self.list.len()
    }

    // ip_vs_rr.c
    fn rr(&mut self) -> Option<u32> {
        let last = self.place;
        let mut from = self.rest(last);
        for _pass in 0..2 {
            for index in from {
                let dest = &self.list[index];
                if dest.weight() > 0 {
                    self.place = Some(dest.member.id);
                    return self.place;
                }
                if Some(dest.member.id) == last {
                    return None;
                }
            }
            last?;
            from = 0..self.list.len();
        }
        None
    }

    // ip_vs_wrr.c
    fn wrr_changed(&mut self) {
        self.place = None;
        self.step = match self.gcd(Dest::weight) {
            0 => 1,
            gcd => gcd,
        };
        let heaviest = self.list.iter().map(Dest::weight).max().unwrap_or(0);
        self.greatest = heaviest - (self.step - 1);
        if self.current > self.greatest || self.current == 0 {
            self.current = self.greatest;
        } else if self.step > 1 {
            self.current = self.current / self.step * self.step + 1;
        }
    }

    fn wrr(&mut self) -> Option<u32> {
        if self.greatest == 0 {
            return None;
        }
        let mut from = self.rest(self.place);
        loop {
            for index in from {
                let dest = &self.list[index];
                if dest.weight() >= self.current {
                    self.place = Some(dest.member.id);
                    return self.place;
                }
            }
            self.current -= self.step;
            if self.current <= 0 {
                self.current = self.greatest;
            }
            from = 0..self.list.len();
        }
    }

    // ip_vs_lc.c
    fn lc(&self) -> Option<u32> {
        let mut least: Option<&Dest> = None;
        for dest in &self.list {
            if dest.weight() == 0 {
                continue;
            }
            if least.is_none_or(|least| dest.overhead() < least.overhead()) {
                least = Some(dest);
            }
        }
        least.map(|dest| dest.member.id)
    }

    // ip_vs_wlc.c
    fn wlc(&self) -> Option<u32> {
        self.least_for_weight(Dest::overhead)
    }

    // ip_vs_sed.c
    fn sed(&self) -> Option<u32> {
        self.least_for_weight(|dest| i64::from(dest.active) + 1)
    }

    fn least_for_weight(&self, overhead: impl Fn(&Dest) -> i64) -> Option<u32> {
        let first = self.list.iter().position(|dest| dest.weight() > 0)?;
        let mut least = &self.list[first];
        for dest in &self.list[first + 1..] {
            let (load, dest_load) = (overhead(least), overhead(dest));
            if load * i64::from(dest.weight()) > dest_load * i64::from(least.weight()) {
                least = dest;
            }
        }
        Some(least.member.id)
    }

    // ip_vs_nq.c
    fn nq(&self) -> Option<u32> {
        let idle = |dest: &&Dest| dest.weight() != 0 && dest.active == 0;
        match self.list.iter().find(idle) {
            Some(dest) => Some(dest.member.id),
            None => self.sed(),
        }
    }

    // ip_vs_sh.c
    fn sh_reassign(&mut self) {
        self.table.clear();
        let (mut place, mut count) = (0, 0);
        while !self.list.is_empty() && self.table.len() < 256 {
            if place == self.list.len() {
                place = 0;
            }
            self.table.push(self.list[place].member.id);
            count += 1;
            if count >= self.list[place].weight() {
                place += 1;
                count = 0;
            }
        }
    }

    // ip_vs_sh_get, ip_vs_mh_get and their fallbacks.
    fn hashed(&self, hash: impl Fn(u32) -> usize) -> Option<u32> {
        let find = |slot: usize| {
            let id = *self.table.get(slot)?;
            Some(&self.list[self.index(id)])
        };
        let first = hash(0);
        let dest = find(first)?;
        if dest.weight() > 0 {
            return Some(dest.member.id);
        }
        if !self.flags.fallback {
            return None;
        }
        for offset in 0..self.table.len() {
            let round = (offset + first) % self.table.len();
            let dest = find(hash(round as u32))?;
            if dest.weight() > 0 {
                return Some(dest.member.id);
            }
        }
        None
    }

    // ip_vs_mh.c
    fn mh_reassign(&mut self) {
        const SIZE: usize = 4093;
        self.table.clear();
        let gcd = self.gcd(Dest::last_weight);
        if gcd < 1 {
            return;
        }
        let heaviest = self.list.iter().map(Dest::last_weight).max().unwrap();
        let shift = ((heaviest / gcd).ilog2() + 1).saturating_sub(6);
        struct Setup {
            perm: usize,
            skip: usize,
            turns: i32,
        }
        let setup = |dest: &Dest| {
            let IpAddr::V4(address) = dest.member.at.address else {
                unreachable!("IPv6 is compared with the recording");
            };
            let key = u32::from(dest.member.at.port).wrapping_add(address.to_bits());
            let turns = (dest.last_weight() / gcd) >> shift;
            Setup {
                perm: hsiphash(key, 2_654_435_761) as usize % SIZE,
                skip: hsiphash(key, 2_654_446_892) as usize % (SIZE - 1) + 1,
                turns: match turns {
                    0 => i32::from(dest.last_weight() != 0),
                    turns => turns,
                },
            }
        };
        let mut setups: Vec<Setup> = self.list.iter().map(setup).collect();
        let mut lookup = vec![0; SIZE];
        let (mut place, mut taken, mut count) = (0, 0, 0);
        while taken < SIZE {
            let at = place % setups.len();
            let setup = &mut setups[at];
            if setup.turns < 1 {
                place += 1;
                continue;
            }
            while lookup[setup.perm] != 0 {
                setup.perm += setup.skip;
                if setup.perm >= SIZE {
                    setup.perm -= SIZE;
                }
            }
            lookup[setup.perm] = self.list[at].member.id;
            taken += 1;
            count += 1;
            if count >= setup.turns {
                count = 0;
                place += 1;
            }
        }
        self.table = lookup;
    }

    fn gcd(&self, weight: impl Fn(&Dest) -> i32) -> i32 {
        let (mut gcd, mut weights) = (0, self.list.iter().map(weight).collect::<Vec<_>>());
        weights.retain(|weight| *weight > 0);
        for weight in weights {
            gcd = if gcd == 0 {
                weight
            } else {
                euclid(weight, gcd)
            };
        }
        gcd
    }
}

fn euclid(a: i32, b: i32) -> i32 {
    if b == 0 { a } else { euclid(b, a % b) }
}
