//! Clients of a persistent service stay with one server, and the listings show why.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use shunt_lab::{Family, HttpLoad, HttpServer, Topology, skipped, until};

use crate::bed::{Held, LIMIT, Method, add_web, at, web_servers};
use crate::director::Director;

/// The only server that answered these requests, each by a connection of its own.
fn only_server(bed: &Topology, client: usize, web: SocketAddr) -> Result<String> {
    let report = HttpLoad::to(web)
        .workers(1)
        .connection_per_request()
        .requests(30)
        .run(&bed.clients[client])?;
    ensure!(report.failed() == 0, "{report:?}");
    let mut servers = report.servers.keys();
    let server = servers.next().context("nobody answered")?;
    ensure!(servers.next().is_none(), "several: {:?}", report.servers);
    Ok(server.clone())
}

/// The seconds that the template of this client has left, and its state.
fn template(director: &Director, client: &str) -> Result<Option<(u32, String)>> {
    let listing = director.ipvsadm("-Lnc")?;
    let from = if client.contains(':') {
        format!("[{client}]:0")
    } else {
        format!("{client}:0")
    };
    let Some(line) = listing
        .lines()
        .find(|line| line.contains(&format!(" {from} ")))
    else {
        return Ok(None);
    };
    let words: Vec<&str> = line.split_whitespace().collect();
    let (minutes, seconds) = words
        .get(1)
        .and_then(|time| time.split_once(':'))
        .with_context(|| format!("no time in {line:?}"))?;
    let left = minutes.parse::<u32>()? * 60 + seconds.parse::<u32>()?;
    Ok(Some((left, words.get(2).unwrap_or(&"").to_string())))
}

#[test]
fn a_client_stays_with_its_server_and_the_listings_say_so() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    for method in [Method::Masquerade, Method::Route] {
        let bed = Topology::builder()
            .clients(2)
            .servers(3)
            .offloads()
            .build()?;
        let _members = method.prepare(&bed)?;
        let _http = web_servers(&bed)?;
        let mut director = Director::start(bed.director())?;
        for family in Family::BOTH {
            let web = add_web(&bed, &director, family, method, 3)?;
            let whole = if family == Family::V4 {
                "255.255.255.255"
            } else {
                "128"
            };
            director.ipvsadm(&format!("-E -t {web} -s rr -p 100 -M {whole}"))?;
            let first = only_server(&bed, 0, web)?;
            let second = only_server(&bed, 1, web)?;
            ensure!(first != second, "rr gave both clients {first}");

            let client = bed.client_address(family, 0).to_string();
            let (left, state) = template(&director, &client)?.context("no template")?;
            ensure!((95..=100).contains(&left), "{left} s left");
            ensure!(state == "ASSURED", "{state}");
            let listing = director.ipvsadm("-Ln --persistent-conn")?;
            let rows = listing.lines().filter(|line| line.contains("->"));
            let templates: Vec<&str> = rows
                .filter_map(|row| row.split_whitespace().nth(3))
                .filter(|number| *number == "1")
                .collect();
            ensure!(templates.len() >= 2, "{listing}");

            // A quiesced server keeps its clients; a removed one does not, and nor does a daemon
            // that was killed in between change anything.
            let index = usize::from(first.as_bytes()[6] - b'1');
            let server = at(bed.server_address(family, index), 80);
            let option = method.option();
            director.ipvsadm(&format!("-e -t {web} -r {server} {option} -w 0"))?;
            director.kill()?;
            ensure!(
                only_server(&bed, 0, web)? == first,
                "left a quiesced server"
            );
            director.restart()?;
            ensure!(
                only_server(&bed, 0, web)? == first,
                "left it after a restart"
            );
            director.ipvsadm(&format!("-d -t {web} -r {server}"))?;
            let other = only_server(&bed, 0, web)?;
            ensure!(other != first, "still with a removed server");
            director.ipvsadm(&format!("-D -t {web}"))?;
        }
    }
    Ok(())
}

#[test]
fn a_template_outlives_its_time_while_its_client_has_a_connection() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let bed = Topology::builder().servers(2).offloads().build()?;
    let _members = Method::Masquerade.prepare(&bed)?;
    let _http = web_servers(&bed)?;
    let director = Director::start(bed.director())?;
    let web = add_web(&bed, &director, Family::V4, Method::Masquerade, 2)?;
    director.ipvsadm(&format!("-E -t {web} -s rr -p 10"))?;
    let client = bed.client_address(Family::V4, 0).to_string();
    let mut held = Held::open(bed.client(), web)?;
    let server = held.ask()?;
    let (left, _) = template(&director, &client)?.context("no template")?;
    ensure!(left <= 10, "{left} s of 10");

    // ip_vs_conn_expire: a template that has connections gets another minute.
    until("the template to get another minute", LIMIT, || {
        Ok(template(&director, &client)?.is_some_and(|(left, _)| left > 50))
    })?;

    ensure!(held.ask()? == server, "the connection moved");
    ensure!(only_server(&bed, 0, web)? == server, "the client moved");
    Ok(())
}

#[test]
fn one_service_has_every_port_of_its_address() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    for method in [Method::Masquerade, Method::Route] {
        let bed = Topology::builder()
            .clients(2)
            .servers(2)
            .offloads()
            .build()?;
        let _members = method.prepare(&bed)?;
        let _http = web_servers(&bed)?;
        let more = |server| HttpServer::start(server, 8081);
        let _more: Vec<HttpServer> = bed.servers.iter().map(more).collect::<Result<_>>()?;
        let director = Director::start(bed.director())?;
        for family in Family::BOTH {
            let web = bed.service(family, 1, 80);
            let all = at(web.ip(), 0);
            director.ipvsadm(&format!("-A -t {all} -s rr -p 100"))?;
            for index in 0..2 {
                let server = at(bed.server_address(family, index), 0);
                director.ipvsadm(&format!("-a -t {all} -r {server} {}", method.option()))?;
            }
            let other = SocketAddr::new(web.ip(), 8081);
            let first = only_server(&bed, 0, web)?;
            ensure!(
                only_server(&bed, 0, other)? == first,
                "another server on another port"
            );
            ensure!(
                only_server(&bed, 1, other)? != first,
                "rr gave both clients {first}"
            );
            let listing = director.ipvsadm("-Lnc")?;
            for port in [80, 8081] {
                let wanted = format!(" {} ", at(web.ip(), port));
                let server = format!(":{port}");
                let is_there =
                    |line: &str| line.contains(&wanted) && line.trim_end().ends_with(&server);
                ensure!(listing.lines().any(is_there), "no {wanted} in {listing}");
            }
            let save = director.ipvsadm("-Sn")?;
            ensure!(
                save.contains(&format!("-A -t {all} -s rr -p 100")),
                "{save}"
            );
        }
    }
    Ok(())
}
