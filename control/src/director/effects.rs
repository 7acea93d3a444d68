//! The effects of the settings in the packet path: how a service opens connections, what becomes of
//! the connections of a quiesced or deleted server, and which defences are up.

use std::collections::BTreeSet;

use shunt_datapath::entry::{self, fate, service_switch, switch};
use shunt_model::api::ActiveDefence;
use shunt_model::event::Fact;
use shunt_model::{Defence, OnDown, Protocol, Server, ServerAddress, ServiceKey, Settings};

use super::ids::ServerSlot;
use super::{Director, Output, Write};

/// The switches of a service with these settings: [`service_switch`].
#[must_use]
pub fn switches(key: &ServiceKey, settings: &Settings) -> u32 {
    let is_mark = matches!(key, ServiceKey::Mark { .. });
    let bits = [
        (settings.sloppy_tcp, service_switch::SLOPPY_TCP),
        (settings.sloppy_sctp, service_switch::SLOPPY_SCTP),
        (settings.schedule_icmp, service_switch::SCHEDULE_ICMP),
        // ip_vs_leave: only a packet that a mark brought here may be for another machine.
        (settings.cache_bypass && is_mark, service_switch::BYPASS),
    ];
    let set = bits.iter().filter(|(is_set, _)| *is_set);
    set.fold(0, |all, (_, bit)| all | bit)
}

/// What becomes of the connections of a server that exists: [`fate`].
#[must_use]
pub fn of_present(server: &Server, settings: &Settings) -> u16 {
    let mut bits = reused(settings);
    if server.weight != 0 {
        return bits;
    }
    // ip_vs_in_hook: with expire_nodest_conn, a SYN leaves a server of weight 0.
    if matches!(settings.on_down, OnDown::Reschedule | OnDown::Reset) {
        bits |= fate::LEFT_BY_SYN;
    }
    if settings.expire_quiescent_template {
        bits |= fate::LEFT_BY_TEMPLATES;
    }
    bits
}

/// What becomes of the connections of a deleted server: [`fate`].
#[must_use]
pub fn of_gone(settings: &Settings) -> u16 {
    let gone = match settings.on_down {
        OnDown::ByProtocol => fate::RESCHEDULED | fate::UDP_ONLY | fate::OPENED_ANEW,
        OnDown::Keep => 0,
        OnDown::Reschedule => fate::RESCHEDULED,
        OnDown::Reset => fate::RESET,
    };
    gone | reused(settings)
}

/// Which states a SYN restarts a connection from (`conn_reuse_mode`).
fn reused(settings: &Settings) -> u16 {
    match settings.conn_reuse_mode {
        0 => 0,
        1 => fate::REUSED,
        _ => fate::REUSED | fate::REUSED_FIN_WAIT,
    }
}

fn is_udp(key: &ServiceKey) -> bool {
    let protocol = Protocol::Udp;
    matches!(key, ServiceKey::Address { protocol: of, .. } if *of == protocol)
}

/// How full the connection table is. Automatic defences depend on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fullness {
    /// Entries, expired ones included until a sweep removes them.
    pub used: u64,
    /// Places for entries.
    pub room: u64,
}

impl Fullness {
    /// The fullness of the fuller table of connections, IPv4 or IPv6.
    #[must_use]
    pub fn of_fuller([used4, used6]: [u64; 2], [room4, room6]: [u32; 2]) -> Self {
        let of = |used, room: u32| Self {
            used,
            room: room.into(),
        };
        let (narrow, wide) = (of(used4, room4), of(used6, room6));
        match narrow.used * wide.room < wide.used * narrow.room {
            true => wide,
            false => narrow,
        }
    }
}

/// The defences against a flood that are up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Defences {
    /// Half-open connections are dropped at random.
    pub drop_entry: bool,
    /// One of this many new connections is dropped; 0 drops none.
    pub drop_rate: u32,
    /// TCP is followed by the states of `secure_tcp`.
    pub secure_tcp: bool,
}

