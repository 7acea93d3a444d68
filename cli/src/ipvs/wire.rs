//! Netlink messages and attributes, and how IPVS encodes numbers and addresses in them.
//!
//! The code is pure and reads only the bytes received. A message that is cut or too long is an
//! error.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::{NetlinkBuffer, NlasIterator};

use super::Failure;

// `linux/netlink.h`.
const ERROR: u16 = 2;
const DONE: u16 = 3;
pub(super) const REQUEST: u16 = 0x1;
pub(super) const ACK: u16 = 0x4;
pub(super) const DUMP: u16 = 0x300;
pub(super) const NESTED: u16 = 0x8000;
const HEADER: usize = 16;
/// The command and the version of a generic message, and two reserved bytes.
const GENERIC_HEADER: usize = 4;

pub(super) const AF_INET: u16 = libc::AF_INET as u16;
pub(super) const AF_INET6: u16 = libc::AF_INET6 as u16;

/// Whether the answer ends with this datagram. A message never spans two datagrams.
pub(super) fn is_end(datagram: &[u8]) -> Result<bool, Failure> {
    for message in Messages(datagram) {
        if matches!(message?.message_type(), ERROR | DONE) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Returns the body that follows the generic header of each message of this kind, up to the end of
/// the answer. An error from the kernel is returned as an error.
pub(super) fn bodies(answer: &[u8], kind: u16) -> Result<Vec<&[u8]>, Failure> {
    let mut bodies = Vec::new();
    for message in Messages(answer) {
        let message = message?;
        let payload = message.payload();
        match message.message_type() {
            // Both kinds begin with a negative error number, or with zero for success.
            ERROR | DONE => {
                let code = payload.get(..4).and_then(u32_of);
                return match code.unwrap_or(0).cast_signed().wrapping_neg() {
                    0 => Ok(bodies),
                    libc::EPERM => Err(Failure::NotPermitted),
                    errno => Err(io::Error::from_raw_os_error(errno).into()),
                };
            }
            other if other == kind => {
                let body = payload.get(GENERIC_HEADER..);
                bodies.push(body.ok_or_else(|| broken("a message that is cut short"))?);
            }
            other => return Err(broken(&format!("a message of type {other}"))),
        }
    }
    Err(broken("the answer is incomplete"))
}

/// Splits messages that follow one another, each at a multiple of four bytes.
struct Messages<'a>(&'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Result<NetlinkBuffer<&'a [u8]>, Failure>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = std::mem::take(&mut self.0);
        if rest.is_empty() {
            return None;
        }
        let message = match NetlinkBuffer::new_checked(rest) {
            Ok(message) => message,
            Err(error) => return Some(Err(broken(&error.to_string()))),
        };
        let length = message.length() as usize;
        self.0 = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Ok(message))
    }
}

/// The attributes of one level. Of two with the same kind the last one counts, as in the kernel.
pub(super) struct Attributes<'a>(Vec<(u16, &'a [u8])>);

impl<'a> Attributes<'a> {
    pub(super) fn read(body: &'a [u8]) -> Result<Self, Failure> {
        let mut found = Vec::new();
        for attribute in NlasIterator::new(body) {
            let attribute = attribute.map_err(|error| broken(&error.to_string()))?;
            let value = 4..4 + attribute.value_length();
            let value = attribute.into_inner().get(value).unwrap_or_default();
            found.push((attribute.kind(), value));
        }
        Ok(Self(found))
    }

    pub(super) fn get(&self, kind: u16) -> Option<&'a [u8]> {
        let mut backwards = self.0.iter().rev();
        let found = backwards.find(|(known, _)| *known == kind);
        found.map(|(_, value)| *value)
    }

    pub(super) fn nested(&self, kind: u16) -> Result<Attributes<'a>, Failure> {
        Attributes::read(self.get(kind).ok_or_else(|| missing(kind))?)
    }

    /// The value of an optional attribute.
    pub(super) fn may<T>(
        &self,
        kind: u16,
        of: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Option<T>, Failure> {
        let unreadable = || broken(&format!("attribute {kind} has a wrong length"));
        let value = self.get(kind);
        value
            .map(|value| of(value).ok_or_else(unreadable))
            .transpose()
    }

    pub(super) fn must<T>(&self, kind: u16, of: impl Fn(&[u8]) -> Option<T>) -> Result<T, Failure> {
        self.may(kind, of)?.ok_or_else(|| missing(kind))
    }
}

pub(super) fn u8_of(bytes: &[u8]) -> Option<u8> {
    Some(u8::from_ne_bytes(bytes.try_into().ok()?))
}

pub(super) fn u16_of(bytes: &[u8]) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.try_into().ok()?))
}

pub(super) fn u32_of(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

/// A number in network order.
pub(super) fn port_of(bytes: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.try_into().ok()?))
}

/// A number in network order.
pub(super) fn ipv4_of(bytes: &[u8]) -> Option<Ipv4Addr> {
    Some(<[u8; 4]>::try_from(bytes).ok()?.into())
}

/// A text that ends with a zero byte.
pub(super) fn text_of(bytes: &[u8]) -> Option<String> {
    let text = bytes.split(|byte| *byte == 0).next()?;
    Some(String::from_utf8_lossy(text).into_owned())
}

/// `union nf_inet_addr`: sixteen bytes. An IPv4 address uses the first four.
pub(super) fn address(family: u16, bytes: Option<&[u8]>) -> Result<IpAddr, Failure> {
    let bytes = bytes.and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
    let bytes = bytes.ok_or_else(|| broken("an address of other than sixteen bytes"))?;
    match family {
        AF_INET => {
            let [a, b, c, d, ..] = bytes;
            Ok(Ipv4Addr::new(a, b, c, d).into())
        }
        AF_INET6 => Ok(Ipv6Addr::from(bytes).into()),
        other => Err(broken(&format!("address family {other}"))),
    }
}

pub(super) fn union_of(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&address.octets());
            bytes
        }
        IpAddr::V6(address) => address.octets(),
    }
}

/// Builds a whole message: the netlink header, the generic header, and attributes. The socket has
/// one request at a time, so the sequence number need not tell answers apart.
pub(super) fn request(
    kind: u16,
    flags: u16,
    [command, version]: [u8; 2],
    attributes: &[u8],
) -> Vec<u8> {
    let length = HEADER + GENERIC_HEADER + attributes.len();
    // No request is longer than a hundred bytes.
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    let mut message = Vec::new();
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    // The sequence number and the port id. The kernel repeats the first and fills in the second.
    message.extend([0; 8]);
    message.extend([command, version, 0, 0]);
    message.extend(attributes);
    message
}

/// Appends an attribute and the padding after it.
pub(super) fn put(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    body.extend(length.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

fn missing(kind: u16) -> Failure {
    broken(&format!("attribute {kind} is missing"))
}

pub(super) fn broken(text: &str) -> Failure {
    Failure::Broken(text.to_owned())
}
