//! The XDP features of devices, from the family `netdev` of generic netlink (Linux 6.3).

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto,
    setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

// `linux/genetlink.h`, `linux/netlink.h`, `linux/netdev.h`.
const CONTROL: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
const REQUEST: u16 = 1;
const DUMP: u16 = 0x300;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const DEVICE_GET: u8 = 1;
const INTERFACE: u16 = 1;
const XDP_FEATURES: u16 = 3;

/// The header of a message and of its family.
const HEADER: usize = 20;

/// Why the kernel's list of XDP features cannot be read.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the text of each variant describes it")]
pub enum Error {
    #[error("cannot open a netlink socket")]
    Socket(#[source] Errno),
    #[error("the kernel does not name the family netdev")]
    NoFamily,
    #[error("cannot ask")]
    Ask(#[source] Errno),
    #[error("the kernel does not answer")]
    Silent(#[source] Errno),
    #[error("the kernel refuses")]
    Refused(#[source] io::Error),
}

/// The XDP features of every device of this thread's network namespace, by index.
pub fn all() -> Result<BTreeMap<u32, u64>, Error> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkGeneric,
    )
    .map_err(Error::Socket)?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(1)).map_err(Error::Socket)?;
    let mut family = None;
    let name = attribute(FAMILY_NAME, b"netdev\0");
    ask(&socket, CONTROL, GET_FAMILY, 0, &name, |attributes| {
        family = number(attributes, FAMILY_ID);
    })?;
    let Some(family) = family.and_then(|family| u16::try_from(family).ok()) else {
        return Err(Error::NoFamily);
    };
    let mut all = BTreeMap::new();
    ask(&socket, family, DEVICE_GET, DUMP, &[], |attributes| {
        let interface = number(attributes, INTERFACE).and_then(|index| u32::try_from(index).ok());
        if let (Some(interface), Some(features)) = (interface, number(attributes, XDP_FEATURES)) {
            all.insert(interface, features);
        }
    })?;
    Ok(all)
}

/// Sends a request, and calls `each` with the attributes of each message of the answer.
fn ask(
    socket: &OwnedFd,
    family: u16,
    command: u8,
    flags: u16,
    attributes: &[u8],
    mut each: impl FnMut(&[u8]),
) -> Result<(), Error> {
    let length = (HEADER + attributes.len()) as u32;
    let mut question = Vec::new();
    question.extend(length.to_ne_bytes());
    question.extend(family.to_ne_bytes());
    question.extend((REQUEST | flags).to_ne_bytes());
    question.extend([0; 8]);
    question.extend([command, 1, 0, 0]);
    question.extend(attributes);
    let kernel = NetlinkAddr::new(0, 0);
    sendto(socket.as_raw_fd(), &question, &kernel, MsgFlags::empty()).map_err(Error::Ask)?;
    let mut room = vec![0; 1 << 16];
    loop {
        let length =
            recv(socket.as_raw_fd(), &mut room, MsgFlags::empty()).map_err(Error::Silent)?;
        let mut rest = room.get(..length).unwrap_or_default();
        while let Some((kind, message, behind)) = message(rest) {
            match kind {
                DONE => return Ok(()),
                ERROR => {
                    let code = message.get(16..20).and_then(|code| code.try_into().ok());
                    let code = i32::from_ne_bytes(code.unwrap_or_default());
                    return Err(Error::Refused(io::Error::from_raw_os_error(-code)));
                }
                _ => each(message.get(HEADER..).unwrap_or_default()),
            }
            rest = behind;
        }
        if flags & DUMP == 0 {
            return Ok(());
        }
    }
}

/// The first message of an answer: its type, its bytes, and the bytes behind it.
fn message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let whole = bytes.get(..length).filter(|_| length >= 16)?;
    let behind = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, whole, behind))
}

/// The number in the attribute of this type.
fn number(mut attributes: &[u8], wanted: u16) -> Option<u64> {
    loop {
        let length = u16::from_ne_bytes(attributes.get(..2)?.try_into().ok()?) as usize;
        let kind = u16::from_ne_bytes(attributes.get(2..4)?.try_into().ok()?);
        let value = attributes.get(4..length)?;
        if kind & 0x3fff == wanted {
            return match *value {
                [a, b] => Some(u16::from_ne_bytes([a, b]).into()),
                [a, b, c, d] => Some(u32::from_ne_bytes([a, b, c, d]).into()),
                _ => Some(u64::from_ne_bytes(value.try_into().ok()?)),
            };
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend((4 + value.len() as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::{attribute, message, number};

    #[test]
    fn numbers_are_found_among_other_attributes() {
        let attributes = [
            attribute(1, &7u32.to_ne_bytes()),
            attribute(2, b"odd"),
            attribute(3, &5u64.to_ne_bytes()),
        ]
        .concat();

        assert_eq!(number(&attributes, 1), Some(7));
        assert_eq!(number(&attributes, 3), Some(5));
        assert_eq!(number(&attributes, 4), None);
    }

    #[test]
    fn broken_answers_end() {
        assert_eq!(number(&[0, 0, 1, 0], 2), None);
        assert_eq!(number(&[4, 0], 1), None);
        assert!(message(&[0; 16]).is_none());
        assert!(message(&[200, 0, 0, 0, 2, 0, 0, 0]).is_none());
    }
}
