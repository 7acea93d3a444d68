//! `shunt import`: the configuration of another load balancer, as rules, as JSON, or into the
//! daemon.
//!
//! Services and servers that only the daemon has are left alone.

use std::path::PathBuf;

use clap::Subcommand;
use serde::Serialize;
use shunt_model::api::{Reason, Refusal, ServerStatus, ServiceStatus};
use shunt_model::batch::{Batch, Mode, Refused};
use shunt_model::change::{Change, server, service, setting};
use shunt_model::wanted::{Pool, Wanted};
use shunt_model::{Counters, Rates, Service, Setting, Timeouts};

use super::sysctl::{self, Meaning};
use super::{Form, Halt, Outside, write_json};
use crate::client::{Client, Failure};
use crate::ipvs::{Entry, Ipvs, NotTaken};
use crate::ipvsadm;

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
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
    pub(super) fn run(&self, outside: &mut Outside<'_>) -> Result<u8, Halt> {
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
    let present = client.present()?;
    let mut wanted = present.clone();
    for setting in settings {
        wanted.settings.set(*setting);
    }
    let outcome = Taking::new(present, wanted).make(client.as_mut(), settings.len())?;
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
        next_hop: None,
        out_of_reach: None,
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
}

fn apply_to_daemon(ipvs: Ipvs, outside: &mut Outside<'_>) -> Result<Vec<NotTaken>, Halt> {
    let mut client = (outside.open)()?;
    let present = client.present()?;
    let objects = |entry: &Entry| 1 + entry.servers.len();
    let count = 1 + ipvs.services.iter().map(objects).sum::<usize>();
    let mut wanted = present.clone();
    wanted.timeouts = ipvs.timeouts;
    // Each list grows at its front. Adding from the back keeps the kernel's order, which some
    // schedulers follow.
    for entry in ipvs.services.into_iter().rev() {
        want(&mut wanted, entry);
    }
    let mut outcome = Taking::new(present, wanted).make(client.as_mut(), count)?;
    let refused = std::mem::replace(&mut outcome.not_taken, ipvs.not_taken);
    outcome.not_taken.extend(refused);
    if outside.json {
        write_json(outside.out, &outcome, Form::Json)?;
        return Ok(outcome.not_taken);
    }
    for change in &outcome.changes {
        writeln!(outside.out, "{change}")?;
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

/// Puts a service of the kernel's table into what is wanted. Servers that only the daemon has stay.
fn want(wanted: &mut Wanted, entry: Entry) {
    let Entry { service, servers } = entry;
    let key = service.key;
    let servers = servers.into_iter().rev();
    let Some(pool) = wanted.pool_mut(&key) else {
        let servers = servers.collect();
        wanted.services.push(Pool { service, servers });
        return;
    };
    // The kernel has no settings for a single service, so the daemon's stay.
    pool.service = Service {
        settings: pool.service.settings,
        ..service
    };
    for server in servers {
        match pool.servers.iter_mut().find(|known| known.at == server.at) {
            Some(known) => *known = server,
            None => pool.servers.push(server),
        }
    }
}

/// The most times that a batch is sent again without what was refused.
const ROUNDS: usize = 16;

/// Makes what is wanted out of what is present, in one batch: all of it or nothing. What the daemon
/// refuses is left out of the batch and named.
struct Taking {
    present: Wanted,
    wanted: Wanted,
    not_taken: Vec<NotTaken>,
    /// How many objects are not taken: a service counts with its servers.
    left_out: usize,
}

impl Taking {
    fn new(present: Wanted, wanted: Wanted) -> Self {
        Self {
            present,
            wanted,
            not_taken: Vec::new(),
            left_out: 0,
        }
    }

    /// `count` objects are wanted, those included that are correct already.
    fn make(mut self, client: &mut dyn Client, count: usize) -> Result<Outcome, Failure> {
        for _ in 0..ROUNDS {
            let batch = Batch {
                mode: Mode::Whole,
                changes: self.wanted.changes(&self.present),
            };
            let refused = match batch.changes.is_empty() {
                true => Vec::new(),
                false => client.batch(&batch)?,
            };
            if refused.is_empty() {
                let changes = batch.changes;
                return Ok(Outcome {
                    changed: !changes.is_empty(),
                    same: count.saturating_sub(changes.len() + self.left_out),
                    changes,
                    not_taken: self.not_taken,
                });
            }
            for Refused { index, refusal } in refused {
                match batch.changes.get(index) {
                    Some(change) => self.leave_out(change, refusal),
                    None => return Err(Failure::Refused(refusal)),
                }
            }
        }
        Err(Failure::Refused(Refusal {
            reason: Reason::BadRequest,
            text: format!(
                "more than {} objects were refused, so nothing was imported; the first is {}",
                self.not_taken.len(),
                self.not_taken
                    .first()
                    .map_or_else(String::new, |first| format!(
                        "{}: {}",
                        first.what, first.why
                    ))
            ),
        }))
    }

    /// Takes a refused change back: that object stays as it is.
    fn leave_out(&mut self, change: &Change, refusal: Refusal) {
        let what = match change {
            Change::Service(change) => self.leave_out_service(change),
            Change::Server(change) => self.leave_out_server(change),
            Change::Setting(change) => Some(self.leave_out_value(change)),
            // An import has neither marks nor local addresses.
            Change::Mark(_) | Change::Local(_) => Some(change.to_string()),
        };
        if let Some(what) = what {
            let why = refusal.text;
            self.not_taken.push(NotTaken { what, why });
        }
    }

    fn leave_out_service(&mut self, change: &service::Change) -> Option<String> {
        match change {
            service::Change::Add { service } => {
                let key = service.key;
                let pools = self.wanted.services.iter();
                let place = pools.clone().position(|pool| pool.service.key == key)?;
                let pool = self.wanted.services.remove(place);
                self.left_out += 1 + pool.servers.len();
                Some(match pool.servers.is_empty() {
                    true => format!("service {key}"),
                    false => format!("service {key}, with its servers"),
                })
            }
            // A refused edit leaves the service in place, so its servers are still imported.
            service::Change::Edit { service } => {
                let known = self.present.pool_mut(&service.key)?.service.clone();
                self.wanted.pool_mut(&service.key)?.service = known;
                self.left_out += 1;
                Some(format!("service {}", service.key))
            }
            service::Change::Delete { .. }
            | service::Change::Flush
            | service::Change::Zero { .. } => None,
        }
    }

    /// Nothing for a server whose service is left out.
    fn leave_out_server(&mut self, change: &server::Change) -> Option<String> {
        let (key, at) = match change {
            server::Change::Add { key, server } | server::Change::Edit { key, server } => {
                (*key, server.at)
            }
            server::Change::Delete { key, at } => (*key, *at),
        };
        let before = self.present.pool_mut(&key);
        let before = before.and_then(|pool| pool.servers.iter().find(|server| server.at == at));
        let before = before.cloned();
        let servers = &mut self.wanted.pool_mut(&key)?.servers;
        let place = servers.iter().position(|server| server.at == at)?;
        match before {
            Some(before) => drop(std::mem::replace(&mut servers[place], before)),
            None => drop(servers.remove(place)),
        }
        self.left_out += 1;
        Some(format!("server {at} of service {key}"))
    }

    fn leave_out_value(&mut self, change: &setting::Change) -> String {
        self.left_out += 1;
        match change {
            setting::Change::Timeouts { .. } => {
                self.wanted.timeouts = self.present.timeouts;
                "timeouts".to_owned()
            }
            setting::Change::Set { setting } => {
                let known = self.present.settings.all().into_iter();
                for known in known.filter(|known| known.name() == setting.name()) {
                    self.wanted.settings.set(known);
                }
                setting.to_string()
            }
        }
    }
}
