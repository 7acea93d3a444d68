//! Marks that netfilter sets, as docs/guides/marks-of-netfilter.md has it: marked packets take a way
//! of their own, by a pair of devices, whose rule gives them to the mark's service.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use shunt_lab::{Family, Host, HttpServer, Topology, get, skipped, until};

use crate::bed::{LIMIT, Method, at, web_servers};
use crate::director::Director;
use crate::marks::servers;

/// Whether the programs are there; says aloud that a test is skipped otherwise.
fn without_programs() -> bool {
    for program in ["ip", "nft"] {
        let folders = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];
        let mut paths = folders
            .iter()
            .map(|folder| PathBuf::from(folder).join(program));
        if !paths.any(|path| path.exists()) {
            eprintln!("skipped: {program} is not installed; cargo xtask test installs it");
            return true;
        }
    }
    false
}

/// Runs lines of the guide.
fn run(host: &Host, lines: &str) -> Result<()> {
    let mut shell = host.command("sh");
    let output = shell.args(["-ec", lines]).output()?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{lines}: {error}");
    Ok(())
}

/// The way of marked packets.
const WAY: &str = "
ip link add mark7 address 02:00:00:00:00:07 type veth peer name marked7 address 02:00:00:00:00:07
ip link set mark7 arp off up
ip link set marked7 up
ip -4 route add default dev mark7 table 1007
ip -6 route add default dev mark7 table 1007";
/// And who takes it.
const RULES: &str = "
for family in -4 -6; do
    ip $family rule add fwmark 7 lookup 1007 pref 7
    ip $family rule add lookup local pref 100
    ip $family rule del lookup local pref 0
done";

#[test]
fn marks_of_netfilter_lead_to_servers_by_route() -> Result<()> {
    marked(Method::Route)
}

#[test]
fn marks_of_netfilter_lead_to_masqueraded_servers() -> Result<()> {
    marked(Method::Masquerade)
}

fn marked(method: Method) -> Result<()> {
    if skipped() || without_programs() {
        return Ok(());
    }
    let bed = Topology::builder().clients(2).servers(2).build()?;
    let _members = method.prepare(&bed)?;
    let _http = web_servers(&bed)?;
    let more = |server| HttpServer::start(server, 8443);
    let _more: Vec<HttpServer> = bed.servers.iter().map(more).collect::<Result<_>>()?;
    let forwards = [
        ("net.ipv4.ip_forward", "1"),
        ("net.ipv6.conf.all.forwarding", "1"),
    ];
    bed.director().sysctls(&forwards)?;
    run(bed.director(), WAY)?;
    run(bed.director(), RULES)?;
    let mut director = Director::start(bed.director())?;
    for (family, mark, kind) in [(Family::V4, 7, ""), (Family::V6, 8, " -6")] {
        let web = bed.service(family, 1, 80);
        let other = SocketAddr::new(web.ip(), 8443);
        let (table, stranger) = match family {
            Family::V4 => ("ip", bed.client_address(family, 1)),
            Family::V6 => ("ip6", bed.client_address(family, 1)),
        };
        let hook = "type filter hook prerouting priority mangle";
        let which = format!("{table} daddr {} tcp dport {{ 80, 8443 }}", web.ip());
        let rule = format!("{which} {table} saddr != {stranger} meta mark set 7");
        let rules = format!("nft 'table {table} mangle {{ chain in {{ {hook}; {rule}; }}; }}'");
        run(bed.director(), &rules)?;
        let target = at(web.ip(), 0);
        let target = target.strip_suffix(":0").unwrap_or(&target);
        director.shunt(&format!("mark add {mark} tcp/{target} --device marked7"))?;
        director.ipvsadm(&format!("-A -f {mark}{kind} -s rr -p 100"))?;
        for index in 0..2 {
            let server = at(bed.server_address(family, index), 0);
            let option = method.option();
            director.ipvsadm(&format!("-a -f {mark}{kind} -r {server} {option}"))?;
        }
        let case = || format!("{method:?} {family:?}");

        let first = servers(&bed, 0, web).with_context(case)?;
        ensure!(first.len() == 1, "{first:?}");
        let same = servers(&bed, 0, other).with_context(case)?;
        ensure!(same == first, "another server on 8443");
        ensure!(
            get(&bed.clients[1], web, "/").is_err(),
            "{}: netfilter did not mark this client",
            case()
        );
        director.kill()?;
        ensure!(servers(&bed, 0, other)? == first, "moved without a daemon");
        director.restart()?;
        ensure!(servers(&bed, 0, web)? == first, "moved by a restart");

        run(bed.director(), "ip link delete mark7")?;
        ensure!(get(bed.client(), web, "/").is_err(), "without a way");
        run(bed.director(), WAY)?;
        until("marked packets on the new way", LIMIT, || {
            Ok(get(bed.client(), web, "/").is_ok())
        })?;
        ensure!(servers(&bed, 0, other)? == first, "moved by the new way");
    }
    Ok(())
}
