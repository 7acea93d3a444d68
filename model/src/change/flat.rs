//! Changes as JSON has them: one list of names for all nouns.
//!
//! Only reading needs this list. A wrong name is then answered with all the right ones.

use std::net::IpAddr;

use serde::Deserialize;

use super::{local, mark, server, service, setting};
use crate::{
    LocalAddress, MarkRule, Server, ServerAddress, Service, ServiceKey, Setting, Timeouts,
};

/// A change before it is sorted by its noun.
#[derive(Deserialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub(super) enum Change {
    AddService { service: Service },
    EditService { service: Service },
    DeleteService { key: ServiceKey },
    Flush,
    AddServer { key: ServiceKey, server: Server },
    EditServer { key: ServiceKey, server: Server },
    DeleteServer { key: ServiceKey, at: ServerAddress },
    Zero { key: Option<ServiceKey> },
    SetTimeouts { timeouts: Timeouts },
    Set { setting: Setting },
    AddMark { rule: MarkRule },
    DeleteMark { rule: MarkRule },
    SetLocal { local: LocalAddress },
    DeleteLocal { address: IpAddr },
}

impl From<Change> for super::Change {
    fn from(change: Change) -> Self {
        match change {
            Change::AddService { service } => Self::Service(service::Change::Add { service }),
            Change::EditService { service } => Self::Service(service::Change::Edit { service }),
            Change::DeleteService { key } => Self::Service(service::Change::Delete { key }),
            Change::Flush => Self::Service(service::Change::Flush),
            Change::Zero { key } => Self::Service(service::Change::Zero { key }),
            Change::AddServer { key, server } => Self::Server(server::Change::Add { key, server }),
            Change::EditServer { key, server } => {
                Self::Server(server::Change::Edit { key, server })
            }
            Change::DeleteServer { key, at } => Self::Server(server::Change::Delete { key, at }),
            Change::AddMark { rule } => Self::Mark(mark::Change::Add { rule }),
            Change::DeleteMark { rule } => Self::Mark(mark::Change::Delete { rule }),
            Change::SetLocal { local } => Self::Local(local::Change::Set { local }),
            Change::DeleteLocal { address } => Self::Local(local::Change::Delete { address }),
            Change::Set { setting } => Self::Setting(setting::Change::Set { setting }),
            Change::SetTimeouts { timeouts } => {
                Self::Setting(setting::Change::Timeouts { timeouts })
            }
        }
    }
}
