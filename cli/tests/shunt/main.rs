//! What `shunt` says and does: the real command line before the real table; only the socket
//! between them is left out.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use shunt_cli::client::{Client, Failure};
use shunt_cli::shunt::{Outside, run};
use shunt_model::api::{LocalPool, Statistics, Status};
use shunt_model::device::{Device, Hook};
use shunt_model::warning::{Table, Warning};
use shunt_model::{Connection, Counters, Family, Protocol, Rates, State};

use memory::{Handle, Numbers};

mod changes;
mod import;
#[path = "../ipvsadm/memory.rs"]
mod memory;
mod recording;
mod settings;
mod usage;

const WEB: &str = "tcp/192.0.2.1:80";

#[test]
fn services_and_servers_are_listed_in_the_order_of_their_addresses() {
    let stage = Stage::with_two_services();

    assert_eq!(
        stage.says("service list"),
        "\
SERVICE               SCHEDULER      SERVERS  ACTIVE  INACTIVE  CONNECTIONS/S
tcp 192.0.2.1:80      wlc                  2      12         3              7
udp [2001:db8::1]:53  sh (fallback)        0       0         0              0
"
    );
    assert_eq!(
        stage.says("server list"),
        "\
SERVICE           SERVER          METHOD      WEIGHT  ACTIVE  INACTIVE  CONNECTIONS/S  NEXT HOP
tcp 192.0.2.1:80  10.1.0.11:8080  masquerade       1      12         3              7
tcp 192.0.2.1:80  10.1.0.12:8080  masquerade       2       0         0              0
"
    );
    assert_eq!(
        stage.says(&format!("server list {WEB}")),
        stage.says("server list")
    );
}

#[test]
fn one_service_is_shown_with_its_servers_and_their_traffic() {
    let said = Stage::with_two_services().says("service show tcp 192.0.2.1:80");

    let expected = "\
service      tcp 192.0.2.1:80
scheduler    wlc

SERVER          METHOD      WEIGHT  ACTIVE  INACTIVE  CONNECTIONS/S  NEXT HOP
10.1.0.11:8080  masquerade       1      12         3              7
10.1.0.12:8080  masquerade       2       0         0              0

SERVICE, SERVER   CONNECTIONS  PACKETS IN  OUT  BYTES IN    OUT  CONNECTIONS/S";
    assert!(said.starts_with(expected), "{said}");
    assert!(
        said.contains("\n  10.1.0.11:8080           15         100   90"),
        "{said}"
    );
}

#[test]
fn json_is_the_words_of_the_api() {
    let stage = Stage::with_two_services();

    let services = stage.json("service list --json");
    assert_eq!(
        services[0]["service"],
        json!({
            "key": {"kind": "address", "protocol": "tcp", "address": "192.0.2.1", "port": 80},
            "scheduler": "wlc",
            "flags": {"fallback": false, "port": false, "third": false},
            "one_packet": false,
        })
    );
    assert_eq!(services[0]["servers"][0]["active_connections"], 12);
    assert_eq!(
        stage.json(&format!("--json service show {WEB}")),
        services[0]
    );
    let server = &stage.json("server list --json")[1];
    assert_eq!(server["key"]["port"], 80);
    assert_eq!(
        server["server"],
        json!({
            "at": {"address": "10.1.0.12", "port": 8080}, "method": "masquerade", "weight": 2,
            "upper_threshold": 0, "lower_threshold": 0,
        })
    );
}

