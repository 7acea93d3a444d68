//! `shunt setting`: the settings of the director. `--set`: those that a service overrides.

use std::io::Write;
use std::str::FromStr;

use clap::{Args, Subcommand};
use shunt_model::change::{Change, setting};
use shunt_model::{OnDown, Service, Setting, Settings};

use super::change::{Wanted, make};
use super::table::{Side, Table};
use super::watch::{self, Watch};
use super::{Form, Halt, Outside, write_json};
use crate::client::Client;

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// List the settings with their values, defaults and meanings
    #[command(visible_alias = "show")]
    List(Watch),
    /// Set a value for the director and for each service that does not override it
    Set {
        /// The name as "setting list" shows it; expire_nodest_conn is accepted too
        name: String,
        /// A number as in IPVS, or a word
        value: String,
    },
}

impl Verb {
    pub(super) fn run(&self, outside: &mut Outside<'_>) -> Result<(), Halt> {
        match self {
            Verb::List(watch) => watch::show(outside, *watch, &draw),
            Verb::Set { name, value } => {
                let setting = Setting::read(name, value);
                let setting = setting.map_err(|error| Halt::Usage(error.to_string()))?;
                make(outside, |client| set(client, setting))
            }
        }
    }
}

fn set(client: &mut dyn Client, setting: Setting) -> Result<Wanted, Halt> {
    let before = client.settings()?;
    let mut after = before;
    after.set(setting);
    let name = setting.name();
    if before == after {
        return Ok(Wanted::nothing(&format!("{setting} is already set")));
    }
    let known = before.all().into_iter();
    let value = known.filter(|known| known.name() == name);
    let value = value.map(|known| known.value()).collect::<String>();
    let text = format!("changed setting {name} {value} -> {}", setting.value());
    Ok(Wanted::change(
        Change::Setting(setting::Change::Set { setting }),
        text,
    ))
}

fn draw(client: &mut dyn Client, out: &mut dyn Write, form: Form) -> Result<(), Halt> {
    let settings = client.settings()?;
    if form != Form::Text {
        return write_json(out, &settings, form);
    }
    let mut table = Table::new(&[
        ("SETTING", Side::Left),
        ("VALUE", Side::Left),
        ("DEFAULT", Side::Left),
        ("MEANING", Side::Left),
    ]);
    for (setting, default) in settings.all().iter().zip(Settings::default().all()) {
        table.row([
            setting.name().to_owned(),
            setting.value(),
            default.value(),
            meaning(setting).to_owned(),
        ]);
    }
    Ok(table.write(out)?)
}

/// The settings that differ from their defaults, in one line.
pub(super) fn different(settings: &Settings) -> Option<String> {
    let both = settings.all().into_iter().zip(Settings::default().all());
    let different = both.filter(|(setting, default)| setting != default);
    let texts: Vec<String> = different.map(|(setting, _)| setting.to_string()).collect();
    (!texts.is_empty()).then(|| texts.join(", "))
}

/// The meaning of a value, in a few words.
fn meaning(setting: &Setting) -> &'static str {
    match setting {
        Setting::ConnReuseMode(0) => "a SYN never reopens a closing connection",
        Setting::ConnReuseMode(1) => "a SYN reopens a connection in TIME_WAIT or CLOSE",
        Setting::ConnReuseMode(_) => "a SYN reopens a connection in TIME_WAIT, CLOSE or FIN_WAIT",
        Setting::OnDown(OnDown::ByProtocol) => {
            "connections of a deleted server: reschedule for UDP and a SYN, keep for others"
        }
        Setting::OnDown(OnDown::Keep) => "packets of a deleted server's connections are dropped",
        Setting::OnDown(OnDown::Reschedule) => {
            "a deleted server's connections end at their next packet"
        }
        Setting::OnDown(OnDown::Reset) => "senders to a deleted server get a reset or ICMP error",
        Setting::ExpireQuiescentTemplate(false) => "persistent clients stay with a quiesced server",
        Setting::ExpireQuiescentTemplate(true) => "persistent clients leave a quiesced server",
        Setting::CacheBypass(false) => "a mark's packets without a server get an ICMP error",
        Setting::CacheBypass(true) => "a mark's packets without a server take the kernel's routes",
        Setting::ScheduleIcmp(false) => "ICMP opens no connection",
        Setting::ScheduleIcmp(true) => "ICMP errors about no connection are scheduled",
        Setting::SloppyTcp(false) => "only a SYN opens a TCP connection",
        Setting::SloppyTcp(true) => "any segment opens a TCP connection",
        Setting::SloppySctp(false) => "only INIT opens an SCTP association",
        Setting::SloppySctp(true) => "any chunk opens an SCTP association",
        Setting::NatIcmpSend(false) => "a masqueraded server's packets of no connection may pass",
        Setting::NatIcmpSend(true) => {
            "a masqueraded server's packets of no connection get an error"
        }
        Setting::DropEntry(_) => "remove half-open connections: 0 never, 1 if full, 3 always",
        Setting::DropPacket(_) => "drop some new connections: 0 never, 1 if full, 3 always",
        Setting::SecureTcp(_) => "TCP states that resist floods: 0 never, 1 if full, 3 always",
        Setting::AmDroprate(_) => "drop_packet 3 drops one of this many",
        Setting::DefenceThreshold(_) => "full: less than this percentage of the table is free",
    }
}

/// The settings that a service overrides.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct Own {
    /// What becomes of the connections of a deleted server: keep (packets are dropped until the
    /// server is back), reschedule, reset (senders get a reset or an ICMP error), by_protocol
    /// (reschedule for UDP and for a SYN, keep for all else), or default for the director's value
    #[arg(long, value_name = "FATE")]
    on_down: Option<String>,
    /// A setting to override for this service, as in "setting list"; the value "default" removes
    /// the override
    #[arg(long, value_name = "NAME=VALUE", value_delimiter = ',')]
    set: Vec<Pair>,
}

#[derive(Clone, Debug)]
struct Pair {
    name: String,
    value: String,
}

impl FromStr for Pair {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, value)) => Ok(Self {
                name: name.to_owned(),
                value: value.to_owned(),
            }),
            None => Err(format!(
                "\"{text}\" is not a setting and value; write NAME=VALUE, such as sloppy_tcp=1"
            )),
        }
    }
}

impl Own {
    /// Puts the options into a service, or fails with the reason.
    pub(super) fn put(&self, service: &mut Service) -> Result<(), String> {
        let on_down = self.on_down.iter().map(|value| Pair {
            name: "on_down".to_owned(),
            value: value.clone(),
        });
        for Pair { name, value } in on_down.chain(self.set.iter().cloned()) {
            if value == "default" {
                let unset = service.settings.unset(&name);
                unset.map_err(|error| error.to_string())?;
                continue;
            }
            let setting = Setting::read(&name, &value).map_err(|error| error.to_string())?;
            let set = service.settings.set(setting);
            set.map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}

/// `on_down reset, sloppy_tcp 1`, or `the director's`.
pub(super) fn text(service: &Service) -> String {
    let own = service.settings.all();
    if own.is_empty() {
        return "the director's".to_owned();
    }
    let texts: Vec<String> = own.iter().map(Setting::to_string).collect();
    texts.join(", ")
}
