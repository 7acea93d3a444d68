//! What is taken over from a kernel's IPVS, out of recorded answers of that kernel.

use serde_json::json;
use shunt_cli::ipvs::{Failure, read};
use shunt_model::Timeouts;

use super::recording::{TABLE, WITHOUT_IPVS, pairs, table};
use super::{Stage, WEB};

/// What `ipvsadm -S -n` of the recording's kernel wrote, but for the timeouts and thresholds,
/// which it loses, and for the mark, which it writes with a sign.
const RULES: &str = "\
--set 800 100 200
-A -f -1 -6 -s fo -p 60
-A -t 192.0.2.1:80 -s wlc
-a -t 192.0.2.1:80 -r 10.1.0.11:8080 -m -w 0
-a -t 192.0.2.1:80 -r 10.1.0.12:8080 -m -w 3 -x 100 -y 50
-A -t 192.0.2.2:443 -s sh -p 360 -M 255.255.255.0 -b sh-fallback,sh-port
-a -t 192.0.2.2:443 -r 10.1.0.11:443 -g -w 1
-a -t 192.0.2.2:443 -r 10.1.0.12:443 -i -w 1 --tun-type ipip
-a -t 192.0.2.2:443 -r 10.1.0.13:443 -i -w 1 --tun-type gue --tun-port 6080 --tun-remcsum
-a -t 192.0.2.2:443 -r 10.1.0.14:443 -i -w 1 --tun-type gre --tun-csum
-a -t 192.0.2.2:443 -r [2001:db8:1::15]:443 -i -w 1 --tun-type ipip
-A -u 192.0.2.1:53 -s rr -o
-a -u 192.0.2.1:53 -r 10.1.0.11:53 -g -w 1
-A -u 192.0.2.1:5060 -s rr -p 60 --pe sip
-a -u 192.0.2.1:5060 -r 10.1.0.11:5060 -g -w 1
-A --sctp-service 192.0.2.1:9000 -s mh -b mh-fallback
-A -t [2001:db8::1]:80 -s rr -p 90 -M 64
-a -t [2001:db8::1]:80 -r 10.1.0.12:80 -i -w 1 --tun-type ipip
-a -t [2001:db8::1]:80 -r [2001:db8:1::11]:8080 -m -w 2147483647
-A -f 7 -s wrr
-a -f 7 -r 10.1.0.11:0 -g -w 1
";

#[test]
fn a_kernels_table_is_written_as_the_rules_that_make_it() {
    assert_eq!(Stage::before_a_kernel().says("import ipvs"), RULES);
}

#[test]
fn a_kernels_table_in_json_has_the_words_of_the_api() {
    let table = Stage::before_a_kernel().json("import ipvs --json");

    assert_eq!(
        table["timeouts"],
        json!({"tcp_s": 800, "tcp_fin_s": 100, "udp_s": 200})
    );
    assert_eq!(table["services"].as_array().unwrap().len(), 8);
    assert_eq!(table["not_taken"], json!([]));
    let web = table["services"].as_array().unwrap().iter().find(|entry| {
        entry["service"]["key"]["address"] == "192.0.2.1" && entry["service"]["scheduler"] == "wlc"
    });
    assert_eq!(
        web.unwrap()["servers"][0],
        json!({
            "at": {"address": "10.1.0.12", "port": 8080}, "method": "masquerade", "weight": 3,
            "upper_threshold": 100, "lower_threshold": 50,
        })
    );
}

#[test]
fn applying_adds_all_that_a_kernel_has() {
    let stage = Stage::before_a_kernel();

    let said = stage.run("import ipvs --apply");

    assert_eq!((said.status, said.error.as_str()), (0, ""));
    let line = "server 10.1.0.12:8080 added to tcp 192.0.2.1:80, masquerade, weight 3\n";
    assert!(said.out.contains(line), "{}", said.out);
    let last = "21 changed, 0 unchanged, 0 not imported";
    assert_eq!(said.out.lines().last(), Some(last));
}

