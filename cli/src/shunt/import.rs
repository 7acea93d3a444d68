//! `shunt import`: the configuration of another load balancer, as rules, as JSON, or into the
//! daemon.
//!
//! Services and servers that only the daemon has are left alone.

use std::path::PathBuf;

use clap::Subcommand;
use serde::Serialize;
use shunt_model::api::{Done, ServerStatus, ServiceStatus};
use shunt_model::change::{Change, server, service, setting};
use shunt_model::{Counters, Rates, Server, Service, Setting, Timeouts};

use super::sysctl::{self, Meaning};
use super::{Form, Halt, Outside, write_json};
use crate::client::{Client, Failure};
use crate::ipvs::{Entry, Ipvs, NotTaken};
use crate::ipvsadm;

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Read the kernel's IPVS table of this network namespace and print it as "ipvsadm-save -n"
    /// does
    ///
    /// Thresholds are printed too, and timeouts that are not the kernel's default. The kernel's
    /// table stays as it is: once the daemon has it, clear it with the original "ipvsadm -C".
    Ipvs {
        /// Add to the running daemon what it lacks, and edit what differs; leave all else alone
        #[arg(long)]
        apply: bool,
    },
    /// Read the net.ipv4.vs.* sysctls of IPVS and print them as "setting set" commands
    ///
    /// A line without effect in Shunt is printed with the reason.
    Sysctl {
        /// sysctl.conf files, or folders of them such as /etc/sysctl.d; by default the running
        /// kernel's values
        files: Vec<PathBuf>,
        /// Set the values that differ in the running daemon
        #[arg(long)]
        apply: bool,
    },
}

impl Verb {
    /// The exit status shows whether everything was imported.
    pub fn run(&self, outside: &mut Outside<'_>) -> Result<u8, Halt> {
        let apply = match self {
            Verb::Ipvs { apply } => apply,
            Verb::Sysctl { files, apply } => return sysctl(files, *apply, outside),
        };
        let ipvs = (outside.kernel)()?;
        let not_taken = match apply {
            true => apply_to_daemon(ipvs, outside)?,
            false => show(ipvs, outside)?,
        };
        Ok(u8::from(!not_taken.is_empty()))
    }
}

/// Imports the settings of sysctl texts. The exit status shows whether all were imported.
fn sysctl(files: &[PathBuf], apply: bool, outside: &mut Outside<'_>) -> Result<u8, Halt> {
    let kernel = [PathBuf::from(sysctl::KERNEL)];
    if files.is_empty() && !kernel[0].is_dir() {
        let text = "this kernel has no IPVS (no /proc/sys/net/ipv4/vs): name files, such as \
                    /etc/sysctl.conf";
        return Err(Halt::Usage(text.to_owned()));
    }
    let mut lines = Vec::new();
    for file in if files.is_empty() { &kernel } else { files } {
        lines.extend(sysctl::read_path(file)?);
    }
    let mut settings: Vec<Setting> = Vec::new();
    let mut is_whole = true;
    for line in &lines {
        let (at, name, value) = (&line.at, &line.name, &line.value);
        match &line.meaning {
            Meaning::Setting(setting) => {
                // A later line wins over an earlier one.
                settings.retain(|other| other.name() != setting.name());
                settings.push(*setting);
            }
            Meaning::Nothing(why) => writeln!(
                outside.error,
                "{at}: {name} = {value} has no effect here: {why}"
            )?,
            Meaning::Wrong(why) => {
                is_whole = false;
                writeln!(outside.error, "{at}: not imported: {why}")?;
            }
        }
    }
    if apply {
        set_all(&settings, outside)?;
    } else if outside.json {
        write_json(outside.out, &lines, Form::Json)?;
    } else {
        for setting in settings {
            writeln!(outside.out, "shunt setting set {setting}")?;
        }
    }
    Ok(u8::from(!is_whole))
}

fn set_all(settings: &[Setting], outside: &mut Outside<'_>) -> Result<(), Halt> {
    let mut client = (outside.open)()?;
    let known = client.settings()?.all();
    let mut taking = Taking {
        outcome: Outcome::default(),
        client: client.as_mut(),
    };
    for setting in settings {
        if known.contains(setting) {
            taking.outcome.same += 1;
        } else {
            let change = Change::Setting(setting::Change::Set { setting: *setting });
            taking.make(change, || setting.to_string())?;
        }
    }
    let mut outcome = taking.outcome;
    outcome.changed = !outcome.changes.is_empty();
    if outside.json {
        return write_json(outside.out, &outcome, Form::Json);
    }
    for change in &outcome.changes {
        writeln!(outside.out, "{change}")?;
    }
    if !outcome.changed {
        writeln!(
            outside.out,
            "nothing to do: every setting already has its value"
        )?;
    }
    say_not_taken(outside, &outcome.not_taken)
}

/// Writes the table, and to standard error what is left out.
fn show(ipvs: Ipvs, outside: &mut Outside<'_>) -> Result<Vec<NotTaken>, Halt> {
    if outside.json {
        write_json(outside.out, &ipvs, Form::Json)?;
        return Ok(ipvs.not_taken);
    }
    if ipvs.timeouts != Timeouts::default() {
        let Timeouts {
            tcp_s,
            tcp_fin_s,
            udp_s,
        } = ipvs.timeouts;
        writeln!(outside.out, "--set {tcp_s} {tcp_fin_s} {udp_s}")?;
    }
    let services = ipvs.services.into_iter().map(without_traffic).collect();
    ipvsadm::write_rules(outside.out, services)?;
    say_not_taken(outside, &ipvs.not_taken)?;
    Ok(ipvs.not_taken)
}

