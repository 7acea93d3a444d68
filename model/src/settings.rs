//! Settings of the director, some of which a service may override.
//!
//! A setting that IPVS has in `net.ipv4.vs.*` has the same name here
//! (Documentation/networking/ipvs-sysctl.rst). IPVS does not have `on_down` and
//! `defence_threshold`.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::nearest::proposal;

/// What becomes of the connections of a server that was removed from its pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnDown {
    /// As `reschedule` for UDP and as `keep` for all else, except that a SYN begins another
    /// connection.
    #[default]
    ByProtocol,
    /// Packets of the connection are dropped until it ends or the server is back
    /// (`expire_nodest_conn = 0`).
    Keep,
    /// The connection ends. Its next packet is scheduled, or goes to the kernel, which rejects it
    /// (`expire_nodest_conn = 1`).
    Reschedule,
    /// The director rejects the next packet from either side: TCP by a reset, UDP by "port
    /// unreachable".
    Reset,
}

impl OnDown {
    const NAMES: [&'static str; 4] = ["by_protocol", "keep", "reschedule", "reset"];
}

impl fmt::Display for OnDown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::NAMES[*self as usize])
    }
}

/// When a defence against floods (`drop_entry`, `drop_packet`, `secure_tcp`) is active.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Defence {
    /// Written 0.
    #[default]
    Never,
    /// Written 1, or 2, which IPVS shows while the defence is active. The defence is active while
    /// less of the connection table is free than `defence_threshold`.
    Automatic,
    /// Written 3.
    Always,
}

impl fmt::Display for Defence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Defence::Never => "0",
            Defence::Automatic => "1",
            Defence::Always => "3",
        })
    }
}

/// The settings of a director.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Which closing connections a SYN begins anew. 0: none. 1: those in TIME_WAIT and CLOSE. 2:
    /// also those in FIN_WAIT whose answers do not pass the director.
    pub conn_reuse_mode: u8,
    /// What becomes of connections whose server was removed.
    pub on_down: OnDown,
    /// New connections of a persistent client leave a server of weight 0.
    pub expire_quiescent_template: bool,
    /// Packets to a mark's service without an available server are left to the kernel's routes.
    pub cache_bypass: bool,
    /// ICMP errors to a virtual address are scheduled.
    pub schedule_icmp: bool,
    /// Any TCP segment opens a connection, not only a SYN.
    pub sloppy_tcp: bool,
    /// Any SCTP chunk opens an association, not only INIT.
    pub sloppy_sctp: bool,
    /// A masqueraded server whose packets belong to no connection gets "port unreachable".
    pub nat_icmp_send: bool,
    /// Removes half-open connections early.
    pub drop_entry: Defence,
    /// Drops a part of the new connections.
    pub drop_packet: Defence,
    /// Follows stricter TCP states, whose timeouts are shorter.
    pub secure_tcp: Defence,
    /// `drop_packet` drops one new connection of this many while it is `always`.
    pub am_droprate: u32,
    /// Percent of the connection table. Automatic defences are active while less of it is free.
    pub defence_threshold: u8,
}

impl Default for Settings {
    /// The defaults of IPVS, except for `on_down`.
    fn default() -> Self {
        Self {
            conn_reuse_mode: 1,
            on_down: OnDown::ByProtocol,
            expire_quiescent_template: false,
            cache_bypass: false,
            schedule_icmp: false,
            sloppy_tcp: false,
            sloppy_sctp: false,
            nat_icmp_send: false,
            drop_entry: Defence::Never,
            drop_packet: Defence::Never,
            secure_tcp: Defence::Never,
            am_droprate: 10,
            defence_threshold: 10,
        }
    }
}

/// The settings of a service that differ from the director's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServiceSettings {
    /// See [`Settings::conn_reuse_mode`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conn_reuse_mode: Option<u8>,
    /// See [`Settings::on_down`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_down: Option<OnDown>,
    /// See [`Settings::expire_quiescent_template`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expire_quiescent_template: Option<bool>,
    /// See [`Settings::cache_bypass`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_bypass: Option<bool>,
    /// See [`Settings::schedule_icmp`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule_icmp: Option<bool>,
    /// See [`Settings::sloppy_tcp`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sloppy_tcp: Option<bool>,
    /// See [`Settings::sloppy_sctp`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sloppy_sctp: Option<bool>,
}

impl ServiceSettings {
    /// Whether the service overrides no setting.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Settings {
    /// The values in force for a service with these settings.
    #[must_use]
    pub fn of(self, own: &ServiceSettings) -> Self {
        Self {
            conn_reuse_mode: own.conn_reuse_mode.unwrap_or(self.conn_reuse_mode),
            on_down: own.on_down.unwrap_or(self.on_down),
            expire_quiescent_template: own
                .expire_quiescent_template
                .unwrap_or(self.expire_quiescent_template),
            cache_bypass: own.cache_bypass.unwrap_or(self.cache_bypass),
            schedule_icmp: own.schedule_icmp.unwrap_or(self.schedule_icmp),
            sloppy_tcp: own.sloppy_tcp.unwrap_or(self.sloppy_tcp),
            sloppy_sctp: own.sloppy_sctp.unwrap_or(self.sloppy_sctp),
            ..self
        }
    }

