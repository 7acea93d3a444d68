//! How many clients of the other servers change their server when one server leaves.

use super::*;

/// The share, in ten thousandths, of clients of the remaining servers that a leaving one moves.
fn moved(rule: Rule, servers: u32) -> f64 {
    let members: Vec<Member> = (1..=servers).rev().map(|id| member(id, 1, 1)).collect();
    let before = compile(rule, &members, &Turn::Start).slots;
    let mut total = (0, 0);
    // Ten servers leave, one after the other, and each comes back.
    for gone in (1..=servers).step_by((servers as usize / 10).max(1)) {
        let left: Vec<Member> = members.iter().filter(|m| m.id != gone).copied().collect();
        let after = compile(rule, &left, &Turn::Start).slots;
        for (one, other) in before.iter().zip(&after) {
            if *one as u32 != gone {
                total = (total.0 + u32::from(one != other), total.1 + 1);
            }
        }
    }
    f64::from(total.0) * 10_000.0 / f64::from(total.1)
}

// The figures of docs/reference/schedulers.md; `--nocapture` prints them.
#[test]
fn maglev_moves_few_clients_of_servers_that_stay() {
    let rules = |servers| {
        let mh = rule(Scheduler::Mh);
        let large = Rule { large: true, ..mh };
        [rule(Scheduler::Sh), mh, large].map(|rule| moved(rule, servers))
    };
    for (servers, few) in [
        (10, [10_000.0, 150.0, 30.0]),
        (100, [10_000.0, 400.0, 70.0]),
        (1_000, [10_000.0, 70.0, 70.0]),
    ] {
        let moved = rules(servers);
        println!("{servers} servers: sh, mh, mh large: {moved:.0?} of 10,000 moved");
        for (moved, few) in moved.iter().zip(few) {
            assert!(*moved <= few, "{servers} servers: {moved} of 10,000 moved");
        }
    }
}
