//! Directors that are real servers of each other.

use anyhow::{Result, ensure};
use shunt_lab::{
    Family, HttpLoad, HttpServer, ReplyVia, Topology, UdpEcho, VirtualVia, skipped, udp_ask,
};

use crate::bed::{LIMIT, at, flawless};
use crate::director::Director;

/// Each has both of them and a third machine in its pool, by direct routing. Whichever gets the
/// clients' packets, all three serve, and nothing goes to and fro.
#[test]
fn codirector_no_loop() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    for hook in ["tc", "xdp-native"] {
        let bed = Topology::builder().directors(2).servers(1);
        let bed = if hook == "tc" { bed.offloads() } else { bed };
        let bed = bed.build()?;
        bed.servers_hold(1)?;
        bed.servers_reply_via(ReplyVia::Router)?;
        let hosts = [&bed.directors[0], &bed.directors[1], &bed.servers[0]];
        let mut web = Vec::new();
        let mut dns = Vec::new();
        for host in hosts {
            web.push(HttpServer::start(host, 80)?);
            dns.push(UdpEcho::start(host, 53)?);
        }
        let mut directors = Vec::new();
        for index in 0..2 {
            bed.director_holds(index, "lo", 1)?;
            let director = Director::start_with(&bed.directors[index], &["--attach", hook])?;
            for family in Family::BOTH {
                let servers = [
                    bed.director_back(family, 0),
                    bed.director_back(family, 1),
                    bed.server_address(family, 0),
                ];
                for (option, port) in [("-t", 80), ("-u", 53)] {
                    let service = bed.service(family, 1, port);
                    director.ipvsadm(&format!("-A {option} {service} -s rr"))?;
                    for server in servers {
                        let server = at(server, port);
                        director.ipvsadm(&format!("-a {option} {service} -r {server} -g"))?;
                    }
                }
            }
            directors.push(director);
        }
        for first in 0..2 {
            bed.route_virtual(VirtualVia::Director(first))?;
            for family in Family::BOTH {
                let case = format!("{hook}: {family:?} by director {first}");
                let load = HttpLoad::to(bed.service(family, 1, 80));
                let load = load.workers(1).connection_per_request().requests(30);
                let report = load.run(bed.client())?;
                flawless(&report)?;
                let each: Vec<u64> = report.servers.values().copied().collect();
                ensure!(each == [10, 10, 10], "{case}: {:?}", report.servers);
                for _ in 0..6 {
                    udp_ask(bed.client(), bed.service(family, 1, 53), 100, LIMIT)?;
                }
            }
        }
        for director in &directors {
            let stats = director.shunt("stats --json")?;
            let stats: serde_json::Value = serde_json::from_str(&stats)?;
            let verdicts = &stats["verdicts"];
            ensure!(verdicts["answered-time-exceeded"] == 0, "{verdicts}");
            ensure!(verdicts["pass-local"].as_u64() > Some(0), "{verdicts}");
        }
        drop((web, dns));
    }
    Ok(())
}
