//! The lab, and one balancer at a time on its director's host.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Result;
use shunt_lab::{Family, Host, HttpLoad, HttpServer, ReplyVia, Topology};

use super::peer::{HaProxy, Nftables};
use super::shuntd::{Members, Shuntd};
use super::target::{Method, Target};

pub(super) const SERVERS: usize = 3;
/// Connections that are open, or being opened, at any time.
pub(super) const WORKERS: usize = 32;
const PORT: u16 = 80;

/// One client, three servers, devices as the kernel makes them.
pub(super) struct Bed {
    topology: Topology,
    program: PathBuf,
    _servers: Vec<HttpServer>,
}

/// What is up during a turn; dropping it takes it down.
pub(super) enum Balancer {
    /// The kernel routes.
    Nothing,
    Shunt(Shuntd, Option<Members>),
    HaProxy(HaProxy),
    Nftables(Nftables),
}

impl Balancer {
    /// Takes it down and says how that went.
    pub(super) fn end(self) -> Result<()> {
        match self {
            Balancer::Nothing => Ok(()),
            Balancer::Shunt(shuntd, members) => {
                drop(members);
                shuntd.end()
            }
            Balancer::HaProxy(haproxy) => {
                drop(haproxy);
                Ok(())
            }
            Balancer::Nftables(nftables) => nftables.end(),
        }
    }
}

impl Bed {
    /// `program` is what Shunt is run as.
    pub(super) fn build(program: PathBuf) -> Result<Bed> {
        let topology = Topology::builder().servers(SERVERS).offloads().build()?;
        // Held all the time, so that only what balances differs from turn to turn.
        topology.director_holds(0, "lo", 1)?;
        topology.servers_hold(1)?;
        let servers = topology.servers.iter();
        let servers = servers.map(|server| HttpServer::start(server, PORT));
        Ok(Bed {
            _servers: servers.collect::<Result<_>>()?,
            topology,
            program,
        })
    }

    pub(super) fn client(&self) -> &Host {
        self.topology.client()
    }

    /// What the client asks. The direct path has all servers too, so that no target has more of
    /// them to run at the same time.
    pub(super) fn load(&self, target: Target) -> HttpLoad {
        let load = match (target, self.servers().as_slice()) {
            (Target::Direct, [first, others @ ..]) => {
                let load = HttpLoad::to(*first);
                others.iter().fold(load, |load, other| load.also(*other))
            }
            _ => HttpLoad::to(self.service()),
        };
        load.workers(WORKERS)
    }

    /// Starts what balances and sets the servers' way back.
    pub(super) fn up(&self, target: Target) -> Result<Balancer> {
        self.topology
            .servers_reply_via(if target.answers_directly() {
                ReplyVia::Router
            } else {
                ReplyVia::Director(0)
            })?;
        let (director, service, servers) =
            (self.topology.director(), self.service(), self.servers());
        Ok(match target {
            Target::Direct => Balancer::Nothing,
            Target::Shunt(method) => {
                let members = (method == Method::Tunnel)
                    .then(|| Members::join(&self.topology.servers, service.ip(), &self.program))
                    .transpose()?;
                let shuntd = Shuntd::start(director, &self.program)?;
                shuntd.serve(service, &servers, method)?;
                Balancer::Shunt(shuntd, members)
            }
            Target::HaProxy => Balancer::HaProxy(HaProxy::start(director, service, &servers)?),
            Target::Nftables(pick) => {
                Balancer::Nftables(Nftables::start(director, service, &servers, pick)?)
            }
        })
    }

    fn service(&self) -> SocketAddr {
        self.topology.service(Family::V4, 1, PORT)
    }

    fn servers(&self) -> Vec<SocketAddr> {
        let at = |index| SocketAddr::new(self.topology.server_address(Family::V4, index), PORT);
        (0..SERVERS).map(at).collect()
    }
}
