//! Which change needs which program, and in which order changes are made.

use super::*;

use shunt_model::service::Granularity;
use shunt_model::{Method, Persistence, Scheduler, SchedulerFlags, ServiceSettings};

fn key(text: &str) -> ServiceKey {
    text.parse().unwrap()
}

fn service(text: &str) -> Service {
    Service {
        key: key(text),
        scheduler: Scheduler::Rr,
        flags: SchedulerFlags::default(),
        persistence: None,
        idle_engine: None,
        one_packet: false,
        settings: ServiceSettings::default(),
        announce: None,
    }
}

fn server(text: &str, at: &str, method: Method) -> Change {
    Change::Server(server::Change::Add {
        key: key(text),
        server: Server {
            at: at.parse().unwrap(),
            method,
            weight: 1,
            upper_threshold: 0,
            lower_threshold: 0,
        },
    })
}

fn sip() -> Change {
    Change::Service(service::Change::Add {
        service: Service {
            persistence: Some(Persistence {
                timeout_s: 60,
                granularity: Granularity::Mask(std::net::Ipv4Addr::BROADCAST),
                engine: Some("sip".to_owned()),
            }),
            ..service("udp/192.0.2.1:5060")
        },
    })
}

fn icmp() -> Change {
    Change::Service(service::Change::Edit {
        service: Service {
            settings: ServiceSettings {
                schedule_icmp: Some(true),
                ..ServiceSettings::default()
            },
            ..service("tcp/192.0.2.1:80")
        },
    })
}

#[test]
fn each_feature_needs_its_program_and_a_plain_service_none() {
    let web = "tcp/192.0.2.1:80";
    let plain = Change::Service(service::Change::Add {
        service: service(web),
    });
    let callers = Program::Callers;
    let cases = [
        (plain, vec![]),
        (Change::Service(service::Change::Flush), vec![]),
        (server(web, "10.1.0.1:80", Method::Route), vec![callers]),
        (
            server(web, "10.1.0.1:8080", Method::Masquerade),
            vec![callers],
        ),
        (
            server(web, "10.1.0.1:80", Method::FullNat),
            vec![callers, Program::Translate],
        ),
        // Several ports that become one, and a mark of several addresses.
        (
            server("tcp/192.0.2.1:0", "10.1.0.1:80", Method::Masquerade),
            vec![callers, Program::Translate],
        ),
        (
            server("mark/7", "10.1.0.1:0", Method::Masquerade),
            vec![callers, Program::Translate],
        ),
        (sip(), vec![Program::Call]),
        (icmp(), vec![Program::Quoted]),
        (
            Change::Setting(setting::Change::Set {
                setting: Setting::ScheduleIcmp(true),
            }),
            vec![Program::Quoted],
        ),
        (
            Change::Setting(setting::Change::Set {
                setting: Setting::ScheduleIcmp(false),
            }),
            vec![],
        ),
    ];
    for (change, programs) in cases {
        let programs: BTreeSet<Program> = programs.into_iter().collect();
        assert_eq!(needed([&change]), programs, "{change}");
    }
}

fn makes(loading: &mut Loading<u8>) -> Vec<u8> {
    std::iter::from_fn(|| loading.poll())
        .map(|ready| match ready {
            Ready::Make(asked) => asked,
            Ready::Refuse(_, refusal) => panic!("{refusal}"),
        })
        .collect()
}

#[test]
fn a_change_waits_for_its_program_and_those_behind_it_wait_too() {
    let mut loading = Loading::new(Program::ALL);
    loading.ask(BTreeSet::new(), 0);
    assert_eq!(makes(&mut loading), [0]);
    loading.ask(needed([&sip()]), 1);
    loading.ask(BTreeSet::new(), 2);
    assert!(makes(&mut loading).is_empty());
    loading.loaded(Program::Quoted, Ok(()));
    assert!(makes(&mut loading).is_empty());
    loading.loaded(Program::Call, Ok(()));
    assert_eq!(makes(&mut loading), [1, 2]);
    let left: Vec<Program> = loading.loading().collect();
    assert_eq!(left, [Program::Callers, Program::Translate]);
}

#[test]
fn what_needs_a_program_that_the_kernel_refused_is_refused_and_all_else_is_made() {
    let mut loading = Loading::new(Program::ALL);
    let web = "tcp/192.0.2.1:80";
    loading.ask(needed([&server(web, "10.1.0.1:80", Method::FullNat)]), 1);
    loading.ask(needed([&server(web, "10.1.0.2:80", Method::Route)]), 2);
    loading.loaded(Program::Translate, Err("its stack is too large".to_owned()));
    assert_eq!(loading.poll(), None, "it waits for another program still");
    // Nobody's packets depend on it.
    loading.loaded(Program::Callers, Err("no control group".to_owned()));
    let Some(Ready::Refuse(1, refusal)) = loading.poll() else {
        panic!("not refused");
    };
    assert_eq!(refusal.reason, Reason::NotSupported);
    assert!(refusal.text.contains("its stack is too large"), "{refusal}");
    assert_eq!(makes(&mut loading), [2]);
    assert_eq!(loading.warnings().count(), 2);
    assert!(!loading.is_loading(Program::Callers));
}
