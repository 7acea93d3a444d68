//! The words that scenarios are made of. A line here adds a feature to the scenarios.

use shunt_lab::Family;

use super::scenario::Transport;

/// SCTP is rarer than the other protocols.
pub(super) const TRANSPORTS: [Transport; 5] = [
    Transport::Tcp,
    Transport::Udp,
    Transport::Tcp,
    Transport::Udp,
    Transport::Sctp,
];

pub(super) const SCHEDULERS: [&str; 13] = [
    "rr", "wrr", "lc", "wlc", "sh", "mh", "sed", "nq", "dh", "fo", "ovf", "lblc", "lblcr",
];

/// Sysctls of IPVS with their values. A scenario begins with the first value.
pub(super) const SETTINGS: [(&str, &[u8]); 6] = [
    ("conn_reuse_mode", &[1, 0, 2]),
    ("expire_nodest_conn", &[0, 1]),
    ("expire_quiescent_template", &[0, 1]),
    ("sloppy_tcp", &[0, 1]),
    ("secure_tcp", &[0, 3]),
    ("nat_icmp_send", &[0, 1]),
];

/// The last commands of some scenarios. The connections that they open last three seconds, so
/// nothing is listed afterwards.
pub(super) const LAST: &str = "schedule_icmp";

/// The options of a forwarding method.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Method {
    pub option: &'static str,
    /// The server may have another port than the service.
    pub any_port: bool,
    /// The server may be of the other family.
    pub any_family: bool,
}

pub(super) const METHODS: [Method; 10] = [
    masqueraded(),
    masqueraded(),
    routed(),
    routed(),
    tunnel("-i"),
    tunnel("-i"),
    tunnel("-i --tun-type gue --tun-port 6080"),
    tunnel("-i --tun-type gue --tun-port 6080 --tun-csum"),
    tunnel("-i --tun-type gre"),
    tunnel("-i --tun-type gre --tun-csum"),
];

const fn masqueraded() -> Method {
    Method {
        option: "-m",
        any_port: true,
        any_family: false,
    }
}

const fn routed() -> Method {
    Method {
        option: "-g",
        any_port: false,
        any_family: false,
    }
}

const fn tunnel(option: &'static str) -> Method {
    Method {
        option,
        any_port: false,
        any_family: true,
    }
}

/// Additional options of a service or a server.
pub(super) struct Extra {
    pub words: [&'static str; 2],
    /// Only with this scheduler, if one is named.
    pub scheduler: &'static str,
    /// Only with this transport, if one is named.
    pub transport: Option<Transport>,
    /// One service or server in this many has the option, if it is possible there.
    pub once_in: usize,
}

impl Extra {
    pub(super) fn words(&self, family: Family) -> &'static str {
        self.words[family as usize]
    }

    pub(super) fn fits(&self, scheduler: &str, transport: Transport) -> bool {
        (self.scheduler.is_empty() || self.scheduler == scheduler)
            && self.transport.is_none_or(|only| only == transport)
    }
}

pub(super) const OF_SERVICES: [Extra; 7] = [
    any("-p 300", "-p 300"),
    any("-p 100 -M 255.255.255.0", "-p 100 -M 64"),
    one_packet(),
    flags("sh", "-b sh-port"),
    flags("sh", "-b sh-fallback"),
    flags("mh", "-b mh-port"),
    flags("mh", "-b mh-fallback,mh-port"),
];

/// The options that turn the templates of a UDP service into calls.
pub(super) const OF_CALLS: [&str; 3] = [
    " -p 100 --pe sip",
    " -p 300 --pe sip",
    " -p 300 --pe sip -o",
];

pub(super) const OF_SERVERS: [Extra; 1] = [any("-x 4 -y 2", "-x 4 -y 2")];

const fn any(v4: &'static str, v6: &'static str) -> Extra {
    Extra {
        words: [v4, v6],
        scheduler: "",
        transport: None,
        once_in: 8,
    }
}

const fn one_packet() -> Extra {
    Extra {
        words: ["-o"; 2],
        scheduler: "",
        transport: Some(Transport::Udp),
        once_in: 8,
    }
}

const fn flags(scheduler: &'static str, words: &'static str) -> Extra {
    Extra {
        words: [words; 2],
        scheduler,
        transport: None,
        once_in: 4,
    }
}

/// Listings that do not wait until the kernel has summed up its counters.
pub(super) const LISTINGS: [&str; 7] = [
    "-Ln",
    "-Ln",
    "-Lnc",
    "-Lnc",
    "-Sn",
    "-Ln --thresholds",
    "-L --timeout",
];

/// Commands that are refused, or should be. Each line has room for a service and for a server of
/// the service's family.
pub(super) const ODD: [&str; 24] = [
    "-A -t {service} -s nosuch",
    "-A -t {service} -s rr",
    "-E -t {service} -s wlc",
    "-D -t {service}",
    "-D -u {service}",
    "-a -t {service} -r {server} -m",
    "-a -u {service} -r {server} -g",
    "-e -t {service} -r {server} -i -w 2",
    "-d -t {service} -r {server}",
    "-d -u {service} -r {server}",
    "-a -t {service} -r {server} -m -w 65536",
    "-a -t {service} -r {server} -m -w -1",
    "-a -t {service} -r 0.0.0.0:80 -m",
    "-a -t {service}",
    "-A --sctp-service {service} -o",
    "-d --sctp-service {service} -r {server}",
    "-A",
    "-A -t {service} -u {service}",
    "-A -t {service} -r {server}",
    "-A -t 192.0.2.300:80",
    "-Z -t {service}",
    "-Ln -t {service}",
    "-L -t {service} -n --exact",
    "--set 1 2",
];

pub(super) const WEIGHTS: [u16; 10] = [0, 1, 1, 1, 2, 3, 4, 10, 100, 65535];

pub(super) const TIMEOUTS: [&str; 4] = [
    "--set 600 60 90",
    "--set 0 0 0",
    "--set 900 0 200",
    "--set 3600 100 600",
];

pub(super) const PAYLOADS: [u16; 9] = [0, 0, 1, 7, 100, 500, 1000, 1432, 1460];

pub(super) const TTLS: [u8; 8] = [64, 64, 64, 60, 128, 255, 2, 1];

pub(super) const TRAFFIC_CLASSES: [u8; 6] = [0, 0, 0, 0x10, 0xb8, 0x02];
