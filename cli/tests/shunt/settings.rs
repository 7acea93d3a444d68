//! Settings: what they say, what a service has otherwise, and what sysctl texts become.

use std::fs;

use serde_json::json;

use super::{Stage, WEB};

#[test]
fn a_setting_is_set_and_shown() {
    let stage = Stage::new();

    assert_eq!(
        stage.says("setting set conn_reuse_mode 2"),
        "changed setting conn_reuse_mode 1 -> 2\n"
    );
    assert_eq!(
        stage.says("settings set expire_nodest_conn 1"),
        "changed setting on_down by_protocol -> reschedule\n"
    );
    assert_eq!(
        stage.says("setting set on_down reschedule"),
        "nothing to do: on_down reschedule is already set\n"
    );

    let listed = stage.says("setting list");
    let line = |name: &str| {
        let mut lines = listed.lines();
        let line = lines.find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace()
            .take(3)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(line("conn_reuse_mode"), ["conn_reuse_mode", "2", "1"]);
    assert_eq!(line("on_down"), ["on_down", "reschedule", "by_protocol"]);
    assert_eq!(line("drop_entry"), ["drop_entry", "0", "0"]);
    assert_eq!(stage.json("setting list --json")["on_down"], "reschedule");
}

#[test]
fn a_service_has_settings_of_its_own() {
    let stage = Stage::new();
    stage.says(&format!("service add {WEB} --on-down reset"));

    assert_eq!(
        stage.says(&format!(
            "service edit {WEB} --set sloppy_tcp=1,on_down=keep"
        )),
        "changed service tcp 192.0.2.1:80: \
         settings on_down reset -> on_down keep, sloppy_tcp 1\n"
    );
    let shown = stage.says(&format!("service show {WEB}"));
    assert!(
        shown.contains("\nsettings     on_down keep, sloppy_tcp 1\n"),
        "{shown}"
    );
    assert_eq!(
        stage.json(&format!("service show {WEB} --json"))["service"]["settings"],
        json!({"on_down": "keep", "sloppy_tcp": true})
    );
    assert_eq!(
        stage.says(&format!(
            "service edit {WEB} --set sloppy_tcp=default --on-down default"
        )),
        "changed service tcp 192.0.2.1:80: \
         settings on_down keep, sloppy_tcp 1 -> the director's\n"
    );
}

#[test]
fn what_makes_no_sense_is_told_why() {
    let stage = Stage::new();
    for (line, why) in [
        (
            "setting set slopy_tcp 1".to_owned(),
            "there is no setting \"slopy_tcp\", did you mean \"sloppy_tcp\"?\n",
        ),
        (
            "setting set drop_entry 9".to_owned(),
            "drop_entry is 0 (never), 1 (automatic) or 3 (always), not \"9\"\n",
        ),
        (
            format!("service add {WEB} --set am_droprate=3"),
            "am_droprate is the same for all services; \
             set it by \"shunt setting set am_droprate VALUE\"\n",
        ),
        (
            format!("service add {WEB} --set sloppy_tcp"),
            "\"sloppy_tcp\" is not a setting and value; write NAME=VALUE, such as sloppy_tcp=1\n",
        ),
        (
            format!("service add {WEB} --on-down stay"),
            "on_down is by_protocol, keep, reschedule or reset, not \"stay\"\n",
        ),
    ] {
        let (status, out, error) = run(&stage, &line);
        assert_eq!(
            (status, out.as_str(), error.as_str()),
            (2, "", why),
            "{line}"
        );
    }
    assert_eq!(stage.json("service list --json"), json!([]));
}

fn run(stage: &Stage, line: &str) -> (u8, String, String) {
    let said = stage.run(line);
    (said.status, said.out, said.error)
}

/// Texts as in `/etc/sysctl.d`, and a folder as the kernel's.
fn folder(name: &str) -> std::path::PathBuf {
    let folder = std::env::temp_dir().join(format!("shunt-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

#[test]
fn sysctl_texts_become_commands_and_what_changes_nothing_is_named() {
    let stage = Stage::new();
    let texts = folder("texts");
    let first = "net.ipv4.vs.conn_reuse_mode = 0\nnet.ipv4.vs.conntrack=1\nkernel.panic = 1\n";
    fs::write(texts.join("10-vs.conf"), first).unwrap();
    let second = "net.ipv4.vs.conn_reuse_mode = 2\nnet.ipv4.vs.expire_nodest_conn = 0\n";
    fs::write(texts.join("20-vs.conf"), second).unwrap();
    fs::write(texts.join("README"), "net.ipv4.vs.drop_entry = 3\n").unwrap();
    let line = format!("import sysctl {}", texts.display());

    let (status, out, error) = run(&stage, &line);
    assert_eq!(
        out,
        "shunt setting set conn_reuse_mode 2\nshunt setting set on_down keep\n"
    );
    assert_eq!(
        error,
        format!(
            "{}/10-vs.conf:2: conntrack = 1 has no effect here: \
             forwarded packets do not pass netfilter's connection tracking\n",
            texts.display()
        )
    );
    assert_eq!(status, 0);
    assert_eq!(stage.json("setting list --json")["conn_reuse_mode"], 1);

    let (status, out, _) = run(&stage, &format!("{line} --apply"));
    assert_eq!(
        (status, out.as_str()),
        (0, "setting conn_reuse_mode 2\nsetting on_down keep\n")
    );
    assert_eq!(stage.json("setting list --json")["conn_reuse_mode"], 2);
    let (_, out, _) = run(&stage, &format!("{line} --apply"));
    assert_eq!(out, "nothing to do: every setting already has its value\n");

    fs::write(texts.join("30-vs.conf"), "\nnet.ipv4.vs.drop_entri = 1\n").unwrap();
    let (status, out, error) = run(&stage, &line);
    assert_eq!(status, 1);
    assert!(out.ends_with("shunt setting set on_down keep\n"), "{out}");
    let place = format!("{}/30-vs.conf:2", texts.display());
    let wanted = format!(
        "{place}: not imported: there is no setting \"drop_entri\", did you mean \"drop_entry\"?\n"
    );
    assert!(error.ends_with(&wanted), "{error}");
    fs::remove_dir_all(&texts).unwrap();
}

#[test]
fn what_the_kernel_begins_with_is_nobodys_choice() {
    let stage = Stage::new();
    let kernel = folder("kernel");
    for (name, value) in [
        ("expire_nodest_conn", "0"),
        ("drop_packet", "3"),
        ("sync_threshold", "3\t50"),
    ] {
        fs::write(kernel.join(name), format!("{value}\n")).unwrap();
    }

    let (status, out, error) = run(&stage, &format!("import sysctl {}", kernel.display()));

    assert_eq!(
        out,
        "shunt setting set drop_packet 3\nshunt setting set on_down by_protocol\n"
    );
    assert!(error.contains("/sync_threshold: sync_threshold = 3\t50 has no effect here"));
    assert_eq!(status, 0);
    fs::remove_dir_all(&kernel).unwrap();
}
