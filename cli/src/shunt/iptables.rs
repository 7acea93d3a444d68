//! Reads the MARK rules of an `iptables-save` text as rules of Shunt.
//!
//! A rule may match address, protocol, ports, source and device, as the recipes for Linux Virtual
//! Server do (iptables-extensions(8): tcp, udp, sctp, multiport, MARK). A rule with any other match
//! would be narrower than Shunt's, so it is left out, with the reason.

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;

use shunt_model::mark::{MarkRule, Ports, Target};
use shunt_model::origin::{Network, UnreadableOrigin};
use shunt_model::{Origin, Protocol};

use super::fwmark::read_mark;

/// The rules of a text.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub rules: Vec<MarkRule>,
    pub left: Vec<Left>,
}

/// A MARK rule that is left out.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Left {
    /// The line number, from 1.
    pub line: usize,
    pub why: String,
}

/// Reads the rules that set a mark.
pub(super) fn marks(text: &str) -> Found {
    let mut found = Found::default();
    for (line, rule) in (1..).zip(text.lines()) {
        let words: Vec<&str> = rule.split_whitespace().collect();
        let sets = words.windows(2).any(|pair| pair == ["-j", "MARK"]);
        if !sets || words.first().is_some_and(|word| word.starts_with('#')) {
            continue;
        }
        match read(&words) {
            Ok(rules) => found.rules.extend(rules),
            Err(why) => found.left.push(Left { line, why }),
        }
    }
    found
}

#[derive(Default)]
struct Rule {
    protocol: Option<Protocol>,
    address: Option<IpAddr>,
    ports: Vec<Ports>,
    mark: Option<NonZeroU32>,
    origin: Origin,
}

fn read(words: &[&str]) -> Result<Vec<MarkRule>, String> {
    let mut rule = Rule::default();
    let mut words = words.iter().copied();
    while let Some(word) = words.next() {
        // These words have no value, or do not matter here.
        if matches!(
            word,
            "-m" | "--match" | "-j" | "--jump" | "-t" | "iptables" | "ip6tables"
        ) {
            if word == "-t" && words.next() != Some("mangle") {
                return Err("it is not in the table mangle".to_owned());
            } else if word != "-t" && !word.starts_with("ip") {
                words.next();
            }
            continue;
        }
        let value = words.next().ok_or_else(|| format!("{word} has no value"))?;
        option(&mut rule, word, value)?;
    }
    let protocol = rule
        .protocol
        .ok_or("it has no protocol of tcp, udp or sctp")?;
    let address = rule.address.ok_or("it has no destination address")?;
    let mark = rule.mark.ok_or("it sets no mark")?;
    if rule.ports.is_empty() {
        rule.ports.push(Ports::EVERY);
    }
    let target = |ports| Target {
        protocol,
        address,
        ports,
    };
    let ports = rule.ports.into_iter();
    let rules = ports.map(|ports| MarkRule {
        mark,
        target: target(ports),
        origin: rule.origin,
    });
    Ok(rules.collect())
}

fn option(rule: &mut Rule, word: &str, value: &str) -> Result<(), String> {
    match word {
        "-A" | "--append" if value == "PREROUTING" => {}
        "-A" | "--append" => return Err(format!("the chain {value} is not PREROUTING")),
        "-p" | "--protocol" => {
            rule.protocol = match value {
                "tcp" | "6" => Some(Protocol::Tcp),
                "udp" | "17" => Some(Protocol::Udp),
                "sctp" | "132" => Some(Protocol::Sctp),
                _ => return Err(format!("no service can have the protocol {value}")),
            }
        }
        "-d" | "--destination" => rule.address = Some(one_address(value)?),
        "-s" | "--source" => rule.origin.network = Some(network(value)?),
        "-i" | "--in-interface" if value.ends_with('+') => {
            return Err(format!("{word} {value} matches many devices"));
        }
        "-i" | "--in-interface" => {
            let device = value
                .parse()
                .map_err(|_| format!("{value} is not a device"))?;
            rule.origin.device = Some(device);
        }
        "--dport" | "--destination-port" | "--dports" | "--destination-ports" => {
            for piece in value.split(',') {
                rule.ports.push(ports(piece)?);
            }
        }
        "--set-mark" | "--set-xmark" => {
            let (mark, mask) = value.split_once('/').unwrap_or((value, "0xffffffff"));
            if mask != "0xffffffff" {
                return Err(format!("it sets only the bits {mask} of the mark"));
            }
            rule.mark = Some(read_mark(mark)?);
        }
        "!" => return Err("it has a negated match (!)".to_owned()),
        _ => return Err(format!("{word} {value} has no equivalent")),
    }
    Ok(())
}

