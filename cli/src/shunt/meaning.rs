//! What a counter of the packet path means, in a few words. The reference has more:
//! `docs/reference/counters.md`.

/// The names are those of the packet path (`datapath/src/verdict.rs`); a test compares them.
const MEANINGS: [(&str, &str); 45] = [
    ("pass-not-ip", "neither IPv4 nor IPv6"),
    (
        "pass-not-ours",
        "to no service, and no answer of a masqueraded server",
    ),
    (
        "pass-not-understood",
        "headers end early, contradict themselves or exceed a bound",
    ),
    (
        "pass-not-opening",
        "opens nothing, and its connection is not known",
    ),
    ("pass-local", "for a server on the director itself"),
    ("pass-icmp", "ICMP, but no error about a connection"),
    (
        "pass-no-rest",
        "the program for frames that are not plain was not there: a fault of ours",
    ),
    (
        "pass-bypassed",
        "no server of its mark could take it; the kernel routes it",
    ),
    (
        "pass-lost-fragment",
        "a later fragment whose first one did not come",
    ),
    ("pass-other-host", "to another machine's MAC address"),
    ("pass-tagged", "of a VLAN, whose own device sees it"),
    ("sent", "forwarded"),
    (
        "held",
        "a later fragment, set aside until its first one comes",
    ),
    (
        "answered-unreachable",
        "no server could take it; the client was told",
    ),
    (
        "answered-too-big",
        "did not fit the way; the sender was told the MTU",
    ),
    ("answered-time-exceeded", "TTL used up; the sender was told"),
    (
        "answered-reset",
        "its server is no longer in the pool; the sender was told by a reset",
    ),
    ("server-gone", "its server is no longer in the pool"),
    (
        "no-next-hop",
        "no route, neighbour or interface to the server",
    ),
    ("table-full", "no room for a connection that needs an entry"),
    (
        "no-server",
        "no server could take it, and no answer may be sent",
    ),
    ("expired", "TTL used up, and no answer may be sent"),
    ("too-big", "does not fit the way, and no answer may be sent"),
    ("bad-checksum", "the IPv4 header checksum is wrong"),
    ("bad-source", "the source cannot be a client's"),
    ("no-room", "no room in front of or behind the frame"),
    (
        "lost-fragment",
        "a later fragment that could not be set aside",
    ),
    (
        "bad-fragment",
        "a later fragment that reaches into the TCP or SCTP header",
    ),
    (
        "internal",
        "a table entry is missing: a fault of ours, please report it",
    ),
    ("no-way-back", "no way back to the client is known"),
    (
        "defence",
        "a new connection, dropped against a flood (drop_packet)",
    ),
    ("no-local-port", "no local address and port is free for it"),
    ("no-translation", "no room for a translated connection"),
    (
        "cut-checksum",
        "a fragment of SCTP whose port would change: its checksum covers the whole",
    ),
    (
        "untranslatable",
        "between IPv4 and IPv6: what the other family has no words for",
    ),
    (
        "no-call-id",
        "a packet without a Call-ID for a service of SIP calls",
    ),
    (
        "not-carried",
        "XDP cannot send it, and the driver has no room for a note",
    ),
    ("opened", "a connection got an entry"),
    ("untracked", "forwarded by hash without an entry: no room"),
    (
        "displaced",
        "a half-open or closed entry gave way to a new connection",
    ),
    (
        "reused",
        "a SYN found a closing entry and was scheduled anew",
    ),
    (
        "icmp-related",
        "an ICMP error was brought to the right side",
    ),
    ("fragment-followed", "a fragment followed its first one"),
    (
        "route-asked",
        "the kernel was asked for the way to a client, as none is prepared",
    ),
    (
        "caller-served",
        "a process of the director itself was given a server",
    ),
];

/// The meaning of a counter; nothing for one that a later daemon may have.
pub fn meaning(counter: &str) -> &'static str {
    let found = MEANINGS.iter().find(|(name, _)| *name == counter);
    found.map_or("", |(_, meaning)| meaning)
}

#[cfg(test)]
mod tests {
    use shunt_datapath::verdict::NAMES;

    use super::*;

    #[test]
    fn each_counter_has_a_meaning_and_a_line_in_the_reference() {
        let reference = include_str!("../../../docs/reference/counters.md");
        let names: Vec<_> = MEANINGS.iter().map(|(name, _)| *name).collect();

        assert_eq!(names, NAMES.map(|(_, name)| name));
        for name in names {
            assert!(reference.contains(&format!("| `{name}` |")), "{name}");
        }
    }
}
