//! Firewall marks: several addresses, ports and protocols as one service.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use shunt_lab::{Family, HttpLoad, HttpServer, Topology, get, skipped};

use crate::bed::{Held, Method, at, web_servers};
use crate::director::Director;

/// The servers that answer ten requests, each by a connection of its own.
pub(crate) fn servers(bed: &Topology, client: usize, web: SocketAddr) -> Result<Vec<String>> {
    let report = HttpLoad::to(web)
        .workers(1)
        .connection_per_request()
        .requests(10)
        .run(&bed.clients[client])?;
    ensure!(report.failed() == 0, "{report:?}");
    Ok(report.servers.into_keys().collect())
}

#[test]
fn a_client_of_a_mark_has_one_server_on_all_its_ports() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let bed = Topology::builder()
        .clients(2)
        .servers(2)
        .offloads()
        .build()?;
    let _members = Method::Route.prepare(&bed)?;
    let _http = web_servers(&bed)?;
    let more = |server| HttpServer::start(server, 8443);
    let _more: Vec<HttpServer> = bed.servers.iter().map(more).collect::<Result<_>>()?;
    let mut director = Director::start(bed.director())?;
    for (family, mark, kind) in [(Family::V4, 7, ""), (Family::V6, 8, " -6")] {
        let web = bed.service(family, 1, 80);
        let other = SocketAddr::new(web.ip(), 8443);
        let target = at(web.ip(), 80);
        director.shunt(&format!("mark add {mark} tcp/{target},8443"))?;
        director.ipvsadm(&format!("-A -f {mark}{kind} -s rr -p 100"))?;
        for index in 0..2 {
            let server = at(bed.server_address(family, index), 0);
            director.ipvsadm(&format!("-a -f {mark}{kind} -r {server} -g"))?;
        }

        let first = servers(&bed, 0, web)?;
        ensure!(first.len() == 1, "{first:?}");
        ensure!(servers(&bed, 0, other)? == first, "another server on 8443");
        let second = servers(&bed, 1, other)?;
        ensure!(second.len() == 1 && second != first, "{first:?} {second:?}");

        let listing = director.ipvsadm("-Lnc")?;
        let name = if family == Family::V4 {
            "0.0.0.7:0"
        } else {
            "[0:8::]:0"
        };
        let is_template = |line: &str| line.starts_with("IP ") && line.contains(name);
        ensure!(
            listing.lines().filter(|line| is_template(line)).count() == 2,
            "{listing}"
        );
        ensure!(listing.contains(&at(web.ip(), 8443)), "{listing}");

        // Neither the rule nor the template is lost with the daemon.
        director.kill()?;
        ensure!(servers(&bed, 0, other)? == first, "moved without a daemon");
        director.restart()?;
        ensure!(servers(&bed, 0, web)? == first, "moved by a restart");
        director.shunt(&format!("mark delete {mark} tcp/{target}"))?;
        ensure!(
            get(&bed.clients[0], web, "/").is_err(),
            "{web} is still marked"
        );
        ensure!(servers(&bed, 0, other)? == first, "8443 went too");
    }
    let rules = director.shunt("mark list")?;
    ensure!(
        rules.contains("mark 8 ipv6") && rules.lines().count() == 3,
        "{rules}"
    );
    Ok(())
}

#[test]
fn a_rule_of_a_network_comes_before_one_for_everybody() -> Result<()> {
    by_origin(Method::Route, "-g")
}

#[test]
fn a_rule_of_a_network_leads_to_masqueraded_servers_too() -> Result<()> {
    by_origin(Method::Masquerade, "-m")
}

