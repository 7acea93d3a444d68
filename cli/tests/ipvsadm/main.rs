//! Replays what ipvsadm 1.31 was recorded to say, and compares byte for byte.
//!
//! The face is the real one, and so is the table behind it, and only the socket
//! between them is left out. Where the kernel's files were read, `shunt proc` answers. Nothing is
//! skipped in silence: every command is counted.

use std::io::Cursor;

use shunt_cli::client::{Client, Failure};
use shunt_cli::ipvsadm::{Program, Streams, run};
use shunt_cli::shunt::{self, Outside};

use fixture::Fixture;
use memory::Handle;
use scenes::{DIFFERENCES, Difference, How, MATRIX, SCENES};
use transcript::{Cell, Item};

mod fixture;
mod memory;
mod scenes;
mod transcript;

/// Every transcript, and whether its numbers come from traffic.
const TRANSCRIPTS: [(&str, &str, bool); 13] = [
    ("empty", include_str!("../oracle/ipvsadm-empty.txt"), false),
    ("usage", include_str!("../oracle/ipvsadm-usage.txt"), false),
    (
        "errors",
        include_str!("../oracle/ipvsadm-errors.txt"),
        false,
    ),
    (
        "services",
        include_str!("../oracle/ipvsadm-services.txt"),
        false,
    ),
    (
        "servers",
        include_str!("../oracle/ipvsadm-servers.txt"),
        false,
    ),
    (
        "listing",
        include_str!("../oracle/ipvsadm-listing.txt"),
        false,
    ),
    ("names", include_str!("../oracle/ipvsadm-names.txt"), false),
    (
        "save-restore",
        include_str!("../oracle/ipvsadm-save-restore.txt"),
        false,
    ),
    (
        "timeout-daemon",
        include_str!("../oracle/ipvsadm-timeout-daemon.txt"),
        false,
    ),
    ("edges", include_str!("../oracle/ipvsadm-edges.txt"), false),
    ("lines", include_str!("../oracle/ipvsadm-lines.txt"), false),
    (
        "counters",
        include_str!("../oracle/ipvsadm-counters.txt"),
        true,
    ),
    (
        "connections",
        include_str!("../oracle/ipvsadm-connections.txt"),
        true,
    ),
];

const MATRIX_TRANSCRIPT: &str = include_str!("../oracle/ipvsadm-matrix.txt");

/// What two kernels mixed into the order of their services; see `order` in the table.
const NAMESPACE: u8 = 0x70;
const OTHER_NAMESPACE: u8 = 0x90;

/// These begin with the table that the file "listing" describes.
const WITH_EVERYTHING: [&str; 3] = ["listing", "names", "save-restore"];

#[test]
fn says_what_the_original_says() {
    let mut report = Report::default();
    for (file, text, with_traffic) in TRANSCRIPTS {
        replay(file, text, with_traffic, &mut report);
    }
    replay_matrix(&mut report);
    report.close();
}

#[test]
fn says_where_it_looked_for_a_daemon_that_does_not_answer() {
    let mut error = Vec::new();
    let streams = Streams {
        input: &mut Cursor::new(""),
        out: &mut Vec::new(),
        error: &mut error,
    };
    let open = || {
        Err(Failure::NotReachable {
            path: "/run/shunt/1/api.sock".into(),
            source: std::io::Error::other("no such file"),
        })
    };
    let line = ["-L".to_owned()];

    let status = run(
        Program::Ipvsadm,
        "ipvsadm",
        &line,
        open,
        &Fixture::new(),
        streams,
    );

    let expected = "Can't initialize ipvs: shuntd does not answer at /run/shunt/1/api.sock: \
                    no such file\nIs the daemon running? Start it with: systemctl start shuntd\n";
    assert_eq!(
        (String::from_utf8(error).unwrap().as_str(), status),
        (expected, 2)
    );
}

/// What became of the commands.
#[derive(Default)]
struct Report {
    equal: usize,
    different: Vec<&'static Difference>,
    /// No command of ipvsadm's, or several at once.
    foreign: Vec<String>,
    wrong: Vec<String>,
}

impl Report {
    fn close(self) {
        println!("{} commands answered as recorded", self.equal);
        println!("{} differ on purpose:", self.different.len());
        DIFFERENCES.iter().for_each(|known| println!("  {known}"));
        println!("{} are not ipvsadm's:", self.foreign.len());
        self.foreign
            .iter()
            .for_each(|command| println!("  {command}"));
        for known in DIFFERENCES {
            let seen = self
                .different
                .iter()
                .filter(|seen| std::ptr::eq(**seen, known));
            assert_eq!(seen.count(), known.times, "how often: {known}");
        }
        assert!(
            self.wrong.is_empty(),
            "{}\n{} wrong",
            self.wrong.join("\n"),
            self.wrong.len()
        );
    }

