//! Changes: what they say, what they do, and what they do when there is nothing to do.

use serde_json::json;

use super::Stage;

#[test]
fn a_change_says_what_changed() {
    let stage = Stage::new();
    let dialogue = [
        (
            "service add tcp/192.0.2.1:80 --scheduler sh --flags fallback,port",
            "added service tcp 192.0.2.1:80, scheduler sh (fallback, port)",
        ),
        (
            "service edit tcp/192.0.2.1:80 --scheduler wrr --flags none",
            "changed service tcp 192.0.2.1:80: scheduler sh (fallback, port) -> wrr",
        ),
        (
            "server add tcp/192.0.2.1:80 10.1.0.11:80",
            "added server 10.1.0.11:80 to service tcp 192.0.2.1:80: route, weight 1",
        ),
        (
            "server edit tcp/192.0.2.1:80 10.1.0.11:80 --method tunnel --weight 5",
            "changed server 10.1.0.11:80 of service tcp 192.0.2.1:80: \
             method route -> tunnel, weight 1 -> 5",
        ),
        (
            "server weight tcp/192.0.2.1:80 10.1.0.11:80 3",
            "changed server 10.1.0.11:80 of service tcp 192.0.2.1:80: weight 5 -> 3",
        ),
        (
            "server edit tcp/192.0.2.1:80 10.1.0.11:80 --upper-threshold 9 --lower-threshold 4",
            "changed server 10.1.0.11:80 of service tcp 192.0.2.1:80: \
             upper threshold 0 -> 9, lower threshold 0 -> 4",
        ),
        (
            "server drain tcp/192.0.2.1:80 10.1.0.11:80",
            "changed server 10.1.0.11:80 of service tcp 192.0.2.1:80: weight 3 -> 0; \
             its 0 active and 0 inactive connections stay",
        ),
        (
            "server delete tcp/192.0.2.1:80 10.1.0.11:80",
            "deleted server 10.1.0.11:80 of service tcp 192.0.2.1:80; it had 0 active connections",
        ),
        (
            "service zero tcp/192.0.2.1:80",
            "zeroed the counters of service tcp 192.0.2.1:80",
        ),
        ("service zero", "zeroed the counters of every service"),
        (
            "service delete tcp/192.0.2.1:80",
            "deleted service tcp 192.0.2.1:80 with 0 servers",
        ),
    ];
    for (line, answer) in dialogue {
        assert_eq!(stage.says(line), format!("{answer}\n"), "{line}");
    }
    assert_eq!(stage.json("service list --json"), json!([]));
}

#[test]
fn nothing_to_do_is_success() {
    let stage = Stage::with_two_services();
    let before = stage.says("service list --json");
    let dialogue = [
        (
            "service add tcp/192.0.2.1:80",
            "service tcp 192.0.2.1:80 is already as requested",
        ),
        (
            "service edit tcp/192.0.2.1:80 --scheduler wlc",
            "service tcp 192.0.2.1:80 is already as requested",
        ),
        (
            "service delete tcp/192.0.2.9:80",
            "there is no service tcp 192.0.2.9:80",
        ),
        (
            "server add tcp/192.0.2.1:80 10.1.0.11:8080 --method masquerade",
            "server 10.1.0.11:8080 of service tcp 192.0.2.1:80 is already as requested",
        ),
        (
            "server weight tcp/192.0.2.1:80 10.1.0.11:8080 1",
            "server 10.1.0.11:8080 of service tcp 192.0.2.1:80 is already as requested",
        ),
        (
            "server delete tcp/192.0.2.1:80 10.1.0.99:8080",
            "service tcp 192.0.2.1:80 has no server 10.1.0.99:8080",
        ),
    ];
    for (line, answer) in dialogue {
        assert_eq!(
            stage.says(line),
            format!("nothing to do: {answer}\n"),
            "{line}"
        );
    }
    assert_eq!(stage.says("service list --json"), before);
    stage.says("service delete --all");
    assert_eq!(
        stage.says("service delete --all"),
        "nothing to do: there is no service\n"
    );
}

