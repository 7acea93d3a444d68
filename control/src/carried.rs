//! What the packet path of this version carries. All else is refused with a sentence that says so.
//!
//! This is the only place that knows. The table itself has the meaning of every option; a caller
//! that wants the table without a packet path under it says [`Gate::Open`].

use shunt_model::api::{Change, Reason, Refusal};
use shunt_model::{Protocol, Scheduler, Server, Service, ServiceKey};

/// Whether a table takes only what is carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Gate {
    /// What is not carried is refused.
    #[default]
    Carried,
    /// Everything that the words can say is taken.
    Open,
}

/// The schedulers that the packet path has.
pub const SCHEDULERS: [Scheduler; 8] = [
    Scheduler::Rr,
    Scheduler::Wrr,
    Scheduler::Lc,
    Scheduler::Wlc,
    Scheduler::Sh,
    Scheduler::Mh,
    Scheduler::Sed,
    Scheduler::Nq,
];

/// Whether the packet path can do what this change asks for.
pub fn carried(change: &Change) -> Result<(), Refusal> {
    let missing = match change {
        Change::AddService { service } | Change::EditService { service } => of_service(service),
        Change::AddServer { server, .. } | Change::EditServer { server, .. } => of_server(server),
        Change::DeleteService { .. }
        | Change::Flush
        | Change::DeleteServer { .. }
        | Change::Zero { .. }
        | Change::SetTimeouts { .. } => None,
    };
    match missing {
        None => Ok(()),
        Some(what) => Err(Refusal {
            reason: Reason::NotSupported,
            text: format!("{what} not carried by this version of Shunt yet"),
        }),
    }
}

/// The first thing a service asks for that is not carried, with its verb.
fn of_service(service: &Service) -> Option<String> {
    match service.key {
        ServiceKey::Mark { .. } => return Some("firewall marks are".into()),
        ServiceKey::Address {
            protocol: Protocol::Sctp,
            ..
        } => return Some("SCTP is".into()),
        ServiceKey::Address { port: 0, .. } => {
            return Some("a service of every port (port 0) is".into());
        }
        ServiceKey::Address { .. } => {}
    }
    if let Some(persistence) = &service.persistence {
        return Some(match &persistence.engine {
            Some(engine) => format!("the persistence engine {engine} is"),
            None => "persistence is".into(),
        });
    }
    if service.one_packet {
        return Some("one-packet scheduling is".into());
    }
    if !SCHEDULERS.contains(&service.scheduler) {
        return Some(format!("the scheduler {} is", service.scheduler));
    }
    None
}

/// The first thing a server asks for that is not carried, with its verb.
fn of_server(server: &Server) -> Option<String> {
    if server.upper_threshold != 0 || server.lower_threshold != 0 {
        return Some("connection thresholds are".into());
    }
    if server.at.port == 0 {
        return Some("a real server of every port (port 0) is".into());
    }
    None
}