#[test]
fn status_says_who_runs_where_and_how_full_it_is() {
    let stage = Stage::new();
    stage.handle.0.borrow_mut().status = Status {
        version: "0.1.0".into(),
        pid: 812,
        uptime_s: 725,
        adopted: true,
        devices: vec![Device {
            name: "eth0".into(),
            index: 2,
            hook: Some(Hook::XdpNative),
            refused: Vec::new(),
        }],
        flows_capacity: 1_048_576,
        flows_used: 12_345,
        services: 1,
        servers: 3,
        client_hops: 3,
        client_routes_asked: 17,
        local_pools: vec![LocalPool {
            family: Family::Ipv4,
            addresses: 2,
            ports: 63_488,
            used: 51_000,
            fullest: Some("10.1.0.11:80".parse().unwrap()),
        }],
        translations_capacity: 262_144,
        translations_used: 102_000,
        warnings: vec![Warning::TableNearlyFull {
            table: Table::Connections,
        }],
        ..Status::default()
    };

    assert_eq!(
        stage.says("status"),
        "\
daemon       0.1.0, process 812, up 12 min 5 s, adopted the packet path of an earlier daemon
services     1 with 3 servers
connections  12345 of 1048576 entries (1.1 %)
hops         3 prepared for clients, 17 answers took the kernel's routes
local        IPv4: 2 addresses with 63488 ports for each server, 51000 used at 10.1.0.11:80
translations 102000 of 262144 entries
warning      the connection table is nearly full: start shuntd with more --flows

DEVICE  INDEX  HOOK
eth0        2  xdp-native
"
    );
    assert_eq!(
        stage.json("status --json")["devices"][0]["hook"],
        "xdp-native"
    );
}

#[test]
fn connections_are_filtered_by_service_server_client_and_state() {
    let stage = Stage::with_connections();
    let lines = |line: &str| stage.says(line).lines().count() - 1;

    assert_eq!(
        stage.says("connection list --limit 1"),
        "\
PROTOCOL  CLIENT                 SERVICE                SERVER                 STATE        EXPIRES
tcp       198.51.100.7:40000     192.0.2.1:80           10.1.0.11:8080         ESTABLISHED    900 s
"
    );
    assert_eq!(lines("connection list"), 3);
    assert_eq!(lines("connection list --service tcp 192.0.2.1:80"), 2);
    assert_eq!(lines("connection list --server 10.1.0.12:8080"), 1);
    assert_eq!(lines("connection list --client 198.51.100.0/24"), 2);
    assert_eq!(lines("connection list --client 2001:db8:5::/48"), 1);
    assert_eq!(
        lines("connection list --state time-wait --service tcp/192.0.2.1:80"),
        1
    );
}

#[test]
fn a_connection_in_json_is_a_line() {
    let said = Stage::with_connections().says("connection list --json");

    let lines: Vec<Value> = said
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[0]["virtual_address"], "192.0.2.1:80");
    assert_eq!(lines[1]["state"], "TIME_WAIT");
}

#[test]
fn connections_are_counted_by_state_with_and_without_a_filter() {
    let stage = Stage::with_connections();

    assert_eq!(
        stage.says("connection count"),
        "STATE        CONNECTIONS\nESTABLISHED            1\nTIME_WAIT              1\n\
         UDP                    1\ntotal                  3\n"
    );
    assert_eq!(
        stage.json("connection count --client 198.51.100.0/24 --json"),
        json!({"total": 2, "by_state": {"ESTABLISHED": 1, "TIME_WAIT": 1}})
    );
}

#[test]
fn stats_explain_what_occurred() {
    let stage = Stage::with_two_services();
    stage.handle.0.borrow_mut().statistics = statistics();

    let said = stage.says("stats");
    let expected = "\
VERDICT  PACKETS  MEANING
sent         100  forwarded

DROP         PACKETS  MEANING
no-next-hop        4  no route, neighbour or interface to the server

NOTE    TIMES  MEANING
opened     15  a connection got an entry

SERVICE, SERVER       CONNECTIONS";
    assert!(said.starts_with(expected), "{said}");
    assert!(said.lines().last().unwrap().starts_with("total "), "{said}");
    let report = stage.json("stats --json");
    assert_eq!(report["notes"], json!({"opened": 15, "reused": 0}));
    assert_eq!(report["services"][0]["counters"]["in_packets"], 100);
}

