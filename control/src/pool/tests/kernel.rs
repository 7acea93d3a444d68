//! A model of IPVS's schedulers, as close to their sources as Rust allows. The pools are compared
//! with it. It prepares nothing and uses nothing of the packet path: it looks at servers one by
//! one, as the kernel does.

use std::collections::BTreeMap;

use shunt_model::{Scheduler, SchedulerFlags};

/// `struct ip_vs_dest`.
#[derive(Clone, Debug, Default)]
pub(super) struct Dest {
    pub(super) id: u32,
    pub(super) address: u32,
    pub(super) port: u16,
    pub(super) weight: i32,
    pub(super) last_weight: i32,
    pub(super) active: i32,
    pub(super) inactive: i32,
    pub(super) upper: i32,
    pub(super) lower: i32,
    /// `IP_VS_DEST_F_OVERLOAD`.
    pub(super) overloaded: bool,
    /// `IP_VS_DEST_F_AVAILABLE`.
    pub(super) available: bool,
}

impl Dest {
    fn overhead(&self) -> i64 {
        i64::from((self.active << 8) + self.inactive)
    }

    fn total(&self) -> i32 {
        self.active + self.inactive
    }

    /// The end of `ip_vs_unbind_dest`.
    fn relieve(&mut self) {
        let relieved = if self.lower != 0 {
            self.total() < self.lower
        } else if self.upper != 0 {
            self.total() * 4 < self.upper * 3
        } else {
            true
        };
        if relieved {
            self.overloaded = false;
        }
    }
}

/// `struct ip_vs_lblcr_entry`, which for lblc has one server. The newest server comes first.
struct CacheEntry {
    used: u64,
    changed: u64,
    set: Vec<u32>,
}

/// `DEFAULT_EXPIRATION`, in seconds.
const EXPIRATION: u64 = 24 * 60 * 60;

/// A service with its list of servers, the newest first, and the scheduler's data.
pub(super) struct Kernel {
    scheduler: Scheduler,
    flags: SchedulerFlags,
    /// Every server that ever existed, by id.
    dests: Vec<Dest>,
    pub(super) list: Vec<u32>,
    pub(super) now: u64,
    /// rr's `sched_data`, wrr's `cl`: an id, or `None` for the head of the list.
    place: Option<u32>,
    /// wrr's `cw`, `mw` and `di`.
    current: i32,
    greatest: i32,
    step: i32,
    /// The buckets of sh and dh, mh's lookup.
    table: Vec<u32>,
    /// The cache of lblc and lblcr, by target.
    cache: BTreeMap<u32, CacheEntry>,
}

/// The packet that asks for a server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asker {
    pub(super) address: u32,
    pub(super) port: u16,
    pub(super) target: u32,
}

impl Kernel {
    /// `dests` are all servers that will ever exist, with ids from 0 on.
    pub(super) fn new(scheduler: Scheduler, flags: SchedulerFlags, dests: Vec<Dest>) -> Self {
        Self {
            scheduler,
            flags,
            dests,
            list: Vec::new(),
            now: 0,
            place: None,
            current: 0,
            greatest: 0,
            step: 1,
            table: Vec::new(),
            cache: BTreeMap::new(),
        }
    }

    pub(super) fn dest(&self, id: u32) -> &Dest {
        &self.dests[id as usize]
    }

    fn dest_mut(&mut self, id: u32) -> &mut Dest {
        &mut self.dests[id as usize]
    }

    fn listed(&self) -> impl Iterator<Item = &Dest> {
        self.list.iter().map(|id| self.dest(*id))
    }

    /// `ip_vs_add_dest`, with the server taken from the trash as it was.
    pub(super) fn add(&mut self, id: u32, weight: u32, thresholds: (u32, u32)) {
        let dest = self.dest_mut(id);
        dest.last_weight = 0;
        self.list.insert(0, id);
        self.edit(id, weight, thresholds);
    }

    /// `__ip_vs_update_dest`.
    pub(super) fn edit(&mut self, id: u32, weight: u32, (upper, lower): (u32, u32)) {
        let (weight, upper, lower) = (weight as i32, upper as i32, lower as i32);
        let dest = self.dest_mut(id);
        dest.weight = weight;
        if weight != 0 {
            dest.last_weight = weight;
        }
        dest.available = true;
        if upper == 0 || upper > dest.upper {
            dest.overloaded = false;
        }
        (dest.upper, dest.lower) = (upper, lower);
        // Shunt differs: a lower threshold that rises relieves at once, not at the next close.
        dest.relieve();
        self.changed();
    }