fn one_address(text: &str) -> Result<IpAddr, String> {
    let (address, bits) = text.split_once('/').unwrap_or((text, ""));
    let address: IpAddr = address
        .parse()
        .map_err(|_| format!("{text} is not an address"))?;
    let whole = if address.is_ipv6() { "128" } else { "32" };
    if bits.is_empty() || bits == whole || bits == "255.255.255.255" {
        Ok(address)
    } else {
        Err(format!(
            "{text} is a network, but a rule is for one address"
        ))
    }
}

/// A network as iptables writes it, with a prefix length or a mask.
fn network(text: &str) -> Result<Network, String> {
    let (address, bits) = text.split_once('/').unwrap_or((text, ""));
    let mask: Option<Ipv4Addr> = bits.parse().ok();
    let text = match mask.map(u32::from) {
        Some(mask) if mask.leading_ones() + mask.trailing_zeros() >= 32 => {
            format!("{address}/{}", mask.leading_ones())
        }
        Some(_) => return Err(format!("{text} is not a network with a contiguous mask")),
        None => text.to_owned(),
    };
    text.parse()
        .map_err(|error: UnreadableOrigin| error.to_string())
}

fn ports(text: &str) -> Result<Ports, String> {
    let (first, last) = text.split_once(':').unwrap_or((text, text));
    match (first.parse(), last.parse()) {
        (Ok(first), Ok(last)) if 0 < first && first <= last => Ok(Ports { first, last }),
        _ => Err(format!("{text} is not a port or a range of ports")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(found: &Found) -> Vec<String> {
        found.rules.iter().map(MarkRule::to_string).collect()
    }

    #[test]
    fn the_recipes_of_linux_virtual_server_are_read() {
        let found = marks(
            "*mangle\n\
             :PREROUTING ACCEPT [0:0]\n\
             -A PREROUTING -d 192.0.2.1/32 -p tcp -m tcp --dport 80 -j MARK --set-xmark 0x7/0xffffffff\n\
             -A PREROUTING -d 192.0.2.1/32 -p tcp -m multiport --dports 443,8000:8010 -j MARK --set-xmark 0x7/0xffffffff\n\
             iptables -t mangle -A PREROUTING -p udp -d 192.0.2.2 -j MARK --set-mark 8\n\
             -A PREROUTING -d 2001:db8::1/128 -p tcp -m tcp --dport 21 -j MARK --set-mark 9\n\
             -A PREROUTING -s 10.0.0.0/8 -d 192.0.2.3/32 -i eth0 -p tcp -m tcp --dport 80 -j MARK --set-mark 1\n\
             iptables -t mangle -A PREROUTING -p udp -s 10.9.0.0/255.255.0.0 -d 192.0.2.3 -j MARK --set-mark 2\n\
             -A PREROUTING -j ACCEPT\n\
             COMMIT\n",
        );
        assert_eq!(
            texts(&found),
            [
                "mark 7 for tcp 192.0.2.1:80",
                "mark 7 for tcp 192.0.2.1:443",
                "mark 7 for tcp 192.0.2.1:8000-8010",
                "mark 8 for udp 192.0.2.2",
                "mark 9 for tcp [2001:db8::1]:21",
                "mark 1 for tcp 192.0.2.3:80 from 10.0.0.0/8 by eth0",
                "mark 2 for udp 192.0.2.3 from 10.9.0.0/16",
            ]
        );
        assert_eq!(found.left, []);
    }

    #[test]
    fn what_would_be_wider_here_is_left_out_with_the_reason() {
        let why = |rule: &str| {
            let found = marks(rule);
            assert_eq!(found.rules, []);
            found.left[0].why.clone()
        };
        assert_eq!(
            why("-A PREROUTING -d 192.0.2.0/24 -p tcp -j MARK --set-mark 1"),
            "192.0.2.0/24 is a network, but a rule is for one address"
        );
        assert_eq!(
            why("-A PREROUTING -i eth+ -d 192.0.2.1 -p tcp -j MARK --set-mark 1"),
            "-i eth+ matches many devices"
        );
        assert_eq!(
            why("-A PREROUTING -d 192.0.2.1 -p tcp --sport 53 -j MARK --set-mark 1"),
            "--sport 53 has no equivalent"
        );
        assert_eq!(
            why("-A OUTPUT -d 192.0.2.1 -p tcp -j MARK --set-mark 1"),
            "the chain OUTPUT is not PREROUTING"
        );
        assert_eq!(
            why("-A PREROUTING -d 192.0.2.1 -p tcp -j MARK --set-xmark 0x1/0xff"),
            "it sets only the bits 0xff of the mark"
        );
        assert_eq!(
            why("-A PREROUTING ! -d 192.0.2.1 -p tcp -j MARK --set-mark 1"),
            "it has a negated match (!)"
        );
        assert_eq!(
            why("-A PREROUTING -p tcp --dport 80 -j MARK --set-mark 1"),
            "it has no destination address"
        );
    }
}