#[test]
fn files_of_the_kernels_have_its_form_and_no_other() {
    let stage = Stage::with_two_services();

    assert_eq!(stage.says("proc ip_vs_app"), "prot port    usecnt name\n");
    let said = stage.run("proc ip_vs --json");
    assert_eq!((said.status, said.out.as_str()), (2, ""));
    let said = stage.run("proc ip_vs_stats_percpu");
    assert_eq!((said.status, said.out.as_str()), (1, ""));
    assert!(
        said.error.contains("ask for ip_vs_stats\n"),
        "{}",
        said.error
    );
}

#[test]
fn all_drop_reasons_are_shown_when_asked_for() {
    let stage = Stage::new();
    stage.handle.0.borrow_mut().statistics = statistics();

    assert_eq!(
        stage.says("stats --drops"),
        "\
DROP         PACKETS  MEANING
no-next-hop        4  no route, neighbour or interface to the server
table-full         0  no room for a connection that needs an entry
"
    );
    let drops = json!({"no-next-hop": 4, "table-full": 0});
    assert_eq!(stage.json("stats --drops --json"), drops);
}

#[test]
fn watching_redraws_on_a_terminal_and_appends_elsewhere() {
    let stage = Stage::with_connections();

    let appended = stage.watch("connection count --state udp --watch 1", 2, false);
    let picture = "STATE  CONNECTIONS\nUDP              1\ntotal            1\n";
    assert_eq!(appended.out, format!("{picture}\n{picture}"));
    assert_eq!(appended.status, 0);

    let redrawn = stage.watch("connection count --state udp --watch", 2, true);
    let picture = picture.replace('\n', "\x1b[K\n");
    assert_eq!(
        redrawn.out,
        format!("\x1b[2J\x1b[H{picture}\x1b[J\x1b[H{picture}\x1b[J")
    );
}

#[test]
fn watching_in_json_writes_one_line_an_answer() {
    let said = Stage::new().watch("status --watch --json", 3, true);

    assert_eq!(said.out.lines().count(), 3);
    assert!(
        said.out
            .lines()
            .all(|line| serde_json::from_str::<Value>(line).is_ok())
    );
}

#[test]
fn watching_goes_on_while_the_daemon_is_restarted() {
    let mut stage = Stage::new();
    stage.away = 1..2;

    let said = stage.watch("status --watch", 3, false);

    assert_eq!(said.status, 0);
    assert_eq!(said.out.matches("daemon ").count(), 2);
    assert!(
        said.error
            .starts_with("shuntd does not answer at /run/shunt/1/api.sock: ")
    );
}

#[test]
fn a_daemon_that_does_not_answer_is_the_third_exit_code() {
    let mut stage = Stage::new();
    stage.away = 0..9;

    for line in [
        "status",
        "status --watch",
        "service add tcp/192.0.2.1:80",
        "stats --drops",
    ] {
        let said = stage.run(line);
        assert_eq!((said.status, said.out.as_str()), (3, ""), "{line}");
        assert!(said.error.contains("/run/shunt/1/api.sock"), "{line}");
    }
}

/// A table to talk to.
struct Stage {
    handle: Handle,
    /// The openings, counted from 0, that find no daemon.
    away: std::ops::Range<u32>,
    /// What a kernel was recorded to answer.
    kernel: String,
}

struct Said {
    out: String,
    error: String,
    status: u8,
}

impl Stage {
    fn new() -> Self {
        Self {
            handle: Handle::new(0),
            away: 0..0,
            kernel: recording::WITHOUT_IPVS.to_owned(),
        }
    }