    pub(super) fn delete(&mut self, id: u32) {
        let index = self.index(id);
        if self.scheduler == Scheduler::Rr && self.place == Some(id) {
            let before = index.checked_sub(1);
            self.place = before.map(|before| self.list[before]);
        }
        self.list.remove(index);
        self.dest_mut(id).available = false;
        self.changed();
    }

    /// `ip_vs_bind_dest`, for a connection that is held, or one that is closed.
    pub(super) fn connect(&mut self, id: u32, held: bool) {
        let dest = self.dest_mut(id);
        dest.active += i32::from(held);
        dest.inactive += i32::from(!held);
        if dest.upper != 0 && dest.total() >= dest.upper {
            dest.overloaded = true;
        }
    }

    /// Closes a held connection. False if there is none.
    pub(super) fn close(&mut self, id: u32) -> bool {
        let dest = self.dest_mut(id);
        let some = dest.active > 0;
        dest.active -= i32::from(some);
        dest.inactive += i32::from(some);
        some
    }

    /// `ip_vs_unbind_dest`: expires a closed connection. False if there is none.
    pub(super) fn expire(&mut self, id: u32) -> bool {
        let dest = self.dest_mut(id);
        if dest.inactive == 0 {
            return false;
        }
        dest.inactive -= 1;
        dest.relieve();
        true
    }

    /// Lets time pass and runs `ip_vs_lblc_full_check`.
    pub(super) fn wait(&mut self, seconds: u64) {
        self.now += seconds;
        let now = self.now;
        self.cache.retain(|_, entry| now <= entry.used + EXPIRATION);
    }

    fn index(&self, id: u32) -> usize {
        self.list.iter().position(|other| *other == id).unwrap()
    }

    fn changed(&mut self) {
        match self.scheduler {
            Scheduler::Wrr => self.wrr_changed(),
            Scheduler::Sh => self.sh_reassign(),
            Scheduler::Dh => self.dh_reassign(),
            Scheduler::Mh => self.mh_reassign(),
            _ => {}
        }
    }