    /// Every setting with its value, in the order of the manual.
    #[must_use]
    pub fn all(&self) -> Vec<Setting> {
        vec![
            Setting::ConnReuseMode(self.conn_reuse_mode),
            Setting::OnDown(self.on_down),
            Setting::ExpireQuiescentTemplate(self.expire_quiescent_template),
            Setting::CacheBypass(self.cache_bypass),
            Setting::ScheduleIcmp(self.schedule_icmp),
            Setting::SloppyTcp(self.sloppy_tcp),
            Setting::SloppySctp(self.sloppy_sctp),
            Setting::NatIcmpSend(self.nat_icmp_send),
            Setting::DropEntry(self.drop_entry),
            Setting::DropPacket(self.drop_packet),
            Setting::SecureTcp(self.secure_tcp),
            Setting::AmDroprate(self.am_droprate),
            Setting::DefenceThreshold(self.defence_threshold),
        ]
    }

    /// Gives one setting another value.
    pub fn set(&mut self, setting: Setting) {
        match setting {
            Setting::ConnReuseMode(value) => self.conn_reuse_mode = value,
            Setting::OnDown(value) => self.on_down = value,
            Setting::ExpireQuiescentTemplate(value) => self.expire_quiescent_template = value,
            Setting::CacheBypass(value) => self.cache_bypass = value,
            Setting::ScheduleIcmp(value) => self.schedule_icmp = value,
            Setting::SloppyTcp(value) => self.sloppy_tcp = value,
            Setting::SloppySctp(value) => self.sloppy_sctp = value,
            Setting::NatIcmpSend(value) => self.nat_icmp_send = value,
            Setting::DropEntry(value) => self.drop_entry = value,
            Setting::DropPacket(value) => self.drop_packet = value,
            Setting::SecureTcp(value) => self.secure_tcp = value,
            Setting::AmDroprate(value) => self.am_droprate = value,
            Setting::DefenceThreshold(value) => self.defence_threshold = value,
        }
    }
}

impl ServiceSettings {
    /// The settings that the service overrides.
    #[must_use]
    pub fn all(&self) -> Vec<Setting> {
        let all = [
            self.conn_reuse_mode.map(Setting::ConnReuseMode),
            self.on_down.map(Setting::OnDown),
            self.expire_quiescent_template
                .map(Setting::ExpireQuiescentTemplate),
            self.cache_bypass.map(Setting::CacheBypass),
            self.schedule_icmp.map(Setting::ScheduleIcmp),
            self.sloppy_tcp.map(Setting::SloppyTcp),
            self.sloppy_sctp.map(Setting::SloppySctp),
        ];
        all.into_iter().flatten().collect()
    }

    /// Overrides one setting, or fails if only the director can have it.
    pub fn set(&mut self, setting: Setting) -> Result<(), NotOfAService> {
        match setting {
            Setting::ConnReuseMode(value) => self.conn_reuse_mode = Some(value),
            Setting::OnDown(value) => self.on_down = Some(value),
            Setting::ExpireQuiescentTemplate(value) => {
                self.expire_quiescent_template = Some(value);
            }
            Setting::CacheBypass(value) => self.cache_bypass = Some(value),
            Setting::ScheduleIcmp(value) => self.schedule_icmp = Some(value),
            Setting::SloppyTcp(value) => self.sloppy_tcp = Some(value),
            Setting::SloppySctp(value) => self.sloppy_sctp = Some(value),
            Setting::NatIcmpSend(_)
            | Setting::DropEntry(_)
            | Setting::DropPacket(_)
            | Setting::SecureTcp(_)
            | Setting::AmDroprate(_)
            | Setting::DefenceThreshold(_) => {
                return Err(NotOfAService {
                    name: setting.name(),
                });
            }
        }
        Ok(())
    }

    /// Removes an override, so that the director's value holds again.
    pub fn unset(&mut self, name: &str) -> Result<(), UnreadableSetting> {
        match name {
            "conn_reuse_mode" => self.conn_reuse_mode = None,
            "on_down" | "expire_nodest_conn" => self.on_down = None,
            "expire_quiescent_template" => self.expire_quiescent_template = None,
            "cache_bypass" => self.cache_bypass = None,
            "schedule_icmp" => self.schedule_icmp = None,
            "sloppy_tcp" => self.sloppy_tcp = None,
            "sloppy_sctp" => self.sloppy_sctp = None,
            _ => return Err(unknown(name)),
        }
        Ok(())
    }
}

