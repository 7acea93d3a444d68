//! Reading policy rules (`fib_rules`).

use std::net::IpAddr;

use netlink_packet_route::AddressFamily;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};
use rtnetlink::packet_core::Nla;
use shunt_control::network::routes::Prefix;
use shunt_control::network::rules::{Action, Rule};

/// `FRA_DSCP`: this attribute and all later ones are further conditions on the packet.
const DSCP: u16 = 25;
/// The length that means "not set".
const NO_LENGTH: u32 = u32::MAX;

pub(super) fn rule(message: RuleMessage) -> Option<Rule> {
    let header = message.header;
    let any = match header.family {
        AddressFamily::Inet => IpAddr::from([0; 4]),
        AddressFamily::Inet6 => IpAddr::from([0; 16]),
        _ => return None,
    };
    let mut rule = Rule {
        v4: any.is_ipv4(),
        priority: 0,
        inverted: header.flags.contains(RuleFlags::Invert),
        source: Prefix::new(any, header.src_len),
        target: Prefix::new(any, header.dst_len),
        input: None,
        output: None,
        mark: 0,
        mask: 0,
        narrow: header.tos != 0,
        action: Action::Nop,
        suppressed: None,
    };
    let (mut table, mut target, mut mask) = (u32::from(header.table), 0, None);
    for attribute in message.attributes {
        match attribute {
            RuleAttribute::Destination(ip) => rule.target = Prefix::new(ip, header.dst_len),
            RuleAttribute::Source(ip) => rule.source = Prefix::new(ip, header.src_len),
            RuleAttribute::Iifname(name) => rule.input = Some(name),
            RuleAttribute::Oifname(name) => rule.output = Some(name),
            RuleAttribute::Goto(priority) => target = priority,
            RuleAttribute::Priority(priority) => rule.priority = priority,
            RuleAttribute::FwMark(mark) => rule.mark = mark,
            RuleAttribute::FwMask(all) => mask = Some(all),
            RuleAttribute::Table(number) => table = number,
            RuleAttribute::SuppressPrefixLen(length) => {
                rule.suppressed = Some(length).filter(|length| *length != NO_LENGTH);
            }
            // Packets of the kernel itself count as user 0's.
            RuleAttribute::UidRange(range) => rule.narrow |= range.start != 0,
            RuleAttribute::L3MDev(vrf) => rule.narrow |= vrf,
            RuleAttribute::SuppressIfGroup(group) => rule.narrow |= group != NO_LENGTH,
            RuleAttribute::TunId(_)
            | RuleAttribute::IpProtocol(_)
            | RuleAttribute::SourcePortRange(_)
            | RuleAttribute::DestinationPortRange(_) => rule.narrow = true,
            other => rule.narrow |= other.kind() >= DSCP,
        }
    }
    rule.mask = mask.unwrap_or(if rule.mark == 0 { 0 } else { u32::MAX });
    rule.action = match header.action {
        RuleAction::ToTable => Action::Table(table),
        RuleAction::Goto => Action::Goto(target),
        RuleAction::Blackhole => Action::Blackhole,
        RuleAction::Unreachable => Action::Unreachable,
        RuleAction::Prohibit => Action::Prohibit,
        _ => Action::Nop,
    };
    Some(rule)
}