    fn with_two_services() -> Self {
        let stage = Self::new();
        for line in [
            "service add udp/[2001:db8::1]:53 --scheduler sh --flags fallback",
            "service add tcp/192.0.2.1:80",
            "server add tcp/192.0.2.1:80 10.1.0.12:8080 --method masquerade --weight 2",
            "server add tcp/192.0.2.1:80 10.1.0.11:8080 --method masquerade",
        ] {
            stage.says(line);
        }
        let numbers = Numbers {
            counters: Counters {
                connections: 15,
                in_packets: 100,
                out_packets: 90,
                in_bytes: 6000,
                out_bytes: 90_000,
            },
            rates: Rates {
                connections: 7,
                ..Rates::default()
            },
            active: 12,
            inactive: 3,
            persistent: 0,
        };
        let key = WEB.parse().unwrap();
        let at = "10.1.0.11:8080".parse().unwrap();
        let traffic = [((key, None), numbers), ((key, Some(at)), numbers)];
        stage.handle.0.borrow_mut().traffic.extend(traffic);
        stage
    }

    fn with_connections() -> Self {
        let stage = Self::new();
        let connection = |protocol, client: &str, service: &str, server: &str, state| Connection {
            protocol,
            client: client.parse().unwrap(),
            virtual_address: service.parse().unwrap(),
            server: server.parse().unwrap(),
            state,
            expires_s: 900,
            mark: None,
            engine: None,
        };
        let (tcp, web) = (Protocol::Tcp, "192.0.2.1:80");
        let dns = ("[2001:db8::1]:53", "[2001:db8:1::11]:53");
        stage.handle.0.borrow_mut().connections = vec![
            connection(
                tcp,
                "198.51.100.7:40000",
                web,
                "10.1.0.11:8080",
                State::Established,
            ),
            connection(
                tcp,
                "198.51.100.8:40001",
                web,
                "10.1.0.12:8080",
                State::TimeWait,
            ),
            connection(
                Protocol::Udp,
                "[2001:db8:5::7]:5353",
                dns.0,
                dns.1,
                State::Udp,
            ),
        ];
        stage
    }

    fn run(&self, line: &str) -> Said {
        self.watch(line, 1, false)
    }

    /// Runs a line that is ended when it waits for that time.
    fn watch(&self, line: &str, times: u32, is_terminal: bool) -> Said {
        let (mut out, mut error) = (Vec::new(), Vec::new());
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let words = [vec!["shunt".to_owned()], words].concat();
        let (opened, waited) = (Cell::new(0), Cell::new(0));
        let open = || -> Result<Box<dyn Client>, Failure> {
            opened.set(opened.get() + 1);
            match self.away.contains(&(opened.get() - 1)) {
                true => Err(Failure::NotReachable {
                    path: "/run/shunt/1/api.sock".into(),
                    source: std::io::Error::other("no such file"),
                }),
                false => Ok(Box::new(self.handle.clone())),
            }
        };
        let outside = Outside {
            open: &open,
            kernel: &|| recording::table(&self.kernel),
            out: &mut out,
            error: &mut error,
            is_terminal,
            wait: &mut |_: Duration| {
                waited.set(waited.get() + 1);
                waited.get() < times
            },
            json: false,
        };
        let status = run(&words, outside);
        Said {
            out: String::from_utf8(out).unwrap(),
            error: String::from_utf8(error).unwrap(),
            status,
        }
    }

    /// What a line that succeeds says.
    fn says(&self, line: &str) -> String {
        let said = self.run(line);
        assert_eq!((said.status, said.error.as_str()), (0, ""), "{line}");
        said.out
    }

    fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.says(line)).unwrap()
    }
}

fn statistics() -> Statistics {
    let counters = |pairs: &[(&str, u64)]| -> BTreeMap<String, u64> {
        pairs
            .iter()
            .map(|(name, count)| ((*name).to_owned(), *count))
            .collect()
    };
    Statistics {
        verdicts: counters(&[("sent", 100), ("pass-icmp", 0)]),
        drops: counters(&[("no-next-hop", 4), ("table-full", 0)]),
        notes: counters(&[("opened", 15), ("reused", 0)]),
        ..Statistics::default()
    }
}