/// A setting with its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "name", content = "value", rename_all = "snake_case")]
pub enum Setting {
    /// See [`Settings::conn_reuse_mode`].
    ConnReuseMode(u8),
    /// See [`Settings::on_down`].
    OnDown(OnDown),
    /// See [`Settings::expire_quiescent_template`].
    ExpireQuiescentTemplate(bool),
    /// See [`Settings::cache_bypass`].
    CacheBypass(bool),
    /// See [`Settings::schedule_icmp`].
    ScheduleIcmp(bool),
    /// See [`Settings::sloppy_tcp`].
    SloppyTcp(bool),
    /// See [`Settings::sloppy_sctp`].
    SloppySctp(bool),
    /// See [`Settings::nat_icmp_send`].
    NatIcmpSend(bool),
    /// See [`Settings::drop_entry`].
    DropEntry(Defence),
    /// See [`Settings::drop_packet`].
    DropPacket(Defence),
    /// See [`Settings::secure_tcp`].
    SecureTcp(Defence),
    /// See [`Settings::am_droprate`].
    AmDroprate(u32),
    /// See [`Settings::defence_threshold`].
    DefenceThreshold(u8),
}

/// Every name: the settings in the order of [`Settings::all`], then the other accepted names.
const NAMES: [&str; 14] = [
    "conn_reuse_mode",
    "on_down",
    "expire_quiescent_template",
    "cache_bypass",
    "schedule_icmp",
    "sloppy_tcp",
    "sloppy_sctp",
    "nat_icmp_send",
    "drop_entry",
    "drop_packet",
    "secure_tcp",
    "am_droprate",
    "defence_threshold",
    "expire_nodest_conn",
];

impl Setting {
    /// The name, as the manual and `shunt setting` have it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Setting::ConnReuseMode(_) => "conn_reuse_mode",
            Setting::OnDown(_) => "on_down",
            Setting::ExpireQuiescentTemplate(_) => "expire_quiescent_template",
            Setting::CacheBypass(_) => "cache_bypass",
            Setting::ScheduleIcmp(_) => "schedule_icmp",
            Setting::SloppyTcp(_) => "sloppy_tcp",
            Setting::SloppySctp(_) => "sloppy_sctp",
            Setting::NatIcmpSend(_) => "nat_icmp_send",
            Setting::DropEntry(_) => "drop_entry",
            Setting::DropPacket(_) => "drop_packet",
            Setting::SecureTcp(_) => "secure_tcp",
            Setting::AmDroprate(_) => "am_droprate",
            Setting::DefenceThreshold(_) => "defence_threshold",
        }
    }

    /// The value in the words of `shunt setting`.
    #[must_use]
    pub fn value(&self) -> String {
        match self {
            Setting::ConnReuseMode(value) | Setting::DefenceThreshold(value) => value.to_string(),
            Setting::OnDown(value) => value.to_string(),
            Setting::ExpireQuiescentTemplate(value)
            | Setting::CacheBypass(value)
            | Setting::ScheduleIcmp(value)
            | Setting::SloppyTcp(value)
            | Setting::SloppySctp(value)
            | Setting::NatIcmpSend(value) => u8::from(*value).to_string(),
            Setting::DropEntry(value) | Setting::DropPacket(value) | Setting::SecureTcp(value) => {
                value.to_string()
            }
            Setting::AmDroprate(value) => value.to_string(),
        }
    }

    /// Reads a name and its value, in words or in the numbers of IPVS.
    pub fn read(name: &str, value: &str) -> Result<Self, UnreadableSetting> {
        let wrong = |what: &'static str| UnreadableSetting::Value {
            name: name.to_owned(),
            value: value.to_owned(),
            what,
        };
        let switch = || switch(value).ok_or(wrong("0 or 1"));
        let defence = || defence(value).ok_or(wrong("0 (never), 1 (automatic) or 3 (always)"));
        let number = |most: u32, what| match value.parse() {
            Ok(number) if (1..=most).contains(&number) => Ok(number),
            _ => Err(wrong(what)),
        };
        Ok(match name {
            "conn_reuse_mode" => match value.parse() {
                Ok(mode @ 0..=2) => Setting::ConnReuseMode(mode),
                // The value is a bitmap in IPVS. Its second bit includes what the first one does.
                Ok(3) => Setting::ConnReuseMode(2),
                _ => return Err(wrong("0, 1 or 2")),
            },
            "on_down" => {
                let what = "by_protocol, keep, reschedule or reset";
                Setting::OnDown(on_down(value).ok_or(wrong(what))?)
            }
            "expire_nodest_conn" => Setting::OnDown(match switch()? {
                true => OnDown::Reschedule,
                false => OnDown::Keep,
            }),
            "expire_quiescent_template" => Setting::ExpireQuiescentTemplate(switch()?),
            "cache_bypass" => Setting::CacheBypass(switch()?),
            "schedule_icmp" => Setting::ScheduleIcmp(switch()?),
            "sloppy_tcp" => Setting::SloppyTcp(switch()?),
            "sloppy_sctp" => Setting::SloppySctp(switch()?),
            "nat_icmp_send" => Setting::NatIcmpSend(switch()?),
            "drop_entry" => Setting::DropEntry(defence()?),
            "drop_packet" => Setting::DropPacket(defence()?),
            "secure_tcp" => Setting::SecureTcp(defence()?),
            "am_droprate" => Setting::AmDroprate(number(1 << 30, "a number from 1 to 1073741824")?),
            "defence_threshold" => {
                let percent = number(100, "percent, a number from 1 to 100")?;
                Setting::DefenceThreshold(u8::try_from(percent).unwrap_or(100))
            }
            _ => return Err(unknown(name)),
        })
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name(), self.value())
    }
}

