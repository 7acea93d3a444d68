//! The table of a kernel's IPVS, as it says it over generic netlink.
//!
//! `message` makes the questions and reads the answers out of what `wire` takes apart, and both
//! touch nothing; `socket` carries them.
//! Only questions are asked: nothing here changes the kernel's table. A connection is none of it,
//! nor is the synchronisation daemon.

use std::io;

use serde::Serialize;
use shunt_model::{Server, Service, Timeouts};

use message::Family;

mod message;
pub mod socket;
mod wire;

/// All that the kernel has, in its own order: of the same kind, what was added last comes first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Ipvs {
    pub timeouts: Timeouts,
    pub services: Vec<Entry>,
    /// What our words cannot say.
    pub not_taken: Vec<NotTaken>,
}

/// A service with its servers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    pub service: Service,
    pub servers: Vec<Server>,
}

/// Something of the kernel's that is left out, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NotTaken {
    pub what: String,
    pub why: String,
}

/// Why there is no table to show.
#[derive(Debug, thiserror::Error)]
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
    /// It answered, but not as it should.
    #[error("the kernel's IPVS answered in a way that makes no sense: {0}")]
    Broken(String),
}

/// Carries a question, and gives the whole answer: netlink messages, one behind the other.
pub type Ask<'a> = dyn FnMut(&[u8]) -> Result<Vec<u8>, Failure> + 'a;

/// Asks for the timeouts, the services, and the servers of each.
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
