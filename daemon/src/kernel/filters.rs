//! Whether a filter of tc still stands on its device.
//!
//! Before Linux 6.6 tc has no links: a program is a filter of the device's own, and nobody tells of
//! a filter that somebody deletes.

use std::ffi::CStr;
use std::io;
use std::os::fd::AsRawFd;

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};

use crate::netlink::attributes;

/// The side of a device, as the parent of its filters (`linux/pkt_sched.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Side {
    /// Frames that come in by the device.
    Ingress = 0xffff_fff2,
    /// Frames that leave by the device.
    Egress = 0xffff_fff3,
}

// `linux/netlink.h` and `linux/rtnetlink.h`.
const REQUEST_DUMP: u16 = 0x301;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const NEW_FILTER: u16 = 44;
const GET_FILTER: u16 = 46;
/// `TCA_OPTIONS` and, in it, `TCA_BPF_NAME`.
const OPTIONS: u16 = 2;
const NAME: u16 = 7;
/// `struct nlmsghdr` and `struct tcmsg`.
const HEADER: usize = 16;
const MESSAGE: usize = 20;

/// Whether a device has a filter of this name on this side. One answer of the kernel has as many
/// filters as fit, and the last one says so.
pub fn stands(interface: u32, side: Side, name: &str) -> io::Result<bool> {
    let kernel = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )?;
    send(
        kernel.as_raw_fd(),
        &request(interface, side),
        MsgFlags::empty(),
    )?;
    let mut answer = vec![0; 1 << 16];
    let mut is_found = false;
    loop {
        let length = recv(kernel.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        let answer = answer.get(..length).unwrap_or_default();
        if answer.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for (kind, body) in messages(answer) {
            match kind {
                NEW_FILTER => is_found |= named(body) == Some(name),
                DONE => return Ok(is_found),
                ERROR => return Err(refusal(body)),
                _ => {}
            }
        }
    }
}

fn request(interface: u32, side: Side) -> [u8; HEADER + MESSAGE] {
    let mut request = [0; HEADER + MESSAGE];
    let mut put = |at: usize, bytes: &[u8]| {
        if let Some(place) = request.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    };
    put(0, &((HEADER + MESSAGE) as u32).to_ne_bytes());
    put(4, &GET_FILTER.to_ne_bytes());
    put(6, &REQUEST_DUMP.to_ne_bytes());
    put(HEADER + 4, &interface.to_ne_bytes());
    put(HEADER + 12, &(side as u32).to_ne_bytes());
    request
}

/// The messages of an answer: type and body.
fn messages(answer: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = answer;
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(rest.get(..4)?.try_into().ok()?) as usize;
        let kind = u16::from_ne_bytes(rest.get(4..6)?.try_into().ok()?);
        let body = rest.get(HEADER..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, body))
    })
}

/// The name of a filter's program.
fn named(body: &[u8]) -> Option<&str> {
    let mut filter = attributes(body.get(MESSAGE..)?);
    let (_, options) = filter.find(|(kind, _)| *kind == OPTIONS)?;
    let (_, name) = attributes(options).find(|(kind, _)| *kind == NAME)?;
    CStr::from_bytes_until_nul(name).ok()?.to_str().ok()
}

fn refusal(body: &[u8]) -> io::Error {
    let code = body.get(..4).and_then(|code| code.try_into().ok());
    io::Error::from_raw_os_error(code.map_or(0, |code| -i32::from_ne_bytes(code)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_filter_is_read_and_what_is_cut_is_nobodys() {
        let attribute = |kind: u16, value: &[u8]| {
            let length = (4 + value.len()) as u16;
            let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
            bytes.extend_from_slice(value);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes
        };
        let options = attribute(NAME, b"director_leave\0");
        let mut body = vec![0; MESSAGE];
        body.extend(attribute(1, b"bpf\0"));
        body.extend(attribute(OPTIONS, &options));
        assert_eq!(named(&body), Some("director_leave"));
        for length in 0..body.len() {
            assert_eq!(named(&body[..length]), None, "{length}");
        }
    }
}
