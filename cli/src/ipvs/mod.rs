//! The table of a kernel's IPVS, read over generic netlink.
//!
//! `message` builds the requests and reads the answers that `wire` has taken apart; both are pure.
//! `socket` sends and receives. No request changes the kernel's table. Connections and the
//! synchronisation daemon are not read.

use std::io;

use serde::Serialize;
use shunt_model::{Server, Service, Timeouts};

use message::Family;

mod message;
pub mod socket;
mod wire;

/// The whole table in the kernel's order: of each kind, the newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Ipvs {
    /// The timeouts of `ipvsadm --set`.
    pub timeouts: Timeouts,
    /// The services with all that Shunt can express.
    pub services: Vec<Entry>,
    /// What Shunt cannot express.
    pub not_taken: Vec<NotTaken>,
}

/// A service with its servers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// The service, as Shunt would have it.
    pub service: Service,
    /// The newest first.
    pub servers: Vec<Server>,
}

/// An object of the kernel's table that is left out, and the reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NotTaken {
    /// The object as ipvsadm names it.
    pub what: String,
    /// The reason as a clause.
    pub why: String,
}

/// Why the table cannot be read.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the text of each variant describes it")]
pub enum Failure {
    #[error(
        "this kernel has no IPVS; load it with \"modprobe ip_vs\", \
         or call this on the director that has the table"
    )]
    NoIpvs,
    #[error("the kernel shows its IPVS table only to root; call this as root")]
    NotPermitted,
    #[error("cannot ask the kernel for its IPVS table: {0}")]
    Netlink(#[from] io::Error),
    /// The kernel sent an answer that cannot be read.
    #[error("cannot understand the answer of the kernel's IPVS: {0}")]
    Broken(String),
}

/// Sends a request and returns the whole answer: netlink messages, one after the other.
pub type Ask<'a> = dyn FnMut(&[u8]) -> Result<Vec<u8>, Failure> + 'a;

/// Reads the timeouts, the services, and the servers of each service.
pub fn read(ask: &mut Ask<'_>) -> Result<Ipvs, Failure> {
    let answer = ask(&message::find_family())?;
    let family = Family::read(&answer)?;
    let mut ipvs = Ipvs {
        timeouts: family.timeouts(&ask(&family.ask_timeouts())?)?,
        ..Ipvs::default()
    };
    for found in family.services(&ask(&family.ask_services())?)? {
        let what = format!("service {}", found.key);
        let service = match found.service {
            Ok(service) => service,
            Err(why) => {
                let what = format!("{what}, with its servers");
                ipvs.not_taken.push(NotTaken { what, why });
                continue;
            }
        };
        let mut servers = Vec::new();
        let answer = ask(&family.ask_servers(&found.key))?;
        for (at, server) in family.servers(&answer, found.key.family())? {
            match server {
                Ok(server) => servers.push(server),
                Err(why) => {
                    let what = format!("server {at} of {what}");
                    ipvs.not_taken.push(NotTaken { what, why });
                }
            }
        }
        ipvs.services.push(Entry { service, servers });
    }
    Ok(ipvs)
}