fn by_origin(method: Method, option: &str) -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let bed = Topology::builder()
        .clients(2)
        .servers(2)
        .offloads()
        .build()?;
    let _members = method.prepare(&bed)?;
    let _http = web_servers(&bed)?;
    let mut director = Director::start(bed.director())?;
    let names = |index: usize| bed.servers[index].name().to_owned();
    for (family, marks, kind) in [(Family::V4, [1, 2], ""), (Family::V6, [3, 4], " -6")] {
        let web = bed.service(family, 1, 80);
        let target = at(web.ip(), 80);
        let only = bed.client_address(family, 1);
        for (index, mark) in marks.into_iter().enumerate() {
            director.ipvsadm(&format!("-A -f {mark}{kind} -s rr"))?;
            let server = at(bed.server_address(family, index), 0);
            director.ipvsadm(&format!("-a -f {mark}{kind} -r {server} {option}"))?;
        }
        director.shunt(&format!("mark add {} tcp/{target}", marks[0]))?;
        ensure!(servers(&bed, 1, web)? == [names(0)], "not by the only rule");

        director.shunt(&format!("mark add {} tcp/{target} --from {only}", marks[1]))?;
        ensure!(servers(&bed, 1, web)? == [names(1)], "not by its own rule");
        ensure!(servers(&bed, 0, web)? == [names(0)], "by a rule of another");

        director.kill()?;
        ensure!(
            servers(&bed, 1, web)? == [names(1)],
            "moved without a daemon"
        );
        director.restart()?;
        ensure!(servers(&bed, 1, web)? == [names(1)], "moved by a restart");

        // No client comes by the director's loopback, and every one by some other device.
        director.shunt(&format!(
            "mark delete {} tcp/{target} --from {only}",
            marks[1]
        ))?;
        director.shunt(&format!("mark add {} tcp/{target} --device lo", marks[1]))?;
        ensure!(servers(&bed, 1, web)? == [names(0)], "by a rule for lo");
    }
    let rules = director.shunt("mark list")?;
    ensure!(
        rules.contains("anywhere") && rules.contains(" lo "),
        "{rules}"
    );
    Ok(())
}

/// As in IPVS, which knows a connection by its ends, whatever its packets are marked with by then.
#[test]
fn connections_outlive_their_rule() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    for method in [Method::Route, Method::Masquerade] {
        let bed = Topology::builder().servers(2).offloads().build()?;
        let _members = method.prepare(&bed)?;
        let _http = web_servers(&bed)?;
        let mut director = Director::start(bed.director())?;
        for (family, mark, kind) in [(Family::V4, 7, ""), (Family::V6, 8, " -6")] {
            let web = bed.service(family, 1, 80);
            let rule = format!("{mark} tcp/{}", at(web.ip(), 80));
            director.shunt(&format!("mark add {rule}"))?;
            director.ipvsadm(&format!("-A -f {mark}{kind} -s rr"))?;
            for index in 0..2 {
                let server = at(bed.server_address(family, index), 0);
                let option = method.option();
                director.ipvsadm(&format!("-a -f {mark}{kind} -r {server} {option}"))?;
            }
            let mut held = Held::open_all(bed.client(), web, 4)?;
            let mut goes_on = |when: &str| -> Result<()> {
                for (held, server) in &mut held {
                    let now = held
                        .ask()
                        .with_context(|| format!("{method:?} {family:?} {when}"))?;
                    ensure!(now == *server, "{when}: moved from {server} to {now}");
                }
                Ok(())
            };

            director.shunt(&format!("mark delete {rule}"))?;
            ensure!(get(bed.client(), web, "/").is_err(), "{web} is still ours");
            goes_on("without its rule")?;
            // Longer than it takes to see that nobody needs the place.
            std::thread::sleep(Duration::from_secs(3));
            goes_on("a while later")?;
            director.kill()?;
            director.restart()?;
            ensure!(get(bed.client(), web, "/").is_err(), "{web} is ours again");
            goes_on("after a restart")?;

            director.shunt(&format!("mark add {rule}"))?;
            ensure!(get(bed.client(), web, "/").is_ok(), "{web} is not back");
            goes_on("with its rule again")?;
        }
    }
    Ok(())
}