    /// Compares an answer with the recorded one.
    fn compare(&mut self, file: &str, recorded: &Cell, said: &Cell) {
        let same = |theirs: &Cell| {
            (&theirs.out, &theirs.error, theirs.status) == (&said.out, &said.error, said.status)
        };
        if same(recorded) {
            self.equal += 1;
            return;
        }
        let known = difference(file, &recorded.command);
        let as_known = match known.map(|known| known.how) {
            Some(How::Says(text)) => format!("{}{}", said.out, said.error).trim() == text.trim(),
            Some(How::Instead { theirs, ours }) => same(&Cell {
                out: recorded.out.replace(theirs, ours),
                ..recorded.clone()
            }),
            Some(How::LeftOut) | None => false,
        };
        match known {
            Some(known) if as_known => self.different.push(known),
            _ => self
                .wrong
                .push(format!("{file}: {recorded:#?}\nsaid {said:#?}")),
        }
    }
}

fn difference(file: &str, command: &str) -> Option<&'static Difference> {
    let fits = |known: &&Difference| known.file == file && command.starts_with(known.command);
    DIFFERENCES.iter().find(fits)
}

/// A daemon, and names.
struct Stage {
    daemon: Handle,
    names: Fixture,
}

#[test]
fn an_edit_leaves_the_settings_that_it_has_no_words_for() {
    let mut stage = Stage::new(0);
    stage.run("ipvsadm -A -t 192.0.2.1:80 -s rr", "");
    let mut service = stage.daemon.services().unwrap()[0].service.clone();
    service.settings.on_down = Some(shunt_model::OnDown::Reset);
    let change = shunt_model::change::Change::Service(shunt_model::change::service::Change::Edit {
        service,
    });
    stage.daemon.change(&change).unwrap();

    let cell = stage.run("ipvsadm -E -t 192.0.2.1:80 -s sh", "");

    assert_eq!(cell.status, 0);
    let service = &stage.daemon.services().unwrap()[0].service;
    assert_eq!(service.scheduler, shunt_model::Scheduler::Sh);
    assert_eq!(service.settings.on_down, Some(shunt_model::OnDown::Reset));
}

impl Stage {
    fn new(namespace: u8) -> Self {
        Self {
            daemon: Handle::new(namespace),
            names: Fixture::new(),
        }
    }

    /// Runs a command of ipvsadm's, perhaps as another user.
    fn run(&self, command: &str, input: &str) -> Cell {
        let words = transcript::words(command);
        let permitted = words[0] != "setpriv";
        let start = words.iter().position(|word| word.starts_with("ipvsadm"));
        let (called, line) = words[start.unwrap()..].split_first().unwrap();
        let daemon = self.daemon.clone();
        let open = || -> Result<Box<dyn shunt_cli::client::Client>, Failure> {
            if permitted {
                return Ok(Box::new(daemon));
            }
            let path = "api.sock".into();
            Err(Failure::NotPermitted { path })
        };
        let (mut out, mut error) = (Vec::new(), Vec::new());
        let streams = Streams {
            input: &mut Cursor::new(input),
            out: &mut out,
            error: &mut error,
        };
        let program = Program::from_name(called).unwrap();
        let status = run(program, called, line, open, &self.names, streams);
        Cell {
            command: command.to_owned(),
            input: input.to_owned(),
            out: String::from_utf8(out).unwrap(),
            error: String::from_utf8(error).unwrap(),
            status,
        }
    }

    /// Runs `shunt proc`.
    fn run_proc(&self, name: &str) -> Cell {
        let words = ["shunt", "proc", name].map(str::to_owned);
        let (mut out, mut error) = (Vec::new(), Vec::new());
        let outside = Outside {
            open: &|| Ok(Box::new(self.daemon.clone())),
            kernel: &|| Err(shunt_cli::ipvs::Failure::NoIpvs),
            out: &mut out,
            error: &mut error,
            is_terminal: false,
            wait: &mut |_| false,
            json: false,
        };
        let status = shunt::run(&words, outside);
        Cell {
            out: String::from_utf8(out).unwrap(),
            error: String::from_utf8(error).unwrap(),
            status,
            ..Cell::default()
        }
    }

    /// Runs what was not recorded, which must succeed.
    fn prepare<'a>(&self, lines: impl IntoIterator<Item = &'a str>) {
        for line in lines {
            let said = self.run(&format!("ipvsadm {line}"), "");
            assert_eq!((said.error.as_str(), said.status), ("", 0), "{line}");
        }
    }
}