    pub(super) fn schedule(&mut self, asker: Asker) -> u32 {
        let port = if self.flags.port {
            u32::from(asker.port)
        } else {
            0
        };
        let key = port.wrapping_add(asker.address);
        let golden = |key: u32| key.wrapping_mul(0x61c8_8647) >> 24;
        let chosen = match self.scheduler {
            Scheduler::Rr => self.rr(),
            Scheduler::Wrr => self.wrr(),
            Scheduler::Lc => self.lc(),
            Scheduler::Wlc => self.wlc(),
            Scheduler::Sed => self.sed(),
            Scheduler::Nq => self.nq(),
            Scheduler::Fo => self.fo(),
            Scheduler::Ovf => self.ovf(),
            Scheduler::Lblc => self.lblc(asker.target),
            Scheduler::Lblcr => self.lblcr(asker.target),
            Scheduler::Dh => self.dh(golden(asker.target)),
            Scheduler::Sh => {
                self.hashed(|offset| (offset.wrapping_add(golden(key)) & 255) as usize)
            }
            Scheduler::Mh => self.hashed(|offset| {
                let hash = hsiphash(offset.wrapping_add(key), 2_654_435_761);
                (hash % 4093) as usize
            }),
            Scheduler::Twos | Scheduler::P2c => unreachable!("drawn by lot"),
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
                let dest = self.dest(self.list[index]);
                if !dest.overloaded && dest.weight > 0 {
                    self.place = Some(dest.id);
                    return self.place;
                }
                if Some(dest.id) == last {
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
        self.step = match self.gcd(|dest| dest.weight) {
            0 => 1,
            gcd => gcd,
        };
        let heaviest = self.listed().map(|dest| dest.weight).max().unwrap_or(0);
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
        let last = self.place;
        let (mut stop, mut last_pass, mut restarted) = (None, false, false);
        let mut from = self.rest(last);
        loop {
            for index in from {
                let dest = self.dest(self.list[index]);
                if !dest.overloaded && dest.weight >= self.current {
                    self.place = Some(dest.id);
                    return self.place;
                }
                if stop == Some(dest.id) {
                    self.place = stop;
                    return None;
                }
            }
            self.current -= self.step;
            if self.current <= 0 {
                self.current = self.greatest;
                if last_pass || last.is_none() {
                    self.place = None;
                    return None;
                }
                restarted = true;
            }
            last_pass = self.current <= self.step;
            if last_pass && restarted {
                stop = last;
            }
            from = 0..self.list.len();
        }
    }

    // ip_vs_lc.c
    fn lc(&self) -> Option<u32> {
        let mut least: Option<&Dest> = None;
        for dest in self.listed() {
            if dest.overloaded || dest.weight == 0 {
                continue;
            }
            if least.is_none_or(|least| dest.overhead() < least.overhead()) {
                least = Some(dest);
            }
        }
        least.map(|dest| dest.id)
    }

    // ip_vs_wlc.c, and __ip_vs_lblc_schedule of ip_vs_lblc.c
    fn wlc(&self) -> Option<u32> {
        self.least_for_weight(Dest::overhead)
    }

    // ip_vs_sed.c
    fn sed(&self) -> Option<u32> {
        self.least_for_weight(|dest| i64::from(dest.active) + 1)
    }

    fn least_for_weight(&self, overhead: impl Fn(&Dest) -> i64) -> Option<u32> {
        let mut open = self.listed().filter(|dest| !dest.overloaded);
        let mut least = open.find(|dest| dest.weight > 0)?;
        for dest in open {
            let (load, dest_load) = (overhead(least), overhead(dest));
            if load * i64::from(dest.weight) > dest_load * i64::from(least.weight) {
                least = dest;
            }
        }
        Some(least.id)
    }

    // ip_vs_nq.c
    fn nq(&self) -> Option<u32> {
        let idle = |dest: &&Dest| !dest.overloaded && dest.weight != 0 && dest.active == 0;
        match self.listed().find(idle) {
            Some(dest) => Some(dest.id),
            None => self.sed(),
        }
    }

    // ip_vs_fo.c
    fn fo(&self) -> Option<u32> {
        let (mut heaviest, mut weight) = (None, 0);
        for dest in self.listed() {
            if !dest.overloaded && dest.weight > weight {
                (heaviest, weight) = (Some(dest.id), dest.weight);
            }
        }
        heaviest
    }

    // ip_vs_ovf.c
    fn ovf(&self) -> Option<u32> {
        let mut found: Option<&Dest> = None;
        for dest in self.listed() {
            if dest.overloaded || dest.active > dest.weight || dest.weight == 0 {
                continue;
            }
            if found.is_none_or(|found| dest.weight > found.weight) {
                found = Some(dest);
            }
        }
        found.map(|dest| dest.id)
    }

    // is_overloaded of ip_vs_lblc.c and ip_vs_lblcr.c
    fn crowded(&self, id: u32) -> bool {
        let dest = self.dest(id);
        dest.active > dest.weight && self.listed().any(|other| other.active * 2 < other.weight)
    }

    // ip_vs_lblc.c
    fn lblc(&mut self, target: u32) -> Option<u32> {
        let now = self.now;
        if let Some(entry) = self.cache.get_mut(&target) {
            entry.used = now;
            let id = entry.set[0];
            let dest = self.dest(id);
            if dest.available && dest.weight > 0 && !self.crowded(id) {
                return Some(id);
            }
        }
        let chosen = self.wlc()?;
        let entry = CacheEntry {
            used: now,
            changed: now,
            set: vec![chosen],
        };
        self.cache.insert(target, entry);
        Some(chosen)
    }

    // ip_vs_lblcr.c
    fn lblcr(&mut self, target: u32) -> Option<u32> {
        let now = self.now;
        let Some(mut entry) = self.cache.remove(&target) else {
            let chosen = self.wlc()?;
            let entry = CacheEntry {
                used: now,
                changed: now,
                set: vec![chosen],
            };
            self.cache.insert(target, entry);
            return Some(chosen);
        };
        entry.used = now;
        let chosen = self.set_min(&entry.set);
        if entry.set.len() > 1
            && now > entry.changed + EXPIRATION
            && let Some(most) = self.set_max(&entry.set)
        {
            entry.set.retain(|id| *id != most);
            entry.changed = now;
        }
        let chosen = match chosen.filter(|id| !self.crowded(*id)) {
            Some(id) => Some(id),
            None => {
                let chosen = self.wlc();
                if let Some(id) = chosen
                    && !entry.set.contains(&id)
                {
                    entry.set.insert(0, id);
                    entry.changed = now;
                }
                chosen
            }
        };
        self.cache.insert(target, entry);
        chosen
    }

    fn set_min(&self, set: &[u32]) -> Option<u32> {
        let mut open = set
            .iter()
            .map(|id| self.dest(*id))
            .filter(|d| !d.overloaded);
        let mut least = open.find(|dest| dest.weight > 0 && dest.available)?;
        for dest in open {
            let lighter = least.overhead() * i64::from(dest.weight)
                > dest.overhead() * i64::from(least.weight);
            if lighter && dest.available {
                least = dest;
            }
        }
        Some(least.id)
    }

    fn set_max(&self, set: &[u32]) -> Option<u32> {
        let mut dests = set.iter().map(|id| self.dest(*id));
        let mut most = dests.find(|dest| dest.weight > 0)?;
        for dest in dests {
            let heavier =
                most.overhead() * i64::from(dest.weight) < dest.overhead() * i64::from(most.weight);
            if heavier && dest.weight > 0 {
                most = dest;
            }
        }
        Some(most.id)
    }

    // ip_vs_dh.c
    fn dh_reassign(&mut self) {
        self.table = self.list.iter().copied().cycle().take(256).collect();
    }

    fn dh(&self, slot: u32) -> Option<u32> {
        let dest = self.dest(*self.table.get(slot as usize)?);
        (dest.available && dest.weight > 0 && !dest.overloaded).then_some(dest.id)
    }

    // ip_vs_sh.c
    fn sh_reassign(&mut self) {
        self.table.clear();
        let (mut place, mut count) = (0, 0);
        while !self.list.is_empty() && self.table.len() < 256 {
            if place == self.list.len() {
                place = 0;
            }
            self.table.push(self.list[place]);
            count += 1;
            if count >= self.dest(self.list[place]).weight {
                place += 1;
                count = 0;
            }
        }
    }

    // ip_vs_sh_get, ip_vs_mh_get and their fallbacks.
    fn hashed(&self, hash: impl Fn(u32) -> usize) -> Option<u32> {
        let find = |slot: usize| Some(self.dest(*self.table.get(slot)?));
        let takes = |dest: &Dest| dest.weight > 0 && !dest.overloaded;
        let first = hash(0);
        let dest = find(first)?;
        if takes(dest) {
            return Some(dest.id);
        }
        if !self.flags.fallback {
            return None;
        }
        for offset in 0..self.table.len() {
            let round = (offset + first) % self.table.len();
            let dest = find(hash(round as u32))?;
            if takes(dest) {
                return Some(dest.id);
            }
        }
        None
    }

    // ip_vs_mh.c
    fn mh_reassign(&mut self) {
        const SIZE: usize = 4093;
        self.table.clear();
        let gcd = self.gcd(|dest| dest.last_weight);
        if gcd < 1 {
            return;
        }
        let heaviest = self.listed().map(|dest| dest.last_weight).max().unwrap();
        let shift = ((heaviest / gcd).ilog2() + 1).saturating_sub(6);
        struct Setup {
            perm: usize,
            skip: usize,
            turns: i32,
        }
        let setup = |dest: &Dest| {
            let key = u32::from(dest.port).wrapping_add(dest.address);
            let turns = (dest.last_weight / gcd) >> shift;
            Setup {
                perm: hsiphash(key, 2_654_435_761) as usize % SIZE,
                skip: hsiphash(key, 2_654_446_892) as usize % (SIZE - 1) + 1,
                turns: match turns {
                    0 => i32::from(dest.last_weight != 0),
                    turns => turns,
                },
            }
        };
        let mut setups: Vec<Setup> = self.listed().map(setup).collect();
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
            lookup[setup.perm] = self.list[at];
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
        let (mut gcd, mut weights) = (0, self.listed().map(weight).collect::<Vec<_>>());
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

/// `hsiphash_1u32` of lib/siphash.c on a 64-bit machine: one round for the word, three at the end.
fn hsiphash(first: u32, key: u64) -> u32 {
    let mut state = [
        key ^ 0x736f_6d65_7073_6575,
        key ^ 0x646f_7261_6e64_6f6d,
        key ^ 0x6c79_6765_6e65_7261,
        key ^ 0x7465_6462_7974_6573,
    ];
    let b = (4_u64 << 56) | u64::from(first);
    state[3] ^= b;
    state = siphash_permutation(state);
    state[0] ^= b;
    state[2] ^= 0xff;
    for _round in 0..3 {
        state = siphash_permutation(state);
    }
    state.into_iter().fold(0, |all, word| all ^ word) as u32
}

/// `SIPHASH_PERMUTATION` of include/linux/siphash.h.
fn siphash_permutation([mut a, mut b, mut c, mut d]: [u64; 4]) -> [u64; 4] {
    a = a.wrapping_add(b);
    b = b.rotate_left(13);
    b ^= a;
    a = a.rotate_left(32);
    c = c.wrapping_add(d);
    d = d.rotate_left(16);
    d ^= c;
    a = a.wrapping_add(d);
    d = d.rotate_left(21);
    d ^= a;
    c = c.wrapping_add(b);
    b = b.rotate_left(17);
    b ^= c;
    c = c.rotate_left(32);
    [a, b, c, d]
}
