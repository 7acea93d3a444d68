//! The faces `ipvsadm`, `ipvsadm-save` and `ipvsadm-restore`: byte for byte what ipvsadm 1.31 says.
//!
//! A line goes `popt` → `arguments` → `check` → here → the client → `listing`, `save` or
//! `connections`. `words` holds what may be said; `halt` what is said when something is wrong.

use std::io::{self, BufRead, Write};

use shunt_model::api::{Done, ServiceStatus};
use shunt_model::change::{Change, server, service, setting};
use shunt_model::service::Granularity;
use shunt_model::{Family, Persistence, Service, ServiceKey};

use crate::client::{Client, Failure};
use arguments::{About, Arguments, Netmask, Request, ServiceWords};
use halt::{Halt, Subject};
use listing::Listing;
use names::Names;
use restore::Queue;
use words::{Command, Kind};

pub mod addresses;
mod arguments;
mod check;
mod connections;
mod feed;
mod halt;
mod listing;
pub mod names;
mod order;
mod popt;
mod restore;
mod save;
mod sync_daemon;
mod usage;
mod words;

/// The size of IPVS's connection hash table, which scripts expect in the first line. Ours grows
/// as it must, so the number says nothing; this is the kernel's default.
pub(crate) const TABLE_SIZE: u32 = 4096;

/// The persistence engines that IPVS knows.
const ENGINES: [&str; 1] = ["sip"];

/// Which of the three programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// `ipvsadm`: one command, or the lines of `-R`.
    Ipvsadm,
    /// `ipvsadm-save`: the table as lines for `-R`.
    Save,
    /// `ipvsadm-restore`: clears the table, then does the lines.
    Restore,
}

impl Program {
    /// The program that is called by this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "ipvsadm" => Some(Program::Ipvsadm),
            "ipvsadm-save" => Some(Program::Save),
            "ipvsadm-restore" => Some(Program::Restore),
            _ => None,
        }
    }
}

/// Standard input, output and error.
pub struct Streams<'a> {
    /// Lines for `-R` and `ipvsadm-restore`.
    pub input: &'a mut dyn BufRead,
    /// What ipvsadm prints on standard output.
    pub out: &'a mut dyn Write,
    /// Complaints and the usage.
    pub error: &'a mut dyn Write,
}

/// Does what the words after the program's name say, and gives the exit status.
pub fn run(
    program: Program,
    called: &str,
    line: &[String],
    open: impl FnOnce() -> Result<Box<dyn Client>, Failure>,
    names: &dyn Names,
    streams: Streams<'_>,
) -> u8 {
    let Streams { input, out, error } = streams;
    let done = match (program, arguments::about(line)) {
        (Program::Ipvsadm, Some(about)) => write_about(about, called, out),
        (Program::Save, _) if unknown_save_option(line) => Err(save_help(called)),
        _ => open()
            .map_err(|failure| halt::not_initialized(&failure))
            .and_then(|mut client| {
                // The scripts call the program by its plain name.
                let called = match program {
                    Program::Ipvsadm => called,
                    Program::Save | Program::Restore => "ipvsadm",
                };
                let mut face = Face {
                    called,
                    client: client.as_mut(),
                    names,
                    out: &mut *out,
                    error: &mut *error,
                    queue: None,
                    status: 0,
                };
                match program {
                    Program::Ipvsadm => face.start(line, input),
                    Program::Save => face.save(line.iter().any(|word| word == "-n")),
                    Program::Restore => face.restore_anew(input),
                }
            }),
    };
    // What was listed comes before what is complained of; a closed pipe says nothing.
    let done = done.and_then(|status| Ok(out.flush().map(|()| status)?));
    match done {
        Ok(status) => status,
        Err(Halt::Line { text }) => complain(out, error, &text, 255),
        Err(Halt::Program { status, text }) => complain(out, error, &text, status),
    }
}

fn complain(out: &mut dyn Write, error: &mut dyn Write, text: &str, status: u8) -> u8 {
    // When neither stream can be written to, only the status is left to say it.
    let _ = out.flush();
    if !text.is_empty() {
        let _ = writeln!(error, "{text}");
    }
    status
}

fn write_about(about: About, called: &str, out: &mut dyn Write) -> Result<u8, Halt> {
    match about {
        About::Help => usage::write_usage(out, called)?,
        About::Version => usage::write_version(out)?,
    }
    Ok(0)
}

fn unknown_save_option(line: &[String]) -> bool {
    line.iter()
        .any(|word| word.starts_with('-') && word != "-n")
}

fn save_help(called: &str) -> Halt {
    let name = called.rsplit('/').next().unwrap_or(called);
    Halt::Program {
        status: 1,
        text: format!(
            "{name}: Script to save the IPVS table to stdout.\n   \
             With the -n option, prints out the table in numeric format."
        ),
    }
}

/// A daemon to ask and somewhere to write to.
struct Face<'a> {
    called: &'a str,
    client: &'a mut dyn Client,
    names: &'a dyn Names,
    out: &'a mut dyn Write,
    error: &'a mut dyn Write,
    /// Within `-R`: changes that were not sent yet.
    queue: Option<Queue>,
    /// Within `-R`: the status of the last line.
    status: u8,
}