/// IPVS treats every number except 0 as yes.
fn switch(text: &str) -> Option<bool> {
    match text {
        "yes" | "on" => Some(true),
        "no" | "off" => Some(false),
        number => number.parse::<i64>().ok().map(|number| number != 0),
    }
}

fn defence(text: &str) -> Option<Defence> {
    match text {
        "0" | "never" => Some(Defence::Never),
        "1" | "2" | "automatic" => Some(Defence::Automatic),
        "3" | "always" => Some(Defence::Always),
        _ => None,
    }
}

fn on_down(text: &str) -> Option<OnDown> {
    match text {
        "by_protocol" => Some(OnDown::ByProtocol),
        "keep" => Some(OnDown::Keep),
        "reschedule" => Some(OnDown::Reschedule),
        "reset" => Some(OnDown::Reset),
        _ => None,
    }
}

/// The text is not a setting.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the text of each variant describes it")]
pub enum UnreadableSetting {
    #[error("there is no setting \"{name}\"{}", proposal(name, &NAMES))]
    Name { name: String },
    #[error("{name} is {what}, not \"{value}\"")]
    Value {
        name: String,
        value: String,
        what: &'static str,
    },
}

fn unknown(name: &str) -> UnreadableSetting {
    UnreadableSetting::Name {
        name: name.to_owned(),
    }
}

/// Only the director can have this setting.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} is the same for all services; set it by \"shunt setting set {name} VALUE\"")]
pub struct NotOfAService {
    name: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_is_read_as_it_is_written() {
        let all = Settings::default().all();
        let names: Vec<&str> = all.iter().map(Setting::name).collect();
        assert_eq!(names, NAMES[..13]);
        for setting in all {
            let read = Setting::read(setting.name(), &setting.value());
            assert_eq!(read, Ok(setting));
        }
        for name in OnDown::NAMES {
            let read = Setting::read("on_down", name).unwrap();
            assert_eq!(read.value(), name);
        }
    }

    #[test]
    fn the_kernels_numbers_are_understood() {
        let read = |name, value| Setting::read(name, value).unwrap().to_string();
        assert_eq!(read("expire_nodest_conn", "1"), "on_down reschedule");
        assert_eq!(read("expire_nodest_conn", "0"), "on_down keep");
        assert_eq!(read("sloppy_tcp", "17"), "sloppy_tcp 1");
        assert_eq!(read("drop_entry", "2"), "drop_entry 1");
        assert_eq!(read("conn_reuse_mode", "3"), "conn_reuse_mode 2");
    }

    #[test]
    fn what_cannot_be_is_told_why() {
        let told = |name, value| Setting::read(name, value).unwrap_err().to_string();
        assert_eq!(
            told("slopy_tcp", "1"),
            "there is no setting \"slopy_tcp\", did you mean \"sloppy_tcp\"?"
        );
        assert_eq!(
            told("drop_entry", "4"),
            "drop_entry is 0 (never), 1 (automatic) or 3 (always), not \"4\""
        );
        assert_eq!(
            told("am_droprate", "0"),
            "am_droprate is a number from 1 to 1073741824, not \"0\""
        );
    }

    #[test]
    fn a_service_has_its_own_and_else_the_directors() {
        let mut own = ServiceSettings::default();
        own.set(Setting::SloppyTcp(true)).unwrap();
        let director = Settings {
            conn_reuse_mode: 2,
            ..Settings::default()
        };
        let of = director.of(&own);
        assert!(of.sloppy_tcp && of.conn_reuse_mode == 2);
        own.unset("sloppy_tcp").unwrap();
        assert!(own.is_empty());
        assert_eq!(
            own.set(Setting::AmDroprate(3)).unwrap_err().to_string(),
            "am_droprate is the same for all services; \
             set it by \"shunt setting set am_droprate VALUE\""
        );
    }
}
