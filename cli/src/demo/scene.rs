//! The lab of the demo: its hosts, and how the director's daemon is started, queried and killed.

use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use shunt_lab::{
    Family, Host, HttpLoad, HttpServer, Process, ReplyVia, RunningLoad, Topology, until,
};
use shunt_model::api::ServiceStatus;
use shunt_model::change::{Change, server, service};
use shunt_model::{
    Encapsulation, Method, Protocol, Scheduler, SchedulerFlags, Server, ServerAddress, Service,
    ServiceKey,
};

use crate::client::Client;
use crate::client::socket::Socket;

/// The real servers of the lab. The last one joins later.
pub(super) const SERVERS: usize = 4;
const PORT: u16 = 80;
const LIMIT: Duration = Duration::from_secs(20);

pub(super) struct Scene {
    bed: Topology,
    servers: Vec<HttpServer>,
    agents: Vec<Host>,
    daemon: Option<Process>,
    pub load: Option<RunningLoad>,
}

/// This program under another of its names.
fn program(host: &Host, name: &str) -> Result<std::process::Command> {
    let mut command = host.command(std::env::current_exe().context("cannot find this program")?);
    command
        .arg0(name)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    Ok(command)
}

impl Scene {
    pub(super) fn build() -> Result<Self> {
        let bed = Topology::builder()
            .clients(1)
            .servers(SERVERS)
            .offloads()
            .build()?;
        let servers = bed.servers.iter().map(|host| HttpServer::start(host, PORT));
        let servers = servers.collect::<Result<Vec<_>>>()?;
        bed.servers_reply_via(ReplyVia::Director(0))?;
        bed.director().sysctls(&[
            ("net.ipv4.ip_forward", "1"),
            ("net.ipv6.conf.all.forwarding", "1"),
            ("net.ipv4.conf.all.rp_filter", "0"),
        ])?;
        let mut scene = Self {
            agents: bed.servers.clone(),
            bed,
            servers,
            daemon: None,
            load: None,
        };
        scene.join()?;
        scene.start_daemon()?;
        Ok(scene)
    }