impl Face<'_> {
    /// A line of the shell. The empty one lists everything.
    fn start(&mut self, line: &[String], input: &mut dyn BufRead) -> Result<u8, Halt> {
        if line.is_empty() {
            return self.list_all(&Listing::plain(self.names));
        }
        self.line(line, Some(input))
    }

    /// One line. Within `-R` there is no input of its own.
    fn line(&mut self, line: &[String], input: Option<&mut dyn BufRead>) -> Result<u8, Halt> {
        let arguments = match arguments::read(self.called, line, self.names)? {
            Request::Do(mut arguments) => {
                check::check(&mut arguments)?;
                arguments
            }
            // Within `-R`, too, this is all that is done.
            Request::About(about) => {
                self.send_queue()?;
                write_about(about, self.called, self.out)?;
                let text = String::new();
                return Err(Halt::Program { status: 0, text });
            }
        };
        let key = arguments.service.key();
        match (arguments.command, key) {
            (Command::List, _) => self.list(&arguments),
            (Command::Save, _) => self.save(arguments.has(Kind::Numeric)),
            (Command::Restore, _) => match input {
                Some(input) => self.restore(input),
                None => Err(halt::try_help(self.called)),
            },
            (Command::StartDaemon | Command::StopDaemon, _) => sync_daemon(&arguments),
            (Command::Flush, _) => {
                self.change(Change::Service(service::Change::Flush), Subject::Service)
            }
            (Command::Set, _) => {
                let timeouts = arguments.timeouts;
                self.change(
                    Change::Setting(setting::Change::Timeouts { timeouts }),
                    Subject::Service,
                )
            }
            (Command::Zero, key) => self.change(
                Change::Service(service::Change::Zero { key }),
                Subject::Service,
            ),
            (_, Some(key)) => self.change_table(&arguments, key),
            // `check` asks for a service with each of these commands.
            (_, None) => Err(halt::try_help(self.called)),
        }
    }

    fn change_table(&mut self, arguments: &Arguments, key: ServiceKey) -> Result<u8, Halt> {
        let server = arguments.server.server();
        let at = server.at;
        match arguments.command {
            Command::AddService | Command::EditService => self.change_service(arguments, key),
            Command::DeleteService => self.change(
                Change::Service(service::Change::Delete { key }),
                Subject::Service,
            ),
            Command::AddServer => self.change(
                Change::Server(server::Change::Add { key, server }),
                Subject::Server,
            ),
            Command::EditServer => self.change(
                Change::Server(server::Change::Edit { key, server }),
                Subject::Server,
            ),
            _ => self.change(
                Change::Server(server::Change::Delete { key, at }),
                Subject::Server,
            ),
        }
    }

    fn change_service(&mut self, arguments: &Arguments, key: ServiceKey) -> Result<u8, Halt> {
        let adds = arguments.command == Command::AddService;
        match service(&arguments.service, key) {
            Some(service) if adds => self.change(
                Change::Service(service::Change::Add { service }),
                Subject::Service,
            ),
            Some(mut service) => {
                // It has no words for the settings, so they stay.
                let known = self.find(&key)?;
                if let Some(known) = known {
                    service.settings = known.service.settings;
                    service.announce = known.service.announce;
                }
                self.change(
                    Change::Service(service::Change::Edit { service }),
                    Subject::Service,
                )
            }
            None => {
                // A name that nobody knows cannot be sent. The kernel, which can be sent any,
                // looks for the service first.
                let known = self.find(&key)?.is_some();
                let text = match (adds, known) {
                    (true, true) => halt::SERVICE_EXISTS,
                    (false, false) => halt::NO_SUCH_SERVICE,
                    (true, false) | (false, true) => halt::UNKNOWN_SCHEDULER,
                };
                let text = text.to_owned();
                Err(Halt::Line { text })
            }
        }
    }

    /// Makes a change; within `-R` soon, together with others.
    fn change(&mut self, change: Change, subject: Subject) -> Result<u8, Halt> {
        if let Some(queue) = &mut self.queue {
            queue.add(change, subject);
            if queue.is_full() {
                self.send_queue()?;
                return Ok(self.status);
            }
            return Ok(0);
        }
        match self.client.change(&change) {
            Ok(Done {}) => Ok(0),
            Err(failure) => Err(halt::failed(failure, subject)),
        }
    }

    /// The daemon, after all that was said before it is asked.
    fn client(&mut self) -> Result<&mut dyn Client, Halt> {
        self.send_queue()?;
        Ok(self.client)
    }

    fn services(&mut self) -> Result<Vec<ServiceStatus>, Halt> {
        let services = self.client()?.services();
        services.map_err(|failure| halt::failed(failure, Subject::Service))
    }

    fn find(&mut self, key: &ServiceKey) -> Result<Option<ServiceStatus>, Halt> {
        let service = self.client()?.service(key);
        service.map_err(|failure| halt::failed(failure, Subject::Service))
    }

    fn list(&mut self, arguments: &Arguments) -> Result<u8, Halt> {
        let listing = Listing::new(arguments, self.names);
        if arguments.has(Kind::Connection) {
            return self.list_connections(&listing, arguments.has(Kind::PersistentConn));
        }
        if let Some(key) = arguments.service.key() {
            return self.list_service(&listing, &key);
        }
        if arguments.has(Kind::Timeout) {
            return self.list_timeouts();
        }
        if arguments.has(Kind::Daemon) {
            // No synchronisation daemon can be running.
            return Ok(0);
        }
        self.list_all(&listing)
    }

    fn list_all(&mut self, listing: &Listing<'_>) -> Result<u8, Halt> {
        let services = self.services()?;
        writeln!(
            self.out,
            "IP Virtual Server version 1.2.1 (size={TABLE_SIZE})"
        )?;
        listing.write_title(self.out)?;
        let services = if listing.sorted {
            order::sort_services(services)
        } else {
            services
        };
        for status in services {
            listing.write_service(self.out, status)?;
        }
        Ok(0)
    }

    fn list_service(&mut self, listing: &Listing<'_>, key: &ServiceKey) -> Result<u8, Halt> {
        let Some(status) = self.find(key)? else {
            return halt::listing(halt::NO_SUCH_SERVICE.into());
        };
        listing.write_title(self.out)?;
        listing.write_service(self.out, status)?;
        Ok(0)
    }

    fn list_timeouts(&mut self) -> Result<u8, Halt> {
        let timeouts = self.client()?.timeouts();
        let timeouts = timeouts.map_err(|failure| halt::failed(failure, Subject::Service))?;
        let (tcp, tcp_fin, udp) = (timeouts.tcp_s, timeouts.tcp_fin_s, timeouts.udp_s);
        writeln!(self.out, "Timeout (tcp tcpfin udp): {tcp} {tcp_fin} {udp}")?;
        Ok(0)
    }

    fn list_connections(&mut self, listing: &Listing<'_>, with_engines: bool) -> Result<u8, Halt> {
        let failed = |failure| halt::failed(failure, Subject::Service);
        self.send_queue()?;
        let entries = self.client.connections().map_err(failed)?;
        connections::write_title(self.out, with_engines)?;
        for entry in entries {
            let entry = entry.map_err(failed)?;
            connections::write(self.out, &entry, listing.names, with_engines)?;
        }
        Ok(0)
    }

    fn save(&mut self, numeric: bool) -> Result<u8, Halt> {
        let names = (!numeric).then_some(self.names);
        for status in order::sort_services(self.services()?) {
            for sentence in save::unsaid(&status) {
                writeln!(self.error, "{sentence}")?;
            }
            save::write_service(self.out, status, names)?;
        }
        Ok(0)
    }
}

