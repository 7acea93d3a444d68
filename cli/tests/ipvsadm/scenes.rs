//! What happened between the recorded commands, and where we differ on purpose.

use std::fmt;

/// Commands that were not recorded, run where a heading stands.
pub(crate) struct Scene {
    pub file: &'static str,
    /// What the heading begins with; empty is the beginning of the file.
    pub heading: &'static str,
    pub lines: &'static [&'static str],
}

const CLEAR: &str = "-C";

#[rustfmt::skip]
pub(crate) const SCENES: &[Scene] = &[
    Scene { file: "services", heading: "protocols and addresses", lines: &[CLEAR] },
    Scene { file: "services", heading: "long forms", lines: &[CLEAR] },
    Scene { file: "services", heading: "scheduler flags", lines: &[CLEAR] },
    Scene { file: "services", heading: "one-packet scheduling", lines: &[CLEAR] },
    Scene { file: "services", heading: "editing", lines: &[CLEAR] },
    Scene { file: "services", heading: "a service with servers", lines: &[
        "-a -t 10.0.1.100:80 -r 10.0.2.11 -m -w 3",
    ] },
    Scene { file: "servers", heading: "", lines: &["-A -t 10.0.1.100:80 -s wlc"] },
    Scene { file: "servers", heading: "IPv6, and tunnels", lines: &[
        CLEAR, "-A -t 10.0.1.100:80 -s rr", "-A -t [fd00:1::100]:80 -s rr",
    ] },
    Scene { file: "servers", heading: "local addresses", lines: &[
        CLEAR, "-A -t 10.0.1.1:80 -s rr",
    ] },
    Scene { file: "servers", heading: "firewall marks", lines: &[
        CLEAR, "-A -f 1 -s rr", "-A -f 2 -6 -s rr",
    ] },
    Scene { file: "names", heading: "names as arguments", lines: &[CLEAR] },
    Scene { file: "save-restore", heading: "back again", lines: &[CLEAR] },
];

/// Before each row of the matrix.
pub(crate) const MATRIX: &[&str] = &[
    "-A -t 10.0.1.100:80 -s rr",
    "-a -t 10.0.1.100:80 -r 10.0.2.11:80 -m",
    "-a -t 10.0.1.100:80 -r 10.0.2.12:80 -m",
];

/// How an answer of ours is not the original's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// All that we print is this.
    Says(&'static str),
    /// The same, but for a piece of text.
    Instead {
        theirs: &'static str,
        ours: &'static str,
    },
    /// The command is left out, because what follows would differ too.
    LeftOut,
}

/// Commands that we answer differently, how often, and why.
pub(crate) struct Difference {
    pub file: &'static str,
    /// What the command begins with.
    pub command: &'static str,
    pub times: usize,
    pub how: How,
    pub why: &'static str,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Difference {
            file,
            command,
            times,
            why,
            ..
        } = self;
        write!(f, "{times} of {file}: {command} ({why})")
    }
}

const NO_SYNC: &str = "connections are not synchronised by this version";
const NOT_CARRIED: How =
    How::Says("the synchronisation daemon is not carried by this version of Shunt yet\n");
const NOT_RUNNING: How = How::Says("No daemon is running\n");

const THRESHOLDS: &str = "the original loses the thresholds";
const SAVED: How = How::Instead {
    theirs: " -m -w 3\n",
    ours: " -m -w 3 -x 100 -y 50\n",
};

/// Of several that fit, the first counts.
#[rustfmt::skip]
pub(crate) const DIFFERENCES: &[Difference] = &[
    Difference { file: "errors", command: "ipvsadm --start-daemon", times: 2,
        how: NOT_CARRIED, why: NO_SYNC },
    Difference { file: "timeout-daemon", command: "ipvsadm --start-daemon", times: 13,
        how: NOT_CARRIED, why: NO_SYNC },
    Difference { file: "timeout-daemon", command: "ipvsadm --stop-daemon", times: 12,
        how: NOT_RUNNING, why: NO_SYNC },
    Difference { file: "timeout-daemon", command: "ipvsadm -L --daemon", times: 10,
        how: How::Says(""), why: NO_SYNC },
    Difference { file: "matrix", command: "ipvsadm --start-daemon", times: 8,
        how: NOT_CARRIED, why: NO_SYNC },
    Difference { file: "services", command: "ipvsadm -A -t 10.0.1.100:1013 -s twos", times: 1,
        how: How::LeftOut, why: "the recording kernel lacks twos" },
    Difference { file: "names", command: "ipvsadm -S", times: 2,
        how: SAVED, why: THRESHOLDS },
    Difference { file: "save-restore", command: "ipvsadm -S", times: 3,
        how: SAVED, why: THRESHOLDS },
    Difference { file: "save-restore", command: "ipvsadm --save", times: 2,
        how: SAVED, why: THRESHOLDS },
    Difference { file: "save-restore", command: "ipvsadm-save", times: 2,
        how: SAVED, why: THRESHOLDS },
    Difference { file: "lines", command: "ipvsadm -R", times: 1,
        how: How::Instead { theirs: " -g -w 1\n", ours: " -g -w 1 -x 4 -y 2\n" },
        why: THRESHOLDS },
    Difference { file: "connections", command: "cat /proc/net/ip_vs_stats_percpu", times: 1,
        how: How::Says("ip_vs_stats_percpu: the daemon gives counters of all processors together; \
            ask for ip_vs_stats\n"),
        why: "the daemon adds the counters of all processors up" },
];
