//! The form of changes in JSON, which journals and the API have had from the first.

use super::*;

/// Each change as the API has it and as journals have it, with its entry of the log.
fn written() -> Vec<(String, &'static str)> {
    let key = r#""key":{"kind":"address","protocol":"tcp","address":"192.0.2.1","port":80}"#;
    let flags = r#""flags":{"fallback":false,"port":false,"third":false}"#;
    let service = format!(r#""service":{{{key},"scheduler":"wlc",{flags},"one_packet":false}}"#);
    let at = r#""at":{"address":"10.1.0.11","port":80}"#;
    let thresholds = r#""upper_threshold":0,"lower_threshold":0"#;
    let server = format!(r#""server":{{{at},"method":"route","weight":3,{thresholds}}}"#);
    let ports = r#""ports":{"first":443,"last":443}"#;
    let target = format!(r#""target":{{"protocol":"udp","address":"2001:db8::1",{ports}}}"#);
    let rule = format!(r#""rule":{{"mark":7,{target}}}"#);
    let local = r#""local":{"address":"10.1.0.1","ports":{"first":1024,"last":32767}}"#;
    [
        (
            format!(r#""add_service",{service}"#),
            "service tcp 192.0.2.1:80 added, wlc",
        ),
        (
            format!(r#""edit_service",{service}"#),
            "service tcp 192.0.2.1:80 edited, wlc",
        ),
        (
            format!(r#""delete_service",{key}"#),
            "service tcp 192.0.2.1:80 deleted",
        ),
        (r#""flush""#.to_owned(), "all services deleted"),
        (
            format!(r#""zero",{key}"#),
            "counters of tcp 192.0.2.1:80 zeroed",
        ),
        (r#""zero","key":null"#.to_owned(), "all counters zeroed"),
        (
            format!(r#""add_server",{key},{server}"#),
            "server 10.1.0.11:80 added to tcp 192.0.2.1:80, route, weight 3",
        ),
        (
            format!(r#""edit_server",{key},{server}"#),
            "server 10.1.0.11:80 of tcp 192.0.2.1:80 edited, route, weight 3",
        ),
        (
            format!(r#""delete_server",{key},{at}"#),
            "server 10.1.0.11:80 of tcp 192.0.2.1:80 deleted",
        ),
        (
            format!(r#""add_mark",{rule}"#),
            "mark 7 for udp [2001:db8::1]:443 added",
        ),
        (
            format!(r#""delete_mark",{rule}"#),
            "mark 7 for udp [2001:db8::1]:443 deleted",
        ),
        (
            format!(r#""set_local",{local}"#),
            "local address 10.1.0.1 ports 1024-32767 set",
        ),
        (
            r#""delete_local","address":"10.1.0.1""#.to_owned(),
            "local address 10.1.0.1 deleted",
        ),
        (
            r#""set","setting":{"name":"sloppy_tcp","value":true}"#.to_owned(),
            "setting sloppy_tcp 1",
        ),
        (
            r#""set_timeouts","timeouts":{"tcp_s":0,"tcp_fin_s":60,"udp_s":0}"#.to_owned(),
            "timeouts set (0 stays): tcp 0 tcpfin 60 udp 0",
        ),
    ]
    .map(|(json, log)| (format!(r#"{{"change":{json}}}"#), log))
    .into()
}

#[test]
fn a_change_is_read_and_written_as_journals_and_the_api_always_had_it() {
    for (json, log) in written() {
        let change: Change = serde_json::from_str(&json).expect(&json);
        assert_eq!(change.to_string(), log);
        assert_eq!(serde_json::to_string(&change).unwrap(), json);
    }
}

#[test]
fn a_wrong_name_is_answered_with_the_right_ones() {
    let read = serde_json::from_str::<Change>(r#"{"change":"add_sevice"}"#);
    let error = read.unwrap_err().to_string();
    assert!(error.contains("unknown variant `add_sevice`"), "{error}");
    for (json, _) in written() {
        let name = json.split('"').nth(3).unwrap();
        assert!(error.contains(&format!("`{name}`")), "{name}: {error}");
    }
}