#[test]
fn a_change_in_json_has_the_change_that_was_asked_for() {
    let stage = Stage::with_two_services();

    assert_eq!(
        stage.json("service delete tcp/192.0.2.1:80 --json"),
        json!({
            "changed": true,
            "text": "deleted service tcp 192.0.2.1:80 with 2 servers",
            "change": {
                "change": "delete_service",
                "key": {"kind": "address", "protocol": "tcp", "address": "192.0.2.1", "port": 80},
            },
        })
    );
    let again = stage.json("service delete tcp/192.0.2.1:80 --json");
    assert_eq!(
        (&again["changed"], &again["change"]),
        (&json!(false), &json!(null))
    );
}

#[test]
fn what_is_refused_is_said_on_standard_error_and_changes_nothing() {
    let stage = Stage::with_two_services();
    let before = stage.says("service list --json");
    let dialogue = [
        (
            "service add tcp/192.0.2.1:80 --scheduler rr",
            "service tcp 192.0.2.1:80 exists already",
        ),
        (
            "mark add 7 tcp/192.0.2.1:80",
            "mark 7 for tcp 192.0.2.1:80: service tcp 192.0.2.1:80 has that address and port; \
             delete it first",
        ),
        (
            "service edit tcp/192.0.2.9:80 --scheduler rr",
            "there is no service tcp 192.0.2.9:80",
        ),
        (
            "service zero tcp/192.0.2.9:80",
            "there is no service tcp 192.0.2.9:80",
        ),
        (
            "server list tcp/192.0.2.9:80",
            "there is no service tcp 192.0.2.9:80",
        ),
        (
            "server drain tcp/192.0.2.1:80 10.1.0.99:8080",
            "service tcp 192.0.2.1:80 has no server 10.1.0.99:8080",
        ),
        (
            "server add tcp/192.0.2.1:80 10.1.0.13:8080 --method route",
            "server 10.1.0.13:8080 of service tcp 192.0.2.1:80: \
             without masquerading its port must be 80",
        ),
        (
            "server add tcp/192.0.2.1:80 10.1.0.11:8080 --method masquerade --weight 9",
            "server 10.1.0.11:8080 of service tcp 192.0.2.1:80 exists already",
        ),
    ];
    for (line, answer) in dialogue {
        let said = stage.run(line);
        assert_eq!(said.error, format!("{answer}\n"), "{line}");
        assert_eq!((said.status, said.out.as_str()), (1, ""), "{line}");
    }
    assert_eq!(stage.says("service list --json"), before);
}

#[test]
fn a_refusal_in_json_has_a_reason_that_a_program_can_tell() {
    let said = Stage::new().run("server list tcp/192.0.2.9:80 --json");

    let refusal: serde_json::Value = serde_json::from_str(&said.error).unwrap();
    let text = "there is no service tcp 192.0.2.9:80";
    assert_eq!(refusal, json!({"reason": "no_such_service", "text": text}));
    assert_eq!((said.status, said.out.as_str()), (1, ""));
}

#[test]
fn local_addresses_are_added_changed_and_deleted() {
    let stage = Stage::new();
    let dialogue = [
        (
            "local add 10.1.0.99",
            "added local address 10.1.0.99 ports 1024-32767",
        ),
        (
            "local add 10.1.0.99 --ports 1024-32767",
            "nothing to do: local address 10.1.0.99 ports 1024-32767 already exists",
        ),
        (
            "local add 10.1.0.99 --ports 2000-2999",
            "changed local address 10.1.0.99 ports 1024-32767: ports 2000-2999",
        ),
        (
            "local add 2001:db8:1::99",
            "added local address 2001:db8:1::99 ports 1024-32767",
        ),
        (
            "local delete 10.1.0.98",
            "nothing to do: there is no local address 10.1.0.98",
        ),
    ];
    for (line, answer) in dialogue {
        assert_eq!(stage.says(line), format!("{answer}\n"), "{line}");
    }
    assert_eq!(
        stage.says("local list"),
        "\
ADDRESS         PORTS
10.1.0.99       2000-2999
2001:db8:1::99  1024-32767
"
    );
    assert_eq!(
        stage.says("local delete 10.1.0.99"),
        "deleted local address 10.1.0.99; existing connections keep it\n"
    );
    assert_eq!(
        stage.json("local list --json"),
        json!([{"address": "2001:db8:1::99", "ports": {"first": 1024, "last": 32_767}}])
    );
}
