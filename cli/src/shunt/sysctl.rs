//! Reads the `net.ipv4.vs.*` of a sysctl.conf file, of a folder of such files, or of `/proc/sys`,
//! as settings of Shunt (sysctl.conf(5), sysctl.d(5)).

use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use shunt_model::{OnDown, Setting};

use super::Halt;

/// The folder of the running kernel's values.
pub(super) const KERNEL: &str = "/proc/sys/net/ipv4/vs";

/// One line, and its meaning for Shunt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Line {
    /// The file and line, or the file of a single value.
    pub at: String,
    pub name: String,
    pub value: String,
    #[serde(flatten)]
    pub meaning: Meaning,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "meaning", content = "what", rename_all = "snake_case")]
pub(super) enum Meaning {
    Setting(Setting),
    /// A sysctl of IPVS that has no effect in Shunt.
    Nothing(&'static str),
    /// The line cannot be imported.
    Wrong(String),
}

/// The sysctls of IPVS that have no effect in Shunt, with the reason (docs/standards.md has more).
const NOTHING: [(&str, &str); 22] = [
    (
        "amemthresh",
        "memory is fixed; automatic defences follow defence_threshold",
    ),
    (
        "backup_only",
        "there is no backup mode: connections are not synchronised yet",
    ),
    (
        "conn_lfactor",
        "the connection table has a fixed size, shuntd --flows",
    ),
    (
        "conntrack",
        "forwarded packets do not pass netfilter's connection tracking",
    ),
    ("debug_level", "shuntd --log sets the log level"),
    ("est_cpulist", "the daemon measures rates, on any processor"),
    (
        "est_nice",
        "the daemon measures rates, with its own priority",
    ),
    (
        "ignore_tunneled",
        "protocols other than TCP, UDP and SCTP are never scheduled",
    ),
    (
        "lblc_expiration",
        "the server of a target is forgotten after a day without use",
    ),
    (
        "lblcr_expiration",
        "the servers of a target are forgotten after a day without use",
    ),
    (
        "pmtu_disc",
        "no packet is fragmented; the sender of a packet that is too large gets the MTU",
    ),
    ("run_estimation", "rates are always measured"),
    (
        "snat_reroute",
        "answers always follow the director's own routes",
    ),
    (
        "svc_lfactor",
        "the service table has a fixed size, shuntd --services",
    ),
    ("sync_persist_mode", NO_SYNC),
    ("sync_ports", NO_SYNC),
    ("sync_qlen_max", NO_SYNC),
    ("sync_refresh_period", NO_SYNC),
    ("sync_retries", NO_SYNC),
    ("sync_sock_size", NO_SYNC),
    ("sync_threshold", NO_SYNC),
    ("sync_version", NO_SYNC),
];

const NO_SYNC: &str = "connections are not synchronised yet";

/// Reads a file, a folder of `*.conf` files, or a folder with one file a value.
pub(super) fn read_path(path: &Path) -> Result<Vec<Line>, Halt> {
    let failed = |error: io::Error| Halt::Usage(format!("cannot read {}: {error}", path.display()));
    if !path.is_dir() {
        let text = std::fs::read_to_string(path).map_err(failed)?;
        return Ok(read(&path.display().to_string(), &text));
    }
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        files.push(entry.map_err(failed)?.path());
    }
    // sysctl.d(5): the files are read in the order of their names, and a later one wins.
    files.sort();
    let is_text = |file: &PathBuf| file.extension().is_some_and(|end| end == "conf");
    if files.iter().any(is_text) {
        let texts = files.iter().filter(|file| is_text(file));
        let lines: Result<Vec<_>, Halt> = texts.map(|file| read_path(file)).collect();
        return Ok(lines?.into_iter().flatten().collect());
    }
    let mut lines = Vec::new();
    for file in files {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        // A value that cannot be read, such as a write-only one, is skipped.
        let Ok(value) = std::fs::read_to_string(&file) else {
            continue;
        };
        lines.push(of_kernel(&file.display().to_string(), &name, value.trim()));
    }
    Ok(lines)
}