impl Defences {
    /// `update_defense_level` (net/netfilter/ipvs/ip_vs_ctl.c), with the free part of the
    /// connection table in place of free memory.
    #[must_use]
    pub fn new(settings: &Settings, fullness: Fullness) -> Self {
        let free = fullness.room.saturating_sub(fullness.used);
        let threshold = fullness.room * u64::from(settings.defence_threshold) / 100;
        let is_low = fullness.room != 0 && free < threshold;
        let is_up = |defence: Defence| match defence {
            Defence::Never => false,
            Defence::Automatic => is_low,
            Defence::Always => true,
        };
        let drop_rate = match settings.drop_packet {
            Defence::Always => settings.am_droprate,
            Defence::Automatic if is_low => {
                // With nothing free IPVS drops every packet that opens a connection, which locks
                // everybody out. Here unanswered connections give way, so at most every second one
                // is dropped.
                let rate = threshold / (threshold - free);
                u32::try_from(rate).unwrap_or(u32::MAX).max(2)
            }
            Defence::Automatic | Defence::Never => 0,
        };
        Self {
            drop_entry: is_up(settings.drop_entry),
            drop_rate,
            secure_tcp: is_up(settings.secure_tcp),
        }
    }

    /// Whether each defence is up.
    fn up(self) -> [bool; 3] {
        [self.drop_entry, self.drop_rate != 0, self.secure_tcp]
    }

    /// The names of the defences that are up.
    #[must_use]
    pub fn active(&self) -> Vec<ActiveDefence> {
        let one_of = self.drop_rate;
        let all = [
            ActiveDefence::DropEntry,
            ActiveDefence::DropPacket { one_of },
            ActiveDefence::SecureTcp,
        ];
        let active = self.up().into_iter().zip(all);
        let active = active.filter(|(is_active, _)| *is_active);
        active.map(|(_, defence)| defence).collect()
    }
}

/// The director-wide switches in the packet path: [`switch`].
#[must_use]
pub fn global(settings: &Settings, defences: Defences) -> u32 {
    let mut bits = 0;
    if settings.nat_icmp_send {
        bits |= switch::NAT_ICMP_SEND;
    }
    if defences.secure_tcp {
        bits |= switch::SECURE_TCP;
    }
    bits
}

impl Director {
    /// The settings in force for a service. A deleted service has the director-wide ones.
    pub(super) fn settings_of(&self, key: &ServiceKey) -> Settings {
        let settings = self.table.settings();
        match self.table.service(key) {
            Some(entry) => settings.of(&entry.service.settings),
            None => settings,
        }
    }

    /// A director-wide setting changed: rewrites every service, and the servers whose entries it
    /// alters.
    pub(super) fn renew_settings(&mut self) {
        let keys: Vec<ServiceKey> = self.ids.services.keys().copied().collect();
        for key in keys {
            self.write_service(&key);
            self.renew_fates(&key);
        }
    }

    /// Rewrites what becomes of the connections of each server of a service.
    pub(super) fn renew_fates(&mut self, key: &ServiceKey) {
        let Some(slot) = self.ids.services.get(key) else {
            return;
        };
        let servers: Vec<(ServerAddress, bool)> = slot
            .servers
            .iter()
            .map(|(at, slot)| (*at, slot.present))
            .collect();
        let gone = of_gone(&self.settings_of(key));
        for (at, present) in servers {
            let server = self.table.service(key).and_then(|entry| entry.server(at));
            match server.cloned() {
                Some(server) if present => self.write_server(key, &server),
                _ => self.write_gone(key, at, gone),
            }
        }
    }

    /// Marks every entry of a deleted server as gone, with what becomes of its connections.
    pub(super) fn write_gone(&mut self, key: &ServiceKey, at: ServerAddress, fate: u16) {
        let Some(slot) = self.ids.slot_mut(key, at) else {
            return;
        };
        let ids: Vec<u32> = slot.all().collect();
        for id in ids {
            let Some(before) = self.written.get(&id).copied() else {
                continue;
            };
            let mut entry = before;
            entry.flags &= !entry::server_flag::PRESENT;
            entry.fate = fate;
            if entry != before {
                self.written.insert(id, entry);
                self.write(Write::Server { id, entry });
            }
        }
    }

