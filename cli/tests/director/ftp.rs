//! FTP through a persistent service of many ports, as docs/guides/ftp.md has it: vsftpd on the
//! servers, curl on the clients, passive and active.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};
use shunt_lab::{Family, Host, Process, Topology, skipped, until};

use crate::bed::{LIMIT, Method, at};
use crate::director::Director;

/// Whether the programs are there; says aloud that a test is skipped otherwise.
fn without_programs() -> bool {
    for program in ["vsftpd", "curl"] {
        let paths = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin";
        if !paths
            .split(':')
            .any(|path| PathBuf::from(path).join(program).exists())
        {
            eprintln!("skipped: {program} is not installed; cargo xtask test installs it");
            return true;
        }
    }
    false
}

/// An FTP server whose only file says its name.
struct Vsftpd {
    _process: Process,
    folder: PathBuf,
}

impl Vsftpd {
    /// `options` are lines of vsftpd.conf(5). For one family: as a server of both, it answers PASV
    /// with 0.0.0.0 where it has a `pasv_address`.
    fn start(host: &Host, family: Family, options: &str) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = format!("shunt-ftp-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(folder);
        fs::create_dir_all(folder.join("files"))?;
        fs::create_dir_all(folder.join("empty"))?;
        fs::write(folder.join("files/who"), host.name())?;
        fs::write(folder.join("files/large"), vec![b'x'; 1 << 20])?;
        let (listen, table) = match family {
            Family::V4 => ("listen=YES", "tcp"),
            Family::V6 => ("listen_ipv6=YES", "tcp6"),
        };
        let settings = format!(
            "{listen}\nanonymous_enable=YES\nno_anon_password=YES\nanon_root={0}/files\n\
             secure_chroot_dir={0}/empty\nftp_username=ftp\nbackground=NO\n\
             seccomp_sandbox=NO\nisolate=NO\nisolate_network=NO\n\
             connect_from_port_20=YES\npasv_min_port=50000\npasv_max_port=50100\n{options}",
            folder.display()
        );
        let file = folder.join("vsftpd.conf");
        fs::write(&file, settings)?;
        let mut command = host.command("/usr/sbin/vsftpd");
        command.arg(&file);
        let process = Process::start(command)?;
        until("vsftpd to listen", LIMIT, || {
            let listens = fs::read_to_string(format!("/proc/{}/net/{table}", process.id()))?;
            // Port 21 in hexadecimal, and state LISTEN.
            Ok(listens
                .lines()
                .any(|line| line.contains(":0015 ") && line.contains(" 0A ")))
        })?;
        Ok(Self {
            _process: process,
            folder,
        })
    }
}

impl Drop for Vsftpd {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The ways in which a client asks for the data connection, as options of curl. Addresses that the
/// server names are used as it names them.
const PASSIVE: [&str; 2] = [
    "--no-ftp-skip-pasv-ip",
    "--no-ftp-skip-pasv-ip --disable-epsv",
];
const ACTIVE: [&str; 2] = ["--ftp-port -", "--ftp-port - --disable-eprt"];

/// PASV and PORT are words of IPv4 alone.
fn of_family<'a>(ways: &[&'a str], family: Family) -> Vec<&'a str> {
    let other = |way: &&&str| family == Family::V4 || !way.contains("disable");
    ways.iter().filter(other).copied().collect()
}

fn curl(client: &Host, way: &str, ftp: SocketAddr, file: &str) -> Result<Vec<u8>> {
    let mut command: Command = client.command("curl");
    command
        .args(["--silent", "--show-error", "--max-time", "15"])
        .args(way.split(' '))
        .arg(format!("ftp://{ftp}/{file}"));
    let output = command.output().context("cannot run curl")?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "curl {way} {file}: {error}");
    Ok(output.stdout)
}

/// Each client gets its files from one server, by each of these ways, and not both from the same.
fn transfers(bed: &Topology, family: Family, ways: &[&str]) -> Result<()> {
    let ftp = bed.service(family, 1, 21);
    let mut servers = Vec::new();
    for client in &bed.clients {
        let mut named = Vec::new();
        for way in of_family(ways, family) {
            for _ in 0..2 {
                let who = curl(client, way, ftp, "who")?;
                named.push(String::from_utf8_lossy(&who).into_owned());
            }
            let large = curl(client, way, ftp, "large")?;
            ensure!(large == vec![b'x'; 1 << 20], "{way}: {} bytes", large.len());
        }
        let first = named[0].clone();
        ensure!(named.iter().all(|name| *name == first), "{named:?}");
        servers.push(first);
    }
    ensure!(servers[0] != servers[1], "both clients got {}", servers[0]);
    Ok(())
}

fn add(bed: &Topology, director: &Director, family: Family, method: Method) -> Result<()> {
    let every = at(bed.vip(family, 1), 0);
    director.ipvsadm(&format!("-A -t {every} -s rr -p 300"))?;
    for index in 0..2 {
        let server = at(bed.server_address(family, index), 0);
        director.ipvsadm(&format!("-a -t {every} -r {server} {}", method.option()))?;
    }
    Ok(())
}