/// Reads a text. Names that are not of IPVS are skipped.
pub(super) fn read(file: &str, text: &str) -> Vec<Line> {
    let mut lines = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.starts_with(['#', ';']) {
            continue;
        }
        // sysctl(8): a "-" before the name means that a failure does not matter.
        let line = line.strip_prefix('-').unwrap_or(line);
        let (name, value) = line.split_once('=').unwrap_or((line, ""));
        let name = name.trim().replace('/', ".");
        let Some(name) = name.strip_prefix("net.ipv4.vs.") else {
            continue;
        };
        lines.push(one(&format!("{file}:{number}"), name, value.trim()));
    }
    lines
}

fn one(at: &str, name: &str, value: &str) -> Line {
    let nothing = NOTHING.iter().find(|(known, _)| *known == name);
    let meaning = match (nothing, Setting::read(name, value)) {
        (Some((_, why)), _) => Meaning::Nothing(why),
        // The names of Shunt's own settings are not sysctls.
        (None, Ok(Setting::DefenceThreshold(_))) => unknown(name),
        (None, Ok(Setting::OnDown(_))) if name == "on_down" => unknown(name),
        (None, Ok(setting)) => Meaning::Setting(setting),
        (None, Err(error)) => Meaning::Wrong(error.to_string()),
    };
    Line {
        at: at.to_owned(),
        name: name.to_owned(),
        value: value.to_owned(),
        meaning,
    }
}

fn unknown(name: &str) -> Meaning {
    Meaning::Wrong(format!("IPVS has no net.ipv4.vs.{name}"))
}

/// Reads a value of the running kernel. `expire_nodest_conn = 0` is the kernel's default and not an
/// operator's choice, so it is skipped.
fn of_kernel(at: &str, name: &str, value: &str) -> Line {
    let mut line = one(at, name, value);
    if line.meaning == Meaning::Setting(Setting::OnDown(OnDown::Keep)) {
        line.meaning = Meaning::Setting(Setting::OnDown(OnDown::ByProtocol));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<String> {
        let lines = read("vs.conf", text).into_iter();
        let text = |line: Line| match line.meaning {
            Meaning::Setting(setting) => format!("{} {setting}", line.at),
            Meaning::Nothing(_) => format!("{} nothing", line.at),
            Meaning::Wrong(why) => format!("{} {why}", line.at),
        };
        lines.map(text).collect()
    }

    #[test]
    fn every_form_of_a_line_is_read() {
        assert_eq!(
            texts(
                "# net.ipv4.vs.drop_entry = 3\n\
                 ;net.ipv4.vs.drop_entry=3\n\
                 net.ipv4.ip_forward = 1\n\n\
                 net.ipv4.vs.conn_reuse_mode=0\n\
                 -net/ipv4/vs/expire_nodest_conn = 1\n  \
                 net.ipv4.vs.conntrack = 1\n\
                 net.ipv4.vs.sync_threshold = 3 50\n"
            ),
            [
                "vs.conf:5 conn_reuse_mode 0",
                "vs.conf:6 on_down reschedule",
                "vs.conf:7 nothing",
                "vs.conf:8 nothing",
            ]
        );
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        assert_eq!(
            texts(
                "net.ipv4.vs.drop_packets = 1\n\
                 net.ipv4.vs.drop_packet = 7\n\
                 net.ipv4.vs.secure_tcp\n\
                 net.ipv4.vs.on_down = keep\n"
            ),
            [
                "vs.conf:1 there is no setting \"drop_packets\", did you mean \"drop_packet\"?",
                "vs.conf:2 drop_packet is 0 (never), 1 (automatic) or 3 (always), not \"7\"",
                "vs.conf:3 secure_tcp is 0 (never), 1 (automatic) or 3 (always), not \"\"",
                "vs.conf:4 IPVS has no net.ipv4.vs.on_down",
            ]
        );
    }
}
