//! Other balancers, set up for the same work as Shunt.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use shunt_lab::{Host, Process};

use crate::process;
use crate::tools::{HAPROXY, NFTABLES, Package};

/// Whose program it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Peer {
    HaProxy,
    Nftables,
}

impl Peer {
    pub(super) const ALL: [Peer; 2] = [Peer::HaProxy, Peer::Nftables];

    pub(super) fn name(self) -> &'static str {
        match self {
            Peer::HaProxy => "HAProxy",
            Peer::Nftables => "nftables",
        }
    }

    pub(super) fn package(self) -> Package {
        match self {
            Peer::HaProxy => HAPROXY,
            Peer::Nftables => NFTABLES,
        }
    }

    /// The first line of what it says.
    pub(super) fn version(self) -> String {
        let mut command = match self {
            Peer::HaProxy => process::command("haproxy"),
            Peer::Nftables => process::command("nft"),
        };
        let said = process::output(command.arg("-v")).unwrap_or_default();
        said.lines().next().unwrap_or("unknown").trim().to_owned()
    }
}

/// How nftables picks a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Pick {
    /// In turn.
    Numgen,
    /// By the client's address and port.
    Jhash,
}

/// HAProxy between two TCP connections; killed when dropped.
pub(super) struct HaProxy {
    _process: Process,
    configuration: PathBuf,
}

impl HaProxy {
    pub(super) fn start(
        host: &Host,
        service: SocketAddr,
        servers: &[SocketAddr],
    ) -> Result<HaProxy> {
        let name = format!("shunt-bench-{}-haproxy.cfg", std::process::id());
        let configuration = std::env::temp_dir().join(name);
        fs::write(&configuration, haproxy(service, servers))
            .with_context(|| format!("cannot write {}", configuration.display()))?;
        let mut command = host.command("haproxy");
        command.args(["-db", "-q", "-f"]).arg(&configuration);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let started = Process::start(command);
        if started.is_err() {
            let _ = fs::remove_file(&configuration);
        }
        Ok(HaProxy {
            _process: started?,
            configuration,
        })
    }
}

impl Drop for HaProxy {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.configuration);
    }
}

/// As it comes, with a thread for each processor.
fn haproxy(service: SocketAddr, servers: &[SocketAddr]) -> String {
    let mut text = format!(
        "global\n  maxconn 4096\n\
         defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n\
         listen web\n  bind {service}\n  balance roundrobin\n"
    );
    for (number, server) in (1..).zip(servers) {
        text.push_str(&format!("  server server{number} {server}\n"));
    }
    text
}

/// A table of nftables; deleted when dropped.
pub(super) struct Nftables {
    host: Host,
    is_there: bool,
}

const TABLE: &str = "ip shunt_bench";

impl Nftables {
    pub(super) fn start(
        host: &Host,
        service: SocketAddr,
        servers: &[SocketAddr],
        pick: Pick,
    ) -> Result<Nftables> {
        nft(host, &ruleset(service, servers, pick))?;
        Ok(Nftables {
            host: host.clone(),
            is_there: true,
        })
    }

    pub(super) fn end(mut self) -> Result<()> {
        self.is_there = false;
        nft(&self.host, &format!("delete table {TABLE}\n"))
    }
}

impl Drop for Nftables {
    fn drop(&mut self) {
        if self.is_there {
            let _ = nft(&self.host, &format!("delete table {TABLE}\n"));
        }
    }
}

fn ruleset(service: SocketAddr, servers: &[SocketAddr], pick: Pick) -> String {
    let (address, port) = (service.ip(), service.port());
    let pick = match pick {
        Pick::Numgen => "numgen inc",
        Pick::Jhash => "jhash ip saddr . tcp sport",
    };
    let places = servers.iter().map(SocketAddr::ip).enumerate();
    let places: Vec<String> = places.map(|(at, to)| format!("{at} : {to}")).collect();
    format!(
        "table {TABLE} {{\n  chain prerouting {{\n    \
         type nat hook prerouting priority dstnat;\n    \
         ip daddr {address} tcp dport {port} dnat to {pick} mod {} map {{ {} }}\n  }}\n}}\n",
        servers.len(),
        places.join(", ")
    )
}

fn nft(host: &Host, rules: &str) -> Result<()> {
    let mut command = host.command("nft");
    command.args(["-f", "-"]);
    command.stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("cannot start nft")?;
    let input = child.stdin.take().context("nft has no input")?;
    let written = { input }.write_all(rules.as_bytes());
    let output = child.wait_with_output().context("cannot wait for nft")?;
    ensure!(
        output.status.success(),
        "nft ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    written.context("cannot tell nft its rules")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service() -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], 80))
    }

    fn servers() -> Vec<SocketAddr> {
        (100..103)
            .map(|number| SocketAddr::from(([10, 1, 0, number], 80)))
            .collect()
    }

    #[test]
    fn haproxy_takes_the_service_to_every_server() {
        let text = haproxy(service(), &servers());

        assert!(text.contains("mode tcp\n"));
        assert!(text.contains("bind 192.0.2.1:80\n"));
        assert!(text.ends_with("  server server3 10.1.0.102:80\n"), "{text}");
        assert_eq!(text.matches("  server ").count(), 3);
    }

    #[test]
    fn nftables_picks_among_all_servers() {
        let rule = |pick| {
            let text = ruleset(service(), &servers(), pick);
            let rule = text.lines().find(|line| line.contains("dnat to"));
            rule.unwrap_or_default().trim().to_owned()
        };
        let places = "map { 0 : 10.1.0.100, 1 : 10.1.0.101, 2 : 10.1.0.102 }";

        assert_eq!(
            rule(Pick::Numgen),
            format!("ip daddr 192.0.2.1 tcp dport 80 dnat to numgen inc mod 3 {places}")
        );
        assert_eq!(
            rule(Pick::Jhash),
            format!(
                "ip daddr 192.0.2.1 tcp dport 80 \
                 dnat to jhash ip saddr . tcp sport mod 3 {places}"
            )
        );
    }
}
