//! What is not understood, and what explains itself: help, man pages, completions.

use clap::{Command, CommandFactory};
use shunt_cli::shunt::Shunt;

use super::Stage;

#[test]
fn a_wrong_word_is_answered_with_the_nearest_known_one() {
    let dialogue = [
        (
            "service add tcp/192.0.2.1:80 --scheduler wcl",
            "unknown scheduler \"wcl\", did you mean \"wlc\"?",
        ),
        (
            "server add tcp/192.0.2.1:80 10.1.0.11:80 --method masqerade",
            "unknown method \"masqerade\", did you mean \"masquerade\"?; tunnels may be gre and \
             gue:PORT too, with +checksum",
        ),
        (
            "connection list --state estblished",
            "unknown state \"estblished\", did you mean \"ESTABLISHED\"?",
        ),
        (
            "service show tpc/192.0.2.1:80",
            "unknown protocol \"tpc\", did you mean \"tcp\"?",
        ),
        (
            "service add tcp/192.0.2.1:80 --scheduler fastest",
            "unknown scheduler \"fastest\"; known are \
             rr wrr lc wlc lblc lblcr dh sh sed nq fo ovf mh twos p2c",
        ),
        (
            "service show tcp 192.0.2.1",
            "\"192.0.2.1\" is not an address and port; \
             write 192.0.2.1:80, or [2001:db8::1]:80 for IPv6",
        ),
        (
            "server drain tcp/192.0.2.1:80 10.1.0.11",
            "\"10.1.0.11\" is not a server; write its address and port, \
             such as 10.1.0.11:8080 or [2001:db8:1::11]:8080",
        ),
        (
            "connection list --client 198.51.100.0/33",
            "\"198.51.100.0/33\" is not a client; \
             write 198.51.100.7, 198.51.100.0/24 or 2001:db8::/32",
        ),
        (
            "status --watch never",
            "\"never\" is not a waiting time; write seconds from 0.1 to 3600",
        ),
    ];
    for (line, answer) in dialogue {
        let said = Stage::new().run(line);
        assert_eq!(said.error, format!("{answer}\n"), "{line}");
        assert_eq!((said.status, said.out.as_str()), (2, ""), "{line}");
    }
}

#[test]
fn wrong_usage_is_the_second_exit_code() {
    for line in [
        "serivce list",
        "service",
        "service edit tcp/192.0.2.1:80",
        "service delete",
        "service delete tcp/192.0.2.1:80 --all",
        "server edit tcp/192.0.2.1:80 10.1.0.11:80",
        "server weight tcp/192.0.2.1:80 10.1.0.11:80 -1",
        "service add tcp/192.0.2.1:80 --flags port,sometimes",
        "man nothing",
    ] {
        let said = Stage::new().run(line);
        assert_eq!((said.status, said.out.as_str()), (2, ""), "{line}");
        assert!(
            !said.error.is_empty() && !said.error.contains("error:"),
            "{}",
            said.error
        );
    }
}

#[test]
fn help_explains_how_things_are_written_and_needs_no_daemon() {
    let mut stage = Stage::new();
    stage.away = 0..9;

    assert!(stage.says("--help").contains("tcp/192.0.2.1:80"));
    assert!(stage.says("--version").starts_with("shunt 0."));
    assert!(stage.says("completions bash").contains("_shunt()"));
}

#[test]
fn every_verb_has_a_man_page() {
    let stage = Stage::new();

    for page in [
        "shunt",
        "shunt.1",
        "service",
        "service-add",
        "shunt-connection-count.1",
    ] {
        let text = stage.says(&format!("man {page}"));
        assert!(text.contains(".SH NAME"), "{page}");
    }
    assert!(stage.says("man shuntd").contains(".TH shuntd 8"));
    assert!(stage.says("man ipvsadm").contains(".TH IPVSADM 8"));
    assert!(
        stage
            .says("man ipvsadm-save")
            .contains(".so man8/ipvsadm.8")
    );
}

#[test]
fn all_pages_are_written_into_a_folder() {
    let folder = std::env::temp_dir().join(format!("shunt-pages-{}", std::process::id()));

    let written = Stage::new().says(&format!("pages {}", folder.display()));

    let is_there = |path: &str| folder.join(path).is_file();
    let all = [
        "man/shunt.1",
        "man/shunt-server-drain.1",
        "man/ipvsadm.8",
        "completions/shunt.zsh",
    ];
    let there = all.map(is_there);
    let listed = written
        .lines()
        .all(|line| std::path::Path::new(line).is_file());
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(there, [true; 4]);
    assert!(listed);
    assert!(!written.contains("pages.1"));
}

#[test]
fn every_verb_has_a_line_in_the_reference() {
    let reference = include_str!("../../../docs/reference/commands.md");
    let mut verbs = Vec::new();
    add_verbs(&Shunt::command(), "shunt", &mut verbs);

    assert!(verbs.len() > 15, "{verbs:?}");
    for verb in verbs {
        assert!(reference.contains(&format!("| `{verb}")), "{verb}");
    }
}

/// The words of every command that has no further ones.
fn add_verbs(command: &Command, words: &str, verbs: &mut Vec<String>) {
    for below in command
        .get_subcommands()
        .filter(|below| !below.is_hide_set())
    {
        let words = format!("{words} {}", below.get_name());
        match below.has_subcommands() {
            true => add_verbs(below, &words, verbs),
            false => verbs.push(words),
        }
    }
}
