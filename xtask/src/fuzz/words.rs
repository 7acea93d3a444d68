//! Random requests. Most are valid, with values at the limits of what is valid.

use std::fmt::Write;

use crate::conform::random::Random;

const METHODS: [&str; 6] = ["GET", "POST", "PUT", "DELETE", "HEAD", "PATCH"];
const PATHS: [&str; 11] = [
    "/v1/status",
    "/v1/services",
    "/v1/connections",
    "/v1/connections/count",
    "/v1/timeouts",
    "/v1/marks",
    "/v1/locals",
    "/v1/settings",
    "/v1/statistics",
    "/v1/inputs",
    "/v1/nothing",
];
const KEYS: [&str; 8] = [
    "tcp/192.0.2.1:80",
    "udp/[2001:db8::1]:53",
    "mark/7",
    "mark/7/ipv6",
    "mark/0",
    "%00",
    "tcp/192.0.2.1:99999",
    "",
];
const V4: [&str; 9] = [
    "192.0.2.1",
    "192.0.2.2",
    "10.1.0.1",
    "10.1.0.2",
    "0.0.0.0",
    "255.255.255.255",
    "127.0.0.1",
    "224.0.0.1",
    "198.51.100.1",
];
const V6: [&str; 7] = [
    "2001:db8::1",
    "2001:db8:1::1",
    "2001:db8:1::2",
    "::",
    "::1",
    "fe80::1",
    "::ffff:10.1.0.1",
];
const PORTS: [u16; 8] = [0, 1, 53, 80, 81, 1024, 65_534, 65_535];
const NUMBERS: [u64; 10] = [
    0,
    1,
    2,
    7,
    255,
    65_535,
    2_147_483_647,
    2_147_483_648,
    4_294_967_295,
    4_294_967_296,
];
const SCHEDULERS: [&str; 16] = [
    "rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sed", "nq", "fo", "ovf", "mh", "twos",
    "p2c", "wcl",
];
const SETTINGS: [&str; 13] = [
    "conn_reuse_mode",
    "on_down",
    "expire_quiescent_template",
    "cache_bypass",
    "schedule_icmp",
    "sloppy_tcp",
    "sloppy_sctp",
    "nat_icmp_send",
    "drop_entry",
    "drop_packet",
    "secure_tcp",
    "am_droprate",
    "defence_threshold",
];
const VALUES: [&str; 14] = [
    "0",
    "1",
    "2",
    "255",
    "256",
    "true",
    "false",
    "\"keep\"",
    "\"reset\"",
    "\"always\"",
    "\"automatic\"",
    "4294967295",
    "-1",
    "null",
];

/// One request.
#[derive(Debug)]
pub(super) struct Request {
    pub method: &'static str,
    pub target: String,
    pub body: Vec<u8>,
}

/// A random request: usually one that a client could send, sometimes one that no client would.
pub(super) fn request(random: &mut Random) -> Request {
    if random.once_in(8) {
        let mut target = random.one_of(&PATHS).to_owned();
        if random.once_in(3) {
            let _ = write!(target, "?key={}", random.one_of(&KEYS));
        }
        let method = match random.once_in(4) {
            true => random.one_of(&METHODS),
            false => "GET",
        };
        let body = Vec::new();
        return Request {
            method,
            target,
            body,
        };
    }
    let (target, body) = match random.once_in(8) {
        true => ("/v1/batch", batch(random)),
        false => ("/v1/change", change(random)),
    };
    let mut body = body.into_bytes();
    if random.once_in(10) {
        damage(random, &mut body);
    }
    Request {
        method: "POST",
        target: target.to_owned(),
        body,
    }
}

/// Changes a few bytes anywhere, removes some, or cuts off the end.
pub(super) fn damage(random: &mut Random, bytes: &mut Vec<u8>) {
    for _ in 0..=random.below(3) {
        if bytes.is_empty() {
            return;
        }
        let at = random.below(bytes.len());
        match random.below(5) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.next() as u8,
            2 => drop(bytes.remove(at)),
            3 => bytes.insert(at, random.one_of(b"0\"{}[],:-e\n\0\xff")),
            _ => bytes.truncate(at),
        }
    }
}