    /// Ids of deleted servers whose connections expire at once, without a reset.
    #[must_use]
    pub fn ended(&self) -> BTreeSet<u32> {
        let mut ended = BTreeSet::new();
        for (key, slot) in self.ids.doubtful() {
            let fate = of_gone(&self.settings_of(key));
            // A mark's service has flows of several protocols, and the server's id does not name
            // the protocol.
            let udp_only = fate & fate::UDP_ONLY != 0;
            if fate & fate::RESCHEDULED == 0 || (udp_only && !is_udp(key)) {
                continue;
            }
            let gone = slot.servers.values().filter(|server| !server.present);
            ended.extend(gone.flat_map(ServerSlot::all));
        }
        ended
    }

    /// Takes in how full the connection table is.
    pub fn filled(&mut self, fullness: Fullness) {
        self.fullness = fullness;
        self.settle();
    }

    /// Puts out an event if the list of the defences that are up changed. The rate of `drop_packet`
    /// follows the fullness of the connection table, and alone makes no event.
    pub(super) fn note_defences(&mut self) {
        let defences = self.defences();
        let before = std::mem::replace(&mut self.defences, defences);
        if before.up() != defences.up() {
            let up = defences.active();
            self.outputs
                .push_back(Output::Event(Fact::DefencesChanged { up }));
        }
    }

    /// The defences that are up.
    #[must_use]
    pub fn defences(&self) -> Defences {
        Defences::new(&self.table.settings(), self.fullness)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(defence: Defence) -> Settings {
        Settings {
            drop_entry: defence,
            drop_packet: defence,
            secure_tcp: defence,
            am_droprate: 7,
            ..Settings::default()
        }
    }

    fn up(defence: Defence, used: u64) -> (bool, u32, bool) {
        let fullness = Fullness { used, room: 1000 };
        let defences = Defences::new(&settings(defence), fullness);
        (defences.drop_entry, defences.drop_rate, defences.secure_tcp)
    }

    // update_defense_level; rate = amemthresh / (amemthresh - available).
    #[test]
    fn automatic_defences_are_up_while_little_is_free() {
        assert_eq!(up(Defence::Never, 999), (false, 0, false));
        assert_eq!(up(Defence::Always, 0), (true, 7, true));
        assert_eq!(up(Defence::Automatic, 900), (false, 0, false));
        assert_eq!(up(Defence::Automatic, 901), (true, 100, true));
        assert_eq!(up(Defence::Automatic, 950), (true, 2, true));
        assert_eq!(up(Defence::Automatic, 1000), (true, 2, true));
    }

    #[test]
    fn nothing_is_full_before_the_first_look() {
        let defences = Defences::new(&settings(Defence::Automatic), Fullness::default());
        assert_eq!(defences, Defences::default());
        assert_eq!(defences.active(), []);
    }

    #[test]
    fn only_a_mark_is_passed_by() {
        let settings = Settings {
            cache_bypass: true,
            ..Settings::default()
        };
        let mark = "mark 7".parse().unwrap();
        let web = "tcp 192.0.2.1:80".parse().unwrap();
        assert_eq!(switches(&mark, &settings), service_switch::BYPASS);
        assert_eq!(switches(&web, &settings), 0);
    }

    #[test]
    fn what_becomes_of_connections_follows_on_down() {
        let of = |on_down| {
            of_gone(&Settings {
                on_down,
                conn_reuse_mode: 0,
                ..Settings::default()
            })
        };
        let datagrams = fate::RESCHEDULED | fate::UDP_ONLY;
        assert_eq!(of(OnDown::ByProtocol), datagrams | fate::OPENED_ANEW);
        assert_eq!(of(OnDown::Keep), 0);
        assert_eq!(of(OnDown::Reschedule), fate::RESCHEDULED);
        assert_eq!(of(OnDown::Reset), fate::RESET);
        let reused = fate::REUSED | fate::REUSED_FIN_WAIT;
        let settings = Settings {
            on_down: OnDown::Keep,
            conn_reuse_mode: 2,
            ..Settings::default()
        };
        assert_eq!(of_gone(&settings), reused);
    }
}