fn replay(file: &'static str, text: &str, with_traffic: bool, report: &mut Report) {
    let namespace = match file {
        "lines" | "connections" => OTHER_NAMESPACE,
        _ => NAMESPACE,
    };
    let mut stage = Stage::new(namespace);
    if WITH_EVERYTHING.contains(&file) {
        stage.prepare(everything());
    }
    set_scene(file, "", &stage);
    for item in transcript::read(text) {
        match item {
            Item::Heading(heading) => {
                if file == "names" {
                    stage.names.learn(&heading);
                }
                set_scene(file, &heading, &stage);
            }
            Item::Cell(cell) => replay_cell(file, &cell, &stage, with_traffic, report),
        }
    }
}

fn replay_cell(
    file: &'static str,
    cell: &Cell,
    stage: &Stage,
    with_traffic: bool,
    report: &mut Report,
) {
    let command = cell.command.as_str();
    if let Some(known) = difference(file, command)
        && known.how == How::LeftOut
    {
        report.different.push(known);
        return;
    }
    // The greps only choose lines, and the recorded lines are all that is in the table.
    let (command, filtered) = match command.split_once(" | grep ") {
        Some((command, _)) => (command, true),
        None => (command, false),
    };
    if let Some(name) = command.strip_prefix("cat /proc/net/") {
        set_recorded_numbers(cell, stage);
        let said = stage.run_proc(name);
        report.compare(
            file,
            cell,
            &Cell {
                command: cell.command.clone(),
                ..said
            },
        );
        return;
    }
    let ours = command.starts_with("ipvsadm") || command.starts_with("setpriv ");
    if !ours || command.contains([';', '|']) {
        report.foreign.push(format!("{file}: {}", cell.command));
        return;
    }
    if with_traffic && let Err(line) = set_traffic(cell, stage) {
        report.wrong.push(format!("{file}: cannot be said: {line}"));
        return;
    }
    let mut said = stage.run(command, &cell.input);
    if filtered {
        let titles = ["IPVS ", "pro "];
        for title in titles.into_iter().filter(|title| !cell.out.contains(title)) {
            let kept = said.out.lines().filter(|line| !line.starts_with(title));
            said.out = kept.map(|line| format!("{line}\n")).collect();
        }
    }
    report.compare(file, cell, &said);
}

/// Puts the recorded numbers and connections behind the table.
fn set_traffic(cell: &Cell, stage: &Stage) -> Result<(), String> {
    let mut memory = stage.daemon.0.borrow_mut();
    if cell.out.contains("LocalAddress:Port") {
        memory.traffic = fixture::traffic(&cell.out);
    } else if cell.command.contains("-L") && !cell.out.is_empty() {
        memory.connections = fixture::connections(&cell.out, &stage.names)?;
    }
    Ok(())
}

/// Puts the numbers behind the table that a file of the kernel's was recorded with.
fn set_recorded_numbers(cell: &Cell, stage: &Stage) {
    let mut memory = stage.daemon.0.borrow_mut();
    if cell.command.ends_with("ip_vs") {
        memory.traffic = fixture::traffic_of_proc(&cell.out);
    } else if cell.command.ends_with("ip_vs_stats") {
        (memory.statistics.counters, memory.statistics.rates) = fixture::statistics(&cell.out);
    }
}

fn replay_matrix(report: &mut Report) {
    for cell in transcript::read_matrix(MATRIX_TRANSCRIPT) {
        let stage = Stage::new(NAMESPACE);
        stage.prepare(MATRIX.iter().copied());
        let said = stage.run(&cell.command, "");
        let error = said.error.lines().next().unwrap_or_default().to_owned();
        let first = Cell {
            out: String::new(),
            error,
            ..said
        };
        report.compare("matrix", &cell, &first);
    }
}

fn set_scene(file: &str, heading: &str, stage: &Stage) {
    let begins = |scene: &&scenes::Scene| match scene.heading {
        "" => heading.is_empty(),
        beginning => heading.starts_with(beginning),
    };
    let scenes = SCENES.iter().filter(|scene| scene.file == file);
    for scene in scenes.filter(begins) {
        stage.prepare(scene.lines.iter().copied());
    }
}

/// The table with something of everything, from the head of its transcript.
fn everything() -> impl Iterator<Item = &'static str> {
    let (_, listing, _) = TRANSCRIPTS[5];
    let lines = listing.lines().filter_map(|line| line.strip_prefix("# "));
    lines.filter(|line| line.starts_with('-'))
}