/// A few changes as text.
fn batch(random: &mut Random) -> String {
    let mode = random.one_of(&["whole", "whole", "each"]);
    let changes: Vec<String> = (0..random.below(6)).map(|_| change(random)).collect();
    format!(r#"{{"mode":"{mode}","changes":[{}]}}"#, changes.join(","))
}

/// A change as text.
pub(super) fn change(random: &mut Random) -> String {
    let key = key(random);
    match random.below(20) {
        0..4 => format!(
            r#"{{"change":"add_service","service":{}}}"#,
            service(random, &key)
        ),
        4 => format!(
            r#"{{"change":"edit_service","service":{}}}"#,
            service(random, &key)
        ),
        5 => format!(r#"{{"change":"delete_service","key":{key}}}"#),
        6..10 => format!(
            r#"{{"change":"add_server","key":{key},"server":{}}}"#,
            server(random)
        ),
        10..12 => format!(
            r#"{{"change":"edit_server","key":{key},"server":{}}}"#,
            server(random)
        ),
        12 => format!(
            r#"{{"change":"delete_server","key":{key},"at":{}}}"#,
            at(random)
        ),
        13 => match random.once_in(2) {
            true => format!(r#"{{"change":"zero","key":{key}}}"#),
            false => r#"{"change":"zero","key":null}"#.to_owned(),
        },
        14 => format!(
            r#"{{"change":"set_timeouts","timeouts":{{"tcp_s":{},"tcp_fin_s":{},"udp_s":{}}}}}"#,
            number(random),
            number(random),
            number(random)
        ),
        15 => format!(
            r#"{{"change":"set","setting":{{"name":"{}","value":{}}}}}"#,
            random.one_of(&SETTINGS),
            random.one_of(&VALUES)
        ),
        16 => format!(r#"{{"change":"add_mark","rule":{}}}"#, rule(random)),
        17 => format!(r#"{{"change":"delete_mark","rule":{}}}"#, rule(random)),
        18 => format!(
            r#"{{"change":"set_local","local":{{"address":"{}","ports":{}}}}}"#,
            address(random),
            ports(random)
        ),
        _ if random.once_in(20) => r#"{"change":"flush"}"#.to_owned(),
        _ => format!(
            r#"{{"change":"delete_local","address":"{}"}}"#,
            address(random)
        ),
    }
}

fn address(random: &mut Random) -> &'static str {
    match random.once_in(3) {
        true => random.one_of(&V6),
        false => random.one_of(&V4),
    }
}

fn number(random: &mut Random) -> u64 {
    match random.once_in(4) {
        true => random.next() >> random.below(64),
        false => random.one_of(&NUMBERS),
    }
}

fn protocol(random: &mut Random) -> &'static str {
    random.one_of(&["tcp", "tcp", "udp", "sctp"])
}

fn key(random: &mut Random) -> String {
    if random.once_in(4) {
        let family = random.one_of(&["ipv4", "ipv6"]);
        let mark = random.one_of(&[0, 1, 7, 8]);
        return format!(r#"{{"kind":"mark","mark":{mark},"family":"{family}"}}"#);
    }
    format!(
        r#"{{"kind":"address","protocol":"{}","address":"{}","port":{}}}"#,
        protocol(random),
        address(random),
        random.one_of(&PORTS)
    )
}

fn at(random: &mut Random) -> String {
    let (address, port) = (address(random), random.one_of(&PORTS));
    format!(r#"{{"address":"{address}","port":{port}}}"#)
}

fn service(random: &mut Random, key: &str) -> String {
    let scheduler = random.one_of(&SCHEDULERS);
    let mut text = format!(r#"{{"key":{key},"scheduler":"{scheduler}""#);
    if random.once_in(3) {
        let flag = |random: &mut Random| random.once_in(2);
        let (a, b, c, d) = (flag(random), flag(random), flag(random), flag(random));
        let _ = write!(
            text,
            r#","flags":{{"fallback":{a},"port":{b},"third":{c},"large":{d}}}"#
        );
    }
    if random.once_in(2) {
        let granularity = match random.once_in(2) {
            true => format!(
                r#"{{"prefix":{}}}"#,
                random.one_of(&[0, 1, 64, 128, 129, 255])
            ),
            false => format!(r#"{{"mask":"{}"}}"#, random.one_of(&V4)),
        };
        let timeout = number(random);
        let _ = write!(
            text,
            r#","persistence":{{"timeout_s":{timeout},"granularity":{granularity}"#
        );
        if random.once_in(3) {
            let engine = random.one_of(&["sip", "pis", ""]);
            let _ = write!(text, r#","engine":"{engine}""#);
        }
        text.push('}');
    }
    if random.once_in(5) {
        let _ = write!(text, r#","one_packet":{}"#, random.once_in(2));
    }
    if random.once_in(5) {
        let announce = random.one_of(&["toa", "proxy", "x"]);
        let _ = write!(text, r#","announce":"{announce}""#);
    }
    if random.once_in(5) {
        let (name, value) = (random.one_of(&SETTINGS), random.one_of(&VALUES));
        let _ = write!(text, r#","settings":{{"{name}":{value}}}"#);
    }
    text.push('}');
    text
}

fn server(random: &mut Random) -> String {
    let checksum = random.one_of(&["off", "on", "remote"]);
    let method = match random.below(8) {
        0..3 => r#""masquerade""#.to_owned(),
        3 => r#""fullnat""#.to_owned(),
        4 => r#""route""#.to_owned(),
        5 => r#""local""#.to_owned(),
        6 => r#"{"tunnel":"ipip"}"#.to_owned(),
        _ => {
            let port = random.one_of(&PORTS);
            format!(r#"{{"tunnel":{{"gue":{{"port":{port},"checksum":"{checksum}"}}}}}}"#)
        }
    };
    format!(
        r#"{{"at":{},"method":{method},"weight":{},"upper_threshold":{},"lower_threshold":{}}}"#,
        at(random),
        number(random),
        number(random),
        number(random)
    )
}

fn ports(random: &mut Random) -> String {
    let (first, last) = (random.one_of(&PORTS), random.one_of(&PORTS));
    let last = match random.once_in(3) {
        true => last,
        false => first,
    };
    format!(r#"{{"first":{first},"last":{last}}}"#)
}

fn rule(random: &mut Random) -> String {
    let mut text = format!(
        r#"{{"mark":{},"target":{{"protocol":"{}","address":"{}","ports":{}}}"#,
        random.one_of(&[0, 1, 7, 8]),
        protocol(random),
        address(random),
        ports(random)
    );
    if random.once_in(3) {
        let network = random.one_of(&[
            "10.0.0.0/8",
            "0.0.0.0/0",
            "2001:db8::/32",
            "198.51.100.7/32",
            "10.0.0.1/8",
            "::/129",
        ]);
        let _ = write!(text, r#","origin":{{"network":"{network}"}}"#);
    }
    text.push('}');
    text
}