#[test]
fn what_was_applied_equals_the_kernels_table_and_is_in_its_order() {
    let stage = Stage::before_a_kernel();

    stage.says("import ipvs --apply");

    let memory = stage.handle.0.borrow();
    for entry in table(TABLE).unwrap().services {
        let key = entry.service.key;
        let ours = memory.table.service(&key).unwrap();
        assert_eq!(
            (&ours.service, &ours.servers),
            (&entry.service, &entry.servers)
        );
    }
    assert_eq!(memory.table.timeouts(), table(TABLE).unwrap().timeouts);
}

#[test]
fn the_kernels_file_of_what_was_applied_is_the_kernels() {
    let stage = Stage::before_a_kernel();
    stage.says("import ipvs --apply");
    // The recording's kernel has 100 ticks a second, and an order of services of its own.
    let recorded = include_str!("recordings/proc-ip_vs.txt")
        .replace("persistent 6000 ", "persistent 15000 ")
        .replace("persistent 9000 ", "persistent 22500 ")
        .replace("persistent 36000 ", "persistent 90000 ");

    let said = stage.says("proc ip_vs");

    assert_eq!(blocks(&said), blocks(&recorded));
    assert_eq!(
        said.lines().take(3).collect::<Vec<_>>(),
        recorded.lines().take(3).collect::<Vec<_>>()
    );
}

/// Each service with its servers, sorted.
fn blocks(text: &str) -> Vec<String> {
    let mut blocks: Vec<String> = Vec::new();
    for line in text.lines().skip(3) {
        match blocks.last_mut() {
            Some(block) if line.starts_with(' ') => *block += &format!("{line}\n"),
            _ => blocks.push(format!("{line}\n")),
        }
    }
    blocks.sort();
    blocks
}

#[test]
fn applying_again_changes_nothing() {
    let stage = Stage::before_a_kernel();
    stage.says("import ipvs --apply");

    assert_eq!(
        stage.says("import ipvs --apply"),
        "nothing to do: the daemon already has the kernel's table\n"
    );
    let outcome = stage.json("import ipvs --apply --json");
    assert_eq!(
        outcome,
        json!({"changed": false, "changes": [], "same": 21, "not_taken": []})
    );
}

#[test]
fn applying_edits_what_differs_and_leaves_others_alone() {
    let stage = Stage::before_a_kernel();
    stage.says("import ipvs --apply");
    for line in [
        "service add tcp/192.0.2.77:80",
        "server add tcp/192.0.2.77:80 10.1.0.77:80",
        &format!("server add {WEB} 10.1.0.99:8080 --method masquerade"),
        &format!("server weight {WEB} 10.1.0.12:8080 1"),
        &format!("server delete {WEB} 10.1.0.11:8080"),
        &format!("service edit {WEB} --scheduler rr"),
    ] {
        stage.says(line);
    }

    let said = stage.says("import ipvs --apply");

    assert_eq!(
        said,
        "\
service tcp 192.0.2.1:80 edited, wlc
server 10.1.0.12:8080 of tcp 192.0.2.1:80 edited, masquerade, weight 3
server 10.1.0.11:8080 added to tcp 192.0.2.1:80, masquerade, weight 0
3 changed, 18 unchanged, 0 not imported
"
    );
    assert!(
        stage
            .says(&format!("server list {WEB}"))
            .contains("10.1.0.99:8080")
    );
    assert!(stage.says("service list").contains("192.0.2.77:80"));
}

#[test]
fn a_service_that_the_daemon_refuses_is_left_out_with_its_servers() {
    let stage = Stage::before_a_kernel();
    stage.says("mark add 7 tcp/192.0.2.1:80");

    let said = stage.run("import ipvs --apply");

    assert_eq!(said.status, 1);
    assert_eq!(
        said.error,
        "not imported: service tcp 192.0.2.1:80, with its servers: service tcp 192.0.2.1:80: \
         mark 7 for tcp 192.0.2.1:80; delete that rule first\n"
    );
    assert!(!said.out.contains("tcp 192.0.2.1:80"), "{}", said.out);
    let last = "18 changed, 0 unchanged, 1 not imported";
    assert_eq!(said.out.lines().last(), Some(last));
}

