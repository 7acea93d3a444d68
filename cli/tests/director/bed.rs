//! Beds that more than one test needs, and what a client holds open.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use shunt_agent::{Kind, Options};
use shunt_lab::{Family, Host, HttpServer, LoadReport, ReplyVia, Topology};

use crate::director::Director;

pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// An address and a port as `ipvsadm` reads and prints them.
pub(crate) fn at(address: IpAddr, port: u16) -> String {
    SocketAddr::new(address, port).to_string()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Masquerade,
    Route,
    Tunnel,
    /// Each with its checksum.
    Gue,
    Gre,
}

impl Method {
    pub(crate) const ALL: [Method; 3] = [Method::Masquerade, Method::Route, Method::Tunnel];

    pub(crate) fn option(self) -> &'static str {
        match self {
            Method::Masquerade => "-m",
            Method::Route => "-g",
            Method::Tunnel => "-i",
            Method::Gue => "-i --tun-type gue --tun-port 6080 --tun-csum",
            Method::Gre => "-i --tun-type gre --tun-csum",
        }
    }

    pub(crate) fn is_tunnel(self) -> bool {
        matches!(self, Method::Tunnel | Method::Gue | Method::Gre)
    }

    fn kind(self) -> Kind {
        match self {
            Method::Gue => Kind::Gue,
            Method::Gre => Kind::Gre,
            Method::Masquerade | Method::Route | Method::Tunnel => Kind::Ipip,
        }
    }

    /// Sets up servers and routes as the method needs them.
    pub(crate) fn prepare(self, bed: &Topology) -> Result<Vec<Member>> {
        bed.director_holds(0, "lo", 1)?;
        match self {
            Method::Masquerade => return Ok(Vec::new()),
            Method::Route => bed.servers_hold(1)?,
            Method::Tunnel | Method::Gue | Method::Gre => {}
        }
        bed.servers_reply_via(ReplyVia::Router)?;
        match self {
            Method::Tunnel | Method::Gue | Method::Gre => bed
                .servers
                .iter()
                .map(|server| Member::join(bed, server, self.kind()))
                .collect(),
            Method::Masquerade | Method::Route => Ok(Vec::new()),
        }
    }
}

/// A server that the agent has set up for tunnels; undone when dropped.
pub(crate) struct Member(Host);

impl Member {
    fn join(bed: &Topology, server: &Host, kind: Kind) -> Result<Member> {
        let options = Options {
            vips: Family::BOTH.map(|family| bed.vip(family, 1)).to_vec(),
            tunnel: true,
            anyone: true,
            kind,
            ..Options::default()
        };
        let report = server.run(|| shunt_agent::join(&options))?;
        ensure!(report.is_ready(), "{report}");
        Ok(Member(server.clone()))
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.0.run(shunt_agent::leave);
    }
}

pub(crate) fn web_servers(bed: &Topology) -> Result<Vec<HttpServer>> {
    bed.servers
        .iter()
        .map(|server| HttpServer::start(server, 80))
        .collect()
}

/// Adds the service on port 80 with the first servers of the bed; gives its address.
pub(crate) fn add_web(
    bed: &Topology,
    director: &Director,
    family: Family,
    method: Method,
    servers: usize,
) -> Result<SocketAddr> {
    let web = bed.service(family, 1, 80);
    director.ipvsadm(&format!("-A -t {web} -s rr"))?;
    for index in 0..servers {
        let server = at(bed.server_address(family, index), 80);
        director.ipvsadm(&format!("-a -t {web} -r {server} {}", method.option()))?;
    }
    Ok(web)
}

/// No request of this load failed, and there were some.
pub(crate) fn flawless(report: &LoadReport) -> Result<()> {
    ensure!(report.ok > 0, "no request was answered");
    ensure!(
        report.failed() == 0,
        "{} ok, failed: {:?}",
        report.ok,
        report.failures
    );
    Ok(())
}

/// A connection that a client holds open.
pub(crate) struct Held {
    stream: TcpStream,
}

impl Held {
    pub(crate) fn open(client: &Host, to: SocketAddr) -> Result<Held> {
        let stream = client.run(|| {
            let stream = TcpStream::connect_timeout(&to, LIMIT)?;
            stream.set_read_timeout(Some(LIMIT))?;
            stream.set_write_timeout(Some(LIMIT))?;
            Ok(stream)
        })?;
        Ok(Held { stream })
    }

    /// Several, each with the server that answers it.
    pub(crate) fn open_all(
        client: &Host,
        to: SocketAddr,
        count: usize,
    ) -> Result<Vec<(Held, String)>> {
        let open = |_| {
            let mut held = Held::open(client, to)?;
            let server = held.ask()?;
            Ok((held, server))
        };
        (0..count).map(open).collect()
    }

    /// Asks on this connection who is there.
    pub(crate) fn ask(&mut self) -> Result<String> {
        Ok(self.ask_client()?.0)
    }

    /// The same, and what client the server sees.
    pub(crate) fn ask_client(&mut self) -> Result<(String, SocketAddr)> {
        self.stream
            .write_all(b"GET / HTTP/1.1\r\nHost: held\r\n\r\n")
            .context("send")?;
        let mut answer = Vec::new();
        let mut piece = [0; 1024];
        loop {
            let length = self.stream.read(&mut piece).context("answer")?;
            ensure!(length > 0, "closed without an answer");
            answer.extend_from_slice(&piece[..length]);
            let text = String::from_utf8_lossy(&answer);
            // The body's last line is the address that was asked.
            let field = |name| text.lines().find_map(|line| line.strip_prefix(name));
            let is_whole = text.contains("\naddress ") && text.ends_with('\n');
            if let (Some(server), Some(client), true) =
                (field("server "), field("client "), is_whole)
            {
                return Ok((server.to_owned(), client.parse()?));
            }
        }
    }
}
