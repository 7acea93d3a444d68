//! Addresses, ports and numbers as ipvsadm reads them, and as it writes them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use shunt_model::Protocol;

use super::names::Names;

/// What `host[:port]` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// The address, or the first one that the name stands for.
    pub address: IpAddr,
    /// `None` if the text has no port.
    pub port: Option<u16>,
}

/// Reads `host[:port]`. IPv6 needs brackets to have a port, and with brackets it must have one.
pub fn read(text: &str, protocol: Option<Protocol>, names: &dyn Names) -> Option<HostPort> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (host, port) = match text.strip_prefix('[') {
        None => (text, None),
        Some(rest) => {
            let (host, after) = rest.split_once(']')?;
            (host, Some(after.strip_prefix(':')?))
        }
    };
    if let Ok(address) = host.parse::<Ipv6Addr>() {
        let port = match port {
            None => None,
            Some(port) => Some(read_port(port, protocol, names)?),
        };
        return Some(HostPort {
            address: address.into(),
            port,
        });
    }
    // Here brackets count for nothing: what followed them is lost, as it always was.
    let (host, port) = match host.rsplit_once(':') {
        None => (host, None),
        Some((host, port)) => (host, Some(port)),
    };
    let address = read_ipv4(host).or_else(|| names.address(host))?;
    let port = match port {
        None => None,
        Some(port) => Some(read_port(port, protocol, names)?),
    };
    Some(HostPort {
        address: address.into(),
        port,
    })
}

fn read_port(text: &str, protocol: Option<Protocol>, names: &dyn Names) -> Option<u16> {
    match number(text, 0..=65_535) {
        Some(port) => u16::try_from(port).ok(),
        None => names.port(text, protocol?),
    }
}

/// `inet_aton`: one to four parts, each decimal, octal or hexadecimal, the last one filling what
/// the others leave; anything may follow after a space.
#[must_use]
pub fn read_ipv4(text: &str) -> Option<Ipv4Addr> {
    let text = match text.find(|c: char| c.is_ascii_whitespace()) {
        Some(end) => &text[..end],
        None => text,
    };
    let parts: Vec<u64> = text.split('.').map(read_part).collect::<Option<_>>()?;
    let (&last, leading) = parts.split_last()?;
    if leading.len() > 3 || leading.iter().any(|&part| part > 255) {
        return None;
    }
    let bits_left = 32 - 8 * leading.len();
    if last >> bits_left != 0 {
        return None;
    }
    let high = leading.iter().fold(0, |bits, part| bits << 8 | part) << bits_left;
    u32::try_from(high | last).ok().map(Ipv4Addr::from_bits)
}

fn read_part(text: &str) -> Option<u64> {
    let hexadecimal = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let (digits, base) = match (hexadecimal, text.strip_prefix('0')) {
        (Some(digits), _) => (digits, 16),
        (None, Some(digits)) if !digits.is_empty() => (digits, 8),
        (None, _) => (text, 10),
    };
    if digits.starts_with('+') {
        return None;
    }
    u64::from_str_radix(digits, base).ok()
}

/// A mask of granularity: an address in any of its forms, or a host's name.
pub fn read_mask(text: &str, names: &dyn Names) -> Option<Ipv4Addr> {
    read_ipv4(text).or_else(|| names.address(text))
}

/// `strtol` to the end of the text, within a range.
#[must_use]
pub fn number(text: &str, range: RangeInclusive<i64>) -> Option<i64> {
    let text = text.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == '\x0b');
    let number = text.parse().ok()?;
    range.contains(&number).then_some(number)
}

/// `atoi`: what the text begins with, or 0.
#[must_use]
pub fn leading_number(text: &str) -> i64 {
    let text = text.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == '\x0b');
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let end = digits.find(|c: char| !c.is_ascii_digit());
    let length = text.len() - digits.len() + end.unwrap_or(digits.len());
    text[..length].parse().unwrap_or(0)
}

/// ipvsadm cuts an address and its port to this many bytes.
const LONGEST: usize = 59;

/// An address and a port, by name or by number.
pub fn write(
    address: IpAddr,
    port: u16,
    protocol: Option<Protocol>,
    names: Option<&dyn Names>,
) -> String {
    let host = names.and_then(|names| names.host(address));
    let host = host.unwrap_or_else(|| write_address(address));
    let service = names.and_then(|names| names.service(port, protocol?));
    let service = service.unwrap_or_else(|| port.to_string());
    let mut text = match address {
        IpAddr::V4(_) => format!("{host}:{service}"),
        IpAddr::V6(_) => format!("[{host}]:{service}"),
    };
    cut(&mut text, LONGEST);
    text
}

/// Cuts a text to so many bytes, or to the character before.
pub fn cut(text: &mut String, most: usize) {
    if text.len() > most {
        text.truncate(text.floor_char_boundary(most));
    }
}

/// `inet_ntop`, which writes IPv4-compatible addresses with dots.
fn write_address(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => {
            let bits = address.to_bits();
            let low = u32::try_from(bits).unwrap_or(0);
            if low > 0xffff {
                return format!("::{}", Ipv4Addr::from_bits(low));
            }
            address.to_string()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // inet_aton(3).
    #[test]
    fn an_ipv4_address_has_one_to_four_parts_of_three_bases() {
        let read = |text| read_ipv4(text).map(|address| address.to_string());
        for (text, address) in [
            ("10.258", "10.0.1.2"),
            ("0x0a000164", "10.0.1.100"),
            ("012.0.1.100", "10.0.1.100"),
            ("10.0.1", "10.0.0.1"),
            ("24", "0.0.0.24"),
            ("0", "0.0.0.0"),
            ("10.0.0.1 and more", "10.0.0.1"),
        ] {
            assert_eq!(read(text).as_deref(), Some(address), "{text}");
        }
        for text in [
            "",
            "10.0.1.256",
            "1.2.3.4.5",
            "10..1",
            "08.1",
            "0x",
            "+1",
            "4294967296",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn a_number_may_have_spaces_before_it_but_nothing_behind() {
        assert_eq!(number(" +3", 0..=9), Some(3));
        for text in ["", "3 ", "1.5", "0x10", "10", "99999999999999999999"] {
            assert_eq!(number(text, 0..=9), None, "{text}");
        }
        assert_eq!(leading_number("64bits"), 64);
        assert_eq!(leading_number("bits"), 0);
    }

    // glibc writes ::a.b.c.d, Rust does not.
    #[test]
    fn a_compatible_ipv6_address_is_written_with_dots() {
        let written = |text: &str| write_address(text.parse().unwrap());
        assert_eq!(written("::10.0.1.100"), "::10.0.1.100");
        assert_eq!(written("::ffff:10.0.1.100"), "::ffff:10.0.1.100");
        assert_eq!(written("::1"), "::1");
        assert_eq!(written("fd00:0:0:1::"), "fd00:0:0:1::");
    }
}