/// The table as `ipvsadm -S -n` saves it.
pub(crate) fn write_rules(out: &mut dyn Write, services: Vec<ServiceStatus>) -> io::Result<()> {
    let mut services = order::sort_services(services).into_iter();
    services.try_for_each(|status| save::write_service(out, status, None))
}

/// The service that the words mean, unless they name a scheduler or engine that nobody knows.
fn service(words: &ServiceWords, key: ServiceKey) -> Option<Service> {
    let scheduler = words.scheduler.as_deref();
    let engine = words.engine.as_deref();
    if engine.is_some_and(|engine| !ENGINES.contains(&engine)) {
        return None;
    }
    let granularity = match (key.family(), words.netmask) {
        (Family::Ipv4, Netmask::Mask(mask)) => Granularity::Mask(mask),
        (Family::Ipv6, Netmask::Prefix(length)) => Granularity::Prefix(length),
        // An IPv6 address sets a prefix length of its own, so that these do not occur.
        (Family::Ipv4, Netmask::Prefix(_)) => Granularity::Mask([255; 4].into()),
        (Family::Ipv6, Netmask::Mask(_)) => Granularity::Prefix(128),
    };
    // A mask without persistence has no effect, and is not kept; nor has an engine, which is saved.
    let (mut persistence, mut idle_engine) = (None, engine.map(str::to_owned));
    if let Some(timeout_s) = words.persistent_s {
        persistence = Some(Persistence {
            timeout_s,
            granularity,
            engine: idle_engine.take(),
        });
    }
    Some(Service {
        key,
        scheduler: scheduler
            .unwrap_or(arguments::DEFAULT_SCHEDULER)
            .parse()
            .ok()?,
        flags: words.flags,
        persistence,
        one_packet: words.one_packet,
        settings: Default::default(),
        idle_engine,
        announce: None,
    })
}

fn sync_daemon(arguments: &Arguments) -> Result<u8, Halt> {
    let text = match arguments.command {
        Command::StopDaemon => "No daemon is running",
        _ => "the synchronisation daemon is not carried by this version of Shunt yet",
    };
    let text = text.to_owned();
    Err(Halt::Line { text })
}
