//! The outcomes that the packet path counts, and the meaning of each in a few words.
//! `docs/reference/counters.md` has more.

/// Verdicts, drop reasons and notes, in this order. A test compares the names with those of the
/// packet path (`datapath/src/verdict.rs`).
pub const MEANINGS: [(&str, &str); 46] = [
    ("pass-not-ip", "neither IPv4 nor IPv6"),
    (
        "pass-not-ours",
        "neither for a service nor an answer of a masqueraded server",
    ),
    (
        "pass-not-understood",
        "headers are cut short, contradictory or beyond a bound",
    ),
    (
        "pass-not-opening",
        "belongs to no known connection and cannot open one",
    ),
    ("pass-local", "for a server on the director itself"),
    ("pass-icmp", "ICMP that is not an error about a connection"),
    (
        "pass-no-rest",
        "the program for other than plain frames was missing: a bug, please report it",
    ),
    (
        "pass-bypassed",
        "no server of its mark was available; left to the kernel's routes",
    ),
    (
        "pass-lost-fragment",
        "a later fragment whose first one did not come",
    ),
    ("pass-other-host", "to another machine's MAC address"),
    ("pass-tagged", "of a VLAN, whose own device sees it"),
    (
        "pass-wrong-device",
        "in a server's name, by a device that does not lead to it",
    ),
    ("sent", "forwarded"),
    (
        "held",
        "a later fragment, held until its first fragment arrives",
    ),
    (
        "answered-unreachable",
        "no server was available; the client got an ICMP error",
    ),
    (
        "answered-too-big",
        "larger than the path's MTU, which the sender got",
    ),
    (
        "answered-time-exceeded",
        "TTL or hop limit used up; the sender got an ICMP error",
    ),
    (
        "answered-reset",
        "its server was deleted; the sender got a reset",
    ),
    ("server-gone", "its server was deleted"),
    (
        "no-next-hop",
        "no route, neighbour or interface to the server",
    ),
    ("table-full", "no room for a connection that needs an entry"),
    (
        "no-server",
        "no server was available, and no answer may be sent",
    ),
    (
        "expired",
        "TTL or hop limit used up, and no answer may be sent",
    ),
    (
        "too-big",
        "larger than the path's MTU, and no answer may be sent",
    ),
    ("bad-checksum", "the IPv4 header checksum is wrong"),
    (
        "bad-source",
        "the source address cannot be that of a client",
    ),
    ("no-room", "no room in front of or behind the frame"),
    ("lost-fragment", "a later fragment that could not be held"),
    (
        "bad-fragment",
        "a later fragment that overlaps the TCP or SCTP header",
    ),
    (
        "internal",
        "a table entry is missing: a bug, please report it",
    ),
    ("no-way-back", "no route back to the client is known"),
    (
        "defence",
        "a new connection, dropped against a flood (drop_packet)",
    ),
    ("no-local-port", "no local address and port was free"),
    ("no-translation", "no room for a translated connection"),
    (
        "cut-checksum",
        "an SCTP fragment whose port would change: the checksum covers the whole packet",
    ),
    (
        "untranslatable",
        "cannot be translated between IPv4 and IPv6",
    ),
    (
        "no-call-id",
        "a packet without a Call-ID, for a service with the SIP engine",
    ),
    (
        "not-carried",
        "XDP cannot send it, and the driver has no room for a note",
    ),
    ("opened", "a connection got an entry"),
    ("untracked", "forwarded by hash without an entry: no room"),
    (
        "displaced",
        "a half-open or closed entry was replaced by a new connection",
    ),
    (
        "reused",
        "a SYN found a closing entry and was scheduled anew",
    ),
    (
        "icmp-related",
        "an ICMP error was forwarded to the other end",
    ),
    ("fragment-followed", "a fragment followed its first one"),
    (
        "route-asked",
        "an answer took the kernel's route, because no hop was prepared",
    ),
    (
        "caller-served",
        "a process on the director itself got a server",
    ),
];

/// The meaning of a counter, or an empty text for a counter of a later daemon.
#[must_use]
pub fn meaning(counter: &str) -> &'static str {
    let found = MEANINGS.iter().find(|(name, _)| *name == counter);
    found.map_or("", |(_, meaning)| meaning)
}