#[test]
fn an_import_is_one_batch_so_that_its_end_in_the_middle_leaves_nothing_half_applied() {
    let stage = Stage::before_a_kernel();
    // The daemon takes no batch any more, as if it ended.
    stage.handle.0.borrow_mut().batches = Some(0);

    let said = stage.run("import ipvs --apply");

    assert_eq!((said.status, said.out.as_str()), (3, ""));
    let memory = stage.handle.0.borrow();
    assert_eq!(memory.table.len(), 0);
    assert_eq!(memory.table.timeouts(), Timeouts::default());
    drop(memory);

    // One batch is enough for all of it.
    stage.handle.0.borrow_mut().batches = Some(1);
    assert_eq!(stage.run("import ipvs --apply").status, 0);
    assert_eq!(stage.handle.0.borrow().table.len(), 8);
}

#[test]
fn a_scheduler_that_nobody_knows_leaves_its_service_out() {
    let mut stage = Stage::before_a_kernel();
    // "wlc" becomes "xlc".
    stage.kernel = TABLE.replace("776c6300", "786c6300");

    let said = stage.run("import ipvs");

    assert_eq!(said.status, 1);
    assert_eq!(
        said.error,
        "not imported: service tcp 192.0.2.1:80, with its servers: \
         unknown scheduler \"xlc\", did you mean \"lc\"?\n"
    );
    assert!(!said.out.contains("-t 192.0.2.1:80"));
    assert!(said.out.contains("-t 192.0.2.2:443"));
}

#[test]
fn a_kernel_without_ipvs_is_one_line_that_says_what_to_do() {
    for line in ["import ipvs", "import ipvs --json", "import ipvs --apply"] {
        let said = Stage::new().run(line);
        assert_eq!((said.status, said.out.as_str()), (1, ""), "{line}");
        assert_eq!(
            said.error,
            "this kernel has no IPVS; load it with \"modprobe ip_vs\", \
             or call this on the director that has the table\n"
        );
    }
}

#[test]
fn a_kernel_that_refuses_is_asked_by_root() {
    let mut stage = Stage::new();
    // ENOENT becomes EPERM.
    stage.kernel = WITHOUT_IPVS.replace("feffffff", "ffffffff");

    let said = stage.run("import ipvs");

    assert_eq!((said.status, said.out.as_str()), (1, ""));
    assert!(said.error.contains("call this as root"), "{}", said.error);
}

#[test]
fn an_answer_that_is_cut_anywhere_is_refused() {
    let answers = pairs(TABLE);
    for (cut, answer) in &answers {
        for length in 0..answer.len() {
            let table = read(&mut |question| match question == cut {
                true => Ok(answer[..length].to_vec()),
                false => Ok(answers[question].clone()),
            });
            assert!(
                matches!(table, Err(Failure::Broken(_))),
                "{length} of {cut:02x?}"
            );
        }
    }
}

#[test]
fn no_byte_of_an_answer_can_do_harm() {
    let answers = pairs(TABLE);
    for (changed, answer) in &answers {
        for at in 0..answer.len() {
            // Whatever comes of it, it is no panic. A question that follows from it may be one
            // that nobody recorded.
            let _ = read(&mut |question| {
                let unknown = || Failure::Broken("not recorded".to_owned());
                let mut said = answers.get(question).ok_or_else(unknown)?.clone();
                if question == changed {
                    said[at] ^= 0xFF;
                }
                Ok(said)
            });
        }
    }
}

impl Stage {
    fn before_a_kernel() -> Self {
        Self {
            kernel: TABLE.to_owned(),
            ..Self::new()
        }
    }
}
