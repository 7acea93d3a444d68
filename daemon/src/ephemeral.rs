//! The ports that the kernel gives to this machine's own connections. If full NAT used them too, an
//! answer to such a connection would be taken for an answer to a client.

use std::fs;

use shunt_model::LocalAddress;
use shunt_model::warning::Warning;

/// A warning for each local address of full NAT with such ports. The kernel uses the same ports for
/// both families.
#[must_use]
pub(crate) fn warnings(locals: impl Iterator<Item = LocalAddress>) -> Vec<Warning> {
    let read = |name: &str| fs::read_to_string(format!("/proc/sys/net/ipv4/{name}"));
    let (Ok(range), Ok(reserved)) = (read("ip_local_port_range"), read("ip_local_reserved_ports"))
    else {
        return Vec::new();
    };
    let Some(own) = Own::read(&range, &reserved) else {
        return Vec::new();
    };
    locals.filter_map(|local| own.warning(local)).collect()
}

/// The ports of the machine's own connections.
#[derive(Debug)]
struct Own {
    first: u16,
    last: u16,
    /// The ports within the range that the kernel gives to no connection.
    reserved: Vec<(u16, u16)>,
}

impl Own {
    /// Parses `range`, two numbers, and `reserved`, a list of ranges and numbers with commas.
    fn read(range: &str, reserved: &str) -> Option<Self> {
        let mut ends = range.split_whitespace().map(str::parse);
        let (Some(Ok(first)), Some(Ok(last))) = (ends.next(), ends.next()) else {
            return None;
        };
        let piece = |text: &str| {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            Some((first.parse().ok()?, last.parse().ok()?))
        };
        let reserved = reserved.trim().split(',').filter_map(piece).collect();
        Some(Self {
            first,
            last,
            reserved,
        })
    }

    fn warning(&self, local: LocalAddress) -> Option<Warning> {
        let is_given = |port: &u16| {
            let is_in = |(first, last): &(u16, u16)| (*first..=*last).contains(port);
            !self.reserved.iter().any(is_in)
        };
        let from = local.ports.first.max(self.first);
        let to = local.ports.last.min(self.last);
        let port = (from..=to).find(is_given)?;
        Some(Warning::LocalPortsShared {
            local,
            port,
            range: (self.first, self.last),
            shared: (from, to),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warned(ports: &str, reserved: &str) -> Option<(u16, (u16, u16))> {
        let own = Own::read("32768\t60999\n", reserved).unwrap();
        let warning = own.warning(LocalAddress {
            address: [10, 1, 0, 99].into(),
            ports: ports.parse().unwrap(),
        });
        warning.map(|warning| match warning {
            Warning::LocalPortsShared { port, shared, .. } => (port, shared),
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn only_ports_that_the_kernel_gives_away_are_warned_of() {
        assert_eq!(warned("1024-32767", "\n"), None);
        assert_eq!(warned("61000-65535", "\n"), None);
        let all = (32768, 40000);
        assert_eq!(warned("1024-40000", "\n"), Some((32768, all)));
        assert_eq!(warned("1024-40000", "80,32768-40000\n"), None);
        let some = warned("1024-40000", "32768-33000,33002\n");
        assert_eq!(some, Some((33001, all)));
    }
}
