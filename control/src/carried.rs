//! What the packet path of this version carries. All else is refused with a sentence that says so.
//!
//! This is the only place that knows. The table itself has the meaning of every option; a caller
//! that wants the table without a packet path under it says [`Gate::Open`].

use shunt_model::api::{Change, Reason, Refusal};
use shunt_model::{Service, ServiceKey};

/// Whether a table takes only what is carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Gate {
    /// What is not carried is refused.
    #[default]
    Carried,
    /// Everything that the words can say is taken.
    Open,
}

/// Whether the packet path can do what this change asks for.
pub fn carried(change: &Change) -> Result<(), Refusal> {
    let missing = match change {
        Change::AddService { service } | Change::EditService { service } => of_service(service),
        Change::DeleteService { .. }
        | Change::Flush
        | Change::AddServer { .. }
        | Change::EditServer { .. }
        | Change::DeleteServer { .. }
        | Change::Zero { .. }
        | Change::SetTimeouts { .. }
        | Change::Set { .. }
        | Change::AddMark { .. }
        | Change::DeleteMark { .. }
        | Change::SetLocal { .. }
        | Change::DeleteLocal { .. } => None,
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
        ServiceKey::Address { .. } | ServiceKey::Mark { .. } => {}
    }
    let engine = service.persistence.as_ref().and_then(|p| p.engine.as_ref());
    if let Some(engine) = engine {
        return Some(format!("the persistence engine {engine} is"));
    }
    None
}