fn servers(bed: &Topology, family: Family, options: &str) -> Result<Vec<Vsftpd>> {
    let start = |server| Vsftpd::start(server, family, options);
    bed.servers.iter().map(start).collect()
}

fn bed() -> Result<Topology> {
    Topology::builder().clients(2).servers(2).offloads().build()
}

fn nft(host: &Host, rules: &str) -> Result<()> {
    let mut nft = host.command("/usr/sbin/nft");
    let output = nft.arg(rules).output().context("cannot run nft")?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "nft {rules}: {error}");
    Ok(())
}

#[test]
fn ftp_by_route_and_tunnel_is_passive_and_active() -> Result<()> {
    if skipped() || without_programs() {
        return Ok(());
    }
    for method in [Method::Route, Method::Tunnel] {
        let bed = bed()?;
        let _members = method.prepare(&bed)?;
        let director = Director::start(bed.director())?;
        for family in Family::BOTH {
            let case = |way| format!("{method:?} {family:?} {way}");
            let _ftp = servers(&bed, family, "")?;
            add(&bed, &director, family, method)?;
            transfers(&bed, family, &PASSIVE).with_context(|| case("passive"))?;
            transfers(&bed, family, &ACTIVE).with_context(|| case("active"))?;
        }
    }
    Ok(())
}

/// Only the ports of FTP belong to the service, by a firewall mark.
#[test]
fn ftp_by_route_and_a_mark_is_passive_and_active() -> Result<()> {
    if skipped() || without_programs() {
        return Ok(());
    }
    let bed = bed()?;
    let _members = Method::Route.prepare(&bed)?;
    let director = Director::start(bed.director())?;
    for (family, mark) in [(Family::V4, "7"), (Family::V6, "8")] {
        let _ftp = servers(&bed, family, "")?;
        let vip = match family {
            Family::V4 => bed.vip(family, 1).to_string(),
            Family::V6 => format!("[{}]", bed.vip(family, 1)),
        };
        director.shunt(&format!("mark add {mark} tcp/{vip}:20-21,50000-50100"))?;
        let kind = if family == Family::V6 { "-6" } else { "" };
        director.ipvsadm(&format!("-A -f {mark} {kind} -s rr -p 300"))?;
        for index in 0..2 {
            let server = at(bed.server_address(family, index), 0);
            director.ipvsadm(&format!("-a -f {mark} {kind} -r {server} -g"))?;
        }
        transfers(&bed, family, &PASSIVE).with_context(|| format!("{family:?} passive"))?;
        transfers(&bed, family, &ACTIVE).with_context(|| format!("{family:?} active"))?;
    }
    Ok(())
}

/// Passive: the server names the virtual address. Active: netfilter gives it to the server's first
/// packet, all others are translated by the connection that the client's answer opens.
#[test]
fn ftp_behind_masquerade_is_passive_and_with_one_rule_active() -> Result<()> {
    if skipped() || without_programs() {
        return Ok(());
    }
    let bed = bed()?;
    let _members = Method::Masquerade.prepare(&bed)?;
    let director = Director::start(bed.director())?;
    let has_nft = PathBuf::from("/usr/sbin/nft").exists();
    if !has_nft {
        eprintln!("skipped in part: nft is not installed; cargo xtask test installs it");
    }
    bed.director().sysctls(&[
        ("net.ipv4.ip_forward", "1"),
        ("net.ipv6.conf.all.forwarding", "1"),
    ])?;
    for (family, table) in [(Family::V4, "ip"), (Family::V6, "ip6")] {
        let vip = bed.vip(family, 1);
        let named = match family {
            Family::V4 => format!("pasv_address={vip}"),
            // RFC 2428: the answer to EPSV has a port and no address.
            Family::V6 => String::new(),
        };
        let _ftp = servers(&bed, family, &named)?;
        add(&bed, &director, family, Method::Masquerade)?;
        transfers(&bed, family, &PASSIVE).with_context(|| format!("{family:?} passive"))?;
        if !has_nft {
            continue;
        }
        let servers = [0, 1].map(|index| bed.server_address(family, index).to_string());
        let servers = format!("{table} saddr {{ {} }}", servers.join(", "));
        // Nobody else in the world has a way to the servers' own addresses.
        for client in &bed.clients {
            let hook = "type filter hook input priority filter";
            nft(
                client,
                &format!("table {table} ftp {{ chain in {{ {hook}; {servers} drop; }}; }}"),
            )?;
        }
        let way = "--max-time 3 --ftp-port -";
        let without = curl(bed.client(), way, bed.service(family, 1, 21), "who");
        ensure!(without.is_err(), "{family:?}: active without a rule");
        let hook = "type nat hook postrouting priority srcnat";
        let rule = format!("{hook}; {servers} tcp sport 20 snat to {vip};");
        nft(
            bed.director(),
            &format!("table {table} ftp {{ chain out {{ {rule} }}; }}"),
        )?;
        transfers(&bed, family, &ACTIVE).with_context(|| format!("{family:?} active"))?;
    }
    Ok(())
}