fn without_traffic(entry: Entry) -> ServiceStatus {
    let of_server = |server| ServerStatus {
        server,
        active_connections: 0,
        inactive_connections: 0,
        persistent_connections: 0,
        counters: Counters::default(),
        rates: Rates::default(),
        next_hop: String::new(),
        eligibility: Default::default(),
    };
    ServiceStatus {
        service: entry.service,
        counters: Counters::default(),
        rates: Rates::default(),
        short_list: None,
        servers: entry.servers.into_iter().map(of_server).collect(),
    }
}

/// The result of an import, as `--json` prints it.
#[derive(Debug, Default, Serialize)]
struct Outcome {
    changed: bool,
    changes: Vec<Change>,
    /// The number of services, servers and timeouts that were already correct.
    same: usize,
    not_taken: Vec<NotTaken>,
    /// What the daemon did differently from the request.
    notes: Vec<String>,
}

fn apply_to_daemon(ipvs: Ipvs, outside: &mut Outside<'_>) -> Result<Vec<NotTaken>, Halt> {
    let mut client = (outside.open)()?;
    let mut taking = Taking {
        outcome: Outcome {
            not_taken: ipvs.not_taken,
            ..Outcome::default()
        },
        client: client.as_mut(),
    };
    taking.timeouts(ipvs.timeouts)?;
    let known = taking.client.services()?;
    // Each list grows at its front. Adding from the back keeps the kernel's order, which some
    // schedulers follow.
    for Entry { service, servers } in ipvs.services.into_iter().rev() {
        let mut places = known.iter();
        let known = places.find(|known| known.service.key == service.key);
        taking.entry(service, servers, known)?;
    }
    let mut outcome = taking.outcome;
    outcome.changed = !outcome.changes.is_empty();
    if outside.json {
        write_json(outside.out, &outcome, Form::Json)?;
        return Ok(outcome.not_taken);
    }
    for change in &outcome.changes {
        writeln!(outside.out, "{change}")?;
    }
    for note in &outcome.notes {
        writeln!(outside.error, "{note}")?;
    }
    say_not_taken(outside, &outcome.not_taken)?;
    let (changes, same) = (outcome.changes.len(), outcome.same);
    match (outcome.changed, outcome.not_taken.len()) {
        (false, 0) => writeln!(
            outside.out,
            "nothing to do: the daemon already has the kernel's table"
        )?,
        (_, not_taken) => writeln!(
            outside.out,
            "{changes} changed, {same} unchanged, {not_taken} not imported"
        )?,
    }
    Ok(outcome.not_taken)
}

fn say_not_taken(outside: &mut Outside<'_>, not_taken: &[NotTaken]) -> Result<(), Halt> {
    for NotTaken { what, why } in not_taken {
        writeln!(outside.error, "not imported: {what}: {why}")?;
    }
    Ok(())
}

/// Applies one object after the other to the daemon, and records what it refuses.
struct Taking<'a> {
    client: &'a mut dyn Client,
    outcome: Outcome,
}

impl Taking<'_> {
    fn timeouts(&mut self, timeouts: Timeouts) -> Result<(), Failure> {
        if self.client.timeouts()? == timeouts {
            self.outcome.same += 1;
            return Ok(());
        }
        let change = Change::Setting(setting::Change::Timeouts { timeouts });
        self.make(change, || "timeouts".to_owned())?;
        Ok(())
    }

    fn entry(
        &mut self,
        service: Service,
        servers: Vec<Server>,
        known: Option<&ServiceStatus>,
    ) -> Result<(), Failure> {
        let key = service.key;
        // The kernel has no settings for a single service, so the daemon's stay.
        let settings = known.map_or(service.settings, |known| known.service.settings);
        let service = Service {
            settings,
            ..service
        };
        let what = || format!("service {key}");
        match known {
            Some(known) if known.service == service => self.outcome.same += 1,
            // A refused edit leaves the service in place, so its servers are still imported.
            Some(_) => {
                self.make(Change::Service(service::Change::Edit { service }), what)?;
            }
            None => {
                let what = || match servers.is_empty() {
                    true => format!("service {key}"),
                    false => format!("service {key}, with its servers"),
                };
                if !self.make(Change::Service(service::Change::Add { service }), what)? {
                    return Ok(());
                }
            }
        }
        for server in servers.into_iter().rev() {
            let at = server.at;
            let mut there = known.into_iter().flat_map(|known| &known.servers);
            let change = match there.find(|known| known.server.at == at) {
                Some(known) if known.server == server => {
                    self.outcome.same += 1;
                    continue;
                }
                Some(_) => Change::Server(server::Change::Edit { key, server }),
                None => Change::Server(server::Change::Add { key, server }),
            };
            self.make(change, || format!("server {at} of service {key}"))?;
        }
        Ok(())
    }

    /// Returns whether the daemon made the change. An unreachable daemon is an error, not a
    /// refusal.
    fn make(&mut self, change: Change, what: impl Fn() -> String) -> Result<bool, Failure> {
        match self.client.change(&change) {
            Ok(Done { notes }) => {
                self.outcome.notes.extend(notes);
                self.outcome.changes.push(change);
                Ok(true)
            }
            Err(Failure::Refused(refusal)) => {
                self.outcome.not_taken.push(NotTaken {
                    what: what(),
                    why: refusal.text,
                });
                Ok(false)
            }
            Err(other) => Err(other),
        }
    }
}
