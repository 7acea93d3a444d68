//! The questions that the faces ask the daemon. Behind the trait is its socket or, in tests, a
//! table in memory.

use std::io;
use std::path::PathBuf;

use serde_json::Value;
use shunt_model::api::{ConnectionCount, Done, Refusal, ServiceStatus, Statistics, Status};
use shunt_model::batch::{Batch, Refused};
use shunt_model::change::Change;
use shunt_model::event::Event;
use shunt_model::wanted::{Pool, Wanted};
use shunt_model::{Connection, LocalAddress, MarkRule, ServiceKey, Settings, Timeouts};

pub mod socket;

/// A daemon: it makes changes and answers questions about the table.
pub trait Client {
    /// Makes one change. It is in force when the answer comes.
    fn change(&mut self, change: &Change) -> Result<Done, Failure>;
    /// Makes the changes of a batch. Returns the refused ones; if any change of a whole batch was
    /// refused, none was made.
    fn batch(&mut self, batch: &Batch) -> Result<Vec<Refused>, Failure>;
    /// The services in the kernel's order.
    fn services(&mut self) -> Result<Vec<ServiceStatus>, Failure>;
    /// One service, if it exists.
    fn service(&mut self, key: &ServiceKey) -> Result<Option<ServiceStatus>, Failure> {
        let mut services = self.services()?.into_iter();
        Ok(services.find(|status| status.service.key == *key))
    }
    /// Returns the connections one by one, because there may be millions.
    fn connections(&mut self) -> Result<Connections<'_>, Failure>;
    /// Counts the entries of the connection table by state.
    fn connection_count(&mut self) -> Result<ConnectionCount, Failure>;
    /// The timeouts of `ipvsadm --set`.
    fn timeouts(&mut self) -> Result<Timeouts, Failure>;
    /// The director's settings.
    fn settings(&mut self) -> Result<Settings, Failure>;
    /// The rules that mark packets.
    fn marks(&mut self) -> Result<Vec<MarkRule>, Failure>;
    /// The local addresses of full NAT.
    fn locals(&mut self) -> Result<Vec<LocalAddress>, Failure>;
    /// All that the daemon has, as far as it can be wanted.
    fn present(&mut self) -> Result<Wanted, Failure> {
        let pool = |status: ServiceStatus| {
            let servers = status.servers.into_iter().rev();
            Pool {
                service: status.service,
                servers: servers.map(|server| server.server).collect(),
            }
        };
        Ok(Wanted {
            settings: self.settings()?,
            timeouts: self.timeouts()?,
            marks: self.marks()?,
            locals: self.locals()?,
            services: self.services()?.into_iter().rev().map(pool).collect(),
        })
    }
    /// What the packet path did since it was loaded, by verdict and drop reason.
    fn statistics(&mut self) -> Result<Statistics, Failure>;
    /// The daemon, its devices and its warnings.
    fn status(&mut self) -> Result<Status, Failure>;
    /// Returns the events that the daemon keeps, the oldest first, and then, if `follow`, each one
    /// that happens.
    fn events(&mut self, follow: bool) -> Result<Events<'_>, Failure>;
    /// Returns the last inputs of control, the oldest first, behind a line about their recording.
    fn inputs(&mut self) -> Result<Inputs<'_>, Failure>;
}

/// Connections as the daemon sends them. After a failure nothing more comes.
pub type Connections<'a> = Box<dyn Iterator<Item = Result<Connection, Failure>> + 'a>;
/// Events as the daemon sends them. After a failure nothing more comes.
pub type Events<'a> = Box<dyn Iterator<Item = Result<Event, Failure>> + 'a>;
/// Inputs as the daemon sends them, behind the line about their recording.
pub type Inputs<'a> = Box<dyn Iterator<Item = Result<Value, Failure>> + 'a>;

/// Why the daemon did not carry out a request.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The daemon refused the request and gave the reason.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The socket is closed to this user.
    #[error(
        "permission denied for {path}; only root and the group of that socket may talk to shuntd"
    )]
    NotPermitted {
        /// The daemon's socket.
        path: PathBuf,
    },
    /// No daemon listens, or it ended during the exchange.
    #[error("shuntd does not answer at {path}: {source}")]
    NotReachable {
        /// The daemon's socket.
        path: PathBuf,
        /// What the system said when the client connected, or when the connection broke.
        source: io::Error,
    },
    /// The daemon sent an answer that cannot be read.
    #[error("cannot understand the answer of shuntd: {0}")]
    Broken(String),
}
