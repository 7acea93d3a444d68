//! Servers of full NAT that are told of the client by the PROXY protocol: HAProxy and nginx.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};
use shunt_lab::{
    Family, Host, HttpLoad, HttpServer, Process, ReplyVia, Topology, get, skipped, transfer_down,
    transfer_up, until,
};

use crate::bed::{LIMIT, at, flawless};
use crate::director::Director;

const MB: u64 = 1_000_000;

fn local(family: Family) -> IpAddr {
    let text = match family {
        Family::V4 => "10.1.0.96",
        Family::V6 => "2001:db8:1::96",
    };
    text.parse().expect("an address")
}

#[derive(Clone, Copy, Debug)]
enum Program {
    Haproxy,
    Nginx,
}

/// A program that runs in a host with a configuration of its own.
struct Running {
    _process: Process,
    folder: PathBuf,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Program {
    fn name(self) -> &'static str {
        match self {
            Program::Haproxy => "haproxy",
            Program::Nginx => "nginx",
        }
    }

    fn is_installed(self) -> bool {
        let folders = std::env::var_os("PATH").unwrap_or_default();
        let mut folders = std::env::split_paths(&folders);
        folders.any(|folder| folder.join(self.name()).exists())
    }

    /// Says who the client is at `/client`, and passes all else on to port 8080.
    fn configuration(self, folder: &str) -> String {
        match self {
            Program::Haproxy => "\
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend web
  bind :80 accept-proxy
  bind [::]:80 v6only accept-proxy
  http-request return status 200 content-type text/plain lf-string %[src] if { path /client }
  default_backend lab
backend lab
  server one 127.0.0.1:8080
"
            .to_owned(),
            Program::Nginx => format!(
                "\
daemon off;
master_process off;
pid {folder}/pid;
error_log stderr;
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  client_max_body_size 0;
  server {{
    listen 80 proxy_protocol;
    listen [::]:80 ipv6only=on proxy_protocol;
    location = /client {{ return 200 $proxy_protocol_addr; }}
    location / {{ proxy_pass http://127.0.0.1:8080; }}
  }}
}}
"
            ),
        }
    }

    fn start(self, host: &Host) -> Result<Running> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("shunt-{}-{}-{number}", self.name(), std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder)?;
        let text = folder.to_string_lossy().into_owned();
        let path = folder.join("configuration");
        fs::write(&path, self.configuration(&text))?;
        let mut command = host.command(self.name());
        match self {
            Program::Haproxy => command.args(["-q", "-db", "-f"]).arg(&path),
            Program::Nginx => command.arg("-c").arg(&path).args(["-p", &text]),
        };
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let _process = Process::start(command)?;
        Ok(Running { _process, folder })
    }
}

#[test]
fn haproxy_sees_the_client_through_tc_with_offloads() -> Result<()> {
    through(Program::Haproxy, "tc")
}

#[test]
fn haproxy_sees_the_client_through_native_xdp() -> Result<()> {
    through(Program::Haproxy, "xdp-native")
}

#[test]
fn nginx_sees_the_client_through_tc_with_offloads() -> Result<()> {
    through(Program::Nginx, "tc")
}

#[test]
fn nginx_sees_the_client_through_generic_xdp() -> Result<()> {
    through(Program::Nginx, "xdp-generic")
}

fn through(program: Program, hook: &str) -> Result<()> {
    if skipped() {
        return Ok(());
    }
    if !program.is_installed() {
        println!("skipped: {} is not installed", program.name());
        return Ok(());
    }
    let bed = Topology::builder().servers(1);
    let bed = if hook == "tc" { bed.offloads() } else { bed };
    let bed = bed.build()?;
    bed.director_holds(0, "lo", 1)?;
    bed.servers_reply_via(ReplyVia::Router)?;
    let _http = HttpServer::start(&bed.servers[0], 8080)?;
    let _program = program.start(&bed.servers[0])?;
    let director = Director::start_with(bed.director(), &["--attach", hook])?;
    for family in Family::BOTH {
        let length = if family == Family::V4 { 24 } else { 64 };
        let address = local(family);
        bed.director()
            .address("back", format!("{address}/{length}"))?;
        director.shunt(&format!("local add {address} --ports 1024-9999"))?;
        let service = bed.service(family, 1, 80);
        director.shunt(&format!("service add tcp/{service} --announce proxy"))?;
        let server = at(bed.server_address(family, 0), 80);
        director.shunt(&format!(
            "server add tcp/{service} {server} --method fullnat"
        ))?;
        traffic(&bed, family).with_context(|| {
            let stats = director.shunt("stats").unwrap_or_default();
            format!("{program:?} {family:?} {hook}\n{stats}")
        })?;
    }
    // And servers of the other family.
    for (family, other) in [(Family::V4, Family::V6), (Family::V6, Family::V4)] {
        let service = bed.service(family, 1, 80);
        let [own, there] = [family, other].map(|of| at(bed.server_address(of, 0), 80));
        director.shunt(&format!("server delete tcp/{service} {own}"))?;
        director.shunt(&format!(
            "server add tcp/{service} {there} --method fullnat"
        ))?;
        traffic(&bed, family).with_context(|| {
            let stats = director.shunt("stats").unwrap_or_default();
            format!("{program:?} {family:?} to {other:?} {hook}\n{stats}")
        })?;
    }
    Ok(())
}

fn traffic(bed: &Topology, family: Family) -> Result<()> {
    let web = bed.service(family, 1, 80);
    let client = bed.client_address(family, 0).to_string();
    until("the server to answer", LIMIT, || {
        Ok(get(bed.client(), web, "/client").is_ok())
    })?;
    for _ in 0..20 {
        let answer = get(bed.client(), web, "/client")?;
        ensure!(answer.body.trim() == client, "seen: {:?}", answer.body);
    }
    let load = HttpLoad::to(web).workers(2).connection_per_request();
    flawless(&load.requests(500).run(bed.client())?)?;
    let load = HttpLoad::to(web).workers(2).requests(500);
    flawless(&load.run(bed.client())?)?;
    transfer_down(bed.client(), web, 20 * MB)?;
    transfer_up(bed.client(), web, 20 * MB)?;
    Ok(())
}