    /// Runs the agent once on every real server: virtual address on `lo`, ARP, tunnel
    /// decapsulation.
    fn join(&self) -> Result<()> {
        for host in &self.agents {
            let mut command = program(host, "shunt")?;
            command.args(["agent", "join", "--tunnel", "--from", "any"]);
            for family in Family::BOTH {
                command.arg(self.bed.vip(family, 1).to_string());
            }
            let output = command
                .stderr(Stdio::piped())
                .stdout(Stdio::piped())
                .output()
                .context("cannot run the agent")?;
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr).into_owned()
                    + &String::from_utf8_lossy(&output.stdout);
                bail!("the agent on {} failed: {said}", host.name());
            }
        }
        Ok(())
    }

    fn socket(&self) -> PathBuf {
        PathBuf::from(format!(
            "/run/shunt/{}/api.sock",
            self.bed.director().inode()
        ))
    }

    pub(super) fn start_daemon(&mut self) -> Result<()> {
        let mut command = program(self.bed.director(), "shuntd")?;
        // Small tables are enough: the lab has few flows.
        command.args(["--flows", "262144", "--stop", "remove"]);
        self.daemon = Some(Process::start(command).context("cannot start shuntd")?);
        until("shuntd to answer", LIMIT, || {
            if let Some(daemon) = &mut self.daemon
                && !daemon.is_running()?
            {
                bail!("shuntd ended at once; run it by hand in a namespace to see why");
            }
            Ok(self
                .client()
                .is_ok_and(|mut client| client.status().is_ok()))
        })
    }

    /// Kills the daemon, as `kill -9` does.
    pub(super) fn kill_daemon(&mut self) -> Result<()> {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill()?;
        }
        Ok(())
    }

    fn client(&self) -> Result<Socket> {
        Ok(Socket::open(&self.socket())?)
    }

    pub(super) fn service(&self) -> ServiceKey {
        let at: SocketAddr = self.bed.service(Family::V4, 1, PORT);
        ServiceKey::Address {
            protocol: Protocol::Tcp,
            address: at.ip(),
            port: at.port(),
        }
    }

    pub(super) fn change(&self, change: &Change) -> Result<()> {
        self.client()?.change(change).map_err(anyhow::Error::from)?;
        Ok(())
    }

    pub(super) fn add_service(&self) -> Result<()> {
        let service = Service {
            key: self.service(),
            scheduler: Scheduler::Wrr,
            flags: SchedulerFlags::default(),
            persistence: None,
            one_packet: false,
            settings: Default::default(),
            idle_engine: None,
            announce: None,
        };
        self.change(&Change::Service(service::Change::Add { service }))
    }

    fn server(&self, index: usize, method: Method, weight: u32) -> Server {
        let at = ServerAddress {
            address: self.bed.server_address(Family::V4, index),
            port: PORT,
        };
        Server {
            at,
            method,
            weight,
            upper_threshold: 0,
            lower_threshold: 0,
        }
    }

    pub(super) fn add_server(&self, index: usize) -> Result<()> {
        let server = self.server(index, Method::Masquerade, 1);
        self.change(&Change::Server(server::Change::Add {
            key: self.service(),
            server,
        }))
    }

    pub(super) fn edit_server(&self, index: usize, method: Method, weight: u32) -> Result<()> {
        let server = self.server(index, method, weight);
        self.change(&Change::Server(server::Change::Edit {
            key: self.service(),
            server,
        }))
    }

    /// The name that a server puts into its answers.
    pub(super) fn name(&self, index: usize) -> String {
        self.servers
            .get(index)
            .map(|server| server.name().to_owned())
            .unwrap_or_default()
    }

    pub(super) fn status(&self) -> Result<ServiceStatus> {
        let services = self.client()?.services().map_err(anyhow::Error::from)?;
        let key = self.service();
        let found = services
            .into_iter()
            .find(|status| status.service.key == key);
        found.context("the director does not have the service")
    }

    /// What the packet path dropped so far, by reason, and its other counters.
    pub(super) fn counted(&self) -> Result<(String, String)> {
        let counted = self.client()?.statistics().map_err(anyhow::Error::from)?;
        let others = counted.verdicts.into_iter().chain(counted.notes);
        Ok((said(counted.drops), said(others)))
    }

    pub(super) fn adopted(&self) -> Result<bool> {
        Ok(self
            .client()?
            .status()
            .map_err(anyhow::Error::from)?
            .adopted)
    }

    /// One load for the whole demo, with a connection for each request.
    pub(super) fn start_load(&mut self) -> Result<()> {
        let at = self.bed.service(Family::V4, 1, PORT);
        let load = HttpLoad::to(at).workers(8).connection_per_request();
        self.load = Some(load.start(self.bed.client())?);
        Ok(())
    }

    /// The commands that enter each host.
    pub(super) fn doors(&self) -> Vec<String> {
        let mut doors = Vec::new();
        let mut door = |host: &Host| {
            doors.push(format!(
                "nsenter --net={}  # {}",
                host.path().display(),
                host.name()
            ));
        };
        door(self.bed.client());
        door(&self.bed.router);
        door(self.bed.director());
        self.bed.servers.iter().for_each(&mut door);
        doors.push(format!(
            "curl http://{}/  # on the client",
            self.bed.service(Family::V4, 1, PORT)
        ));
        doors.push("shunt service list  # on the director".to_owned());
        doors
    }

    /// Ends everything in order. What remains ends with the process.
    pub(super) fn end(mut self) -> Result<()> {
        self.load.take();
        if let Some(daemon) = self.daemon.take() {
            daemon.stop(LIMIT).context("shuntd did not stop")?;
        }
        for host in &self.agents {
            let mut command = program(host, "shunt")?;
            command.args(["agent", "leave"]);
            let _ = command.status();
        }
        let _ = std::fs::remove_dir_all(self.socket().parent().unwrap_or(&self.socket()));
        Ok(())
    }
}

/// The forwarding methods that the demo uses.
pub(super) const METHODS: [(&str, Method); 3] = [
    ("NAT", Method::Masquerade),
    ("DR", Method::Route),
    ("TUN", Method::Tunnel(Encapsulation::Ipip)),
];

/// The counters that are not zero, in one line.
fn said(counters: impl IntoIterator<Item = (String, u64)>) -> String {
    let some: Vec<_> = counters
        .into_iter()
        .filter(|(_, count)| *count != 0)
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    if some.is_empty() {
        "none".to_owned()
    } else {
        some.join(", ")
    }
}
