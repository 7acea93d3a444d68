//! A netlink socket in the network namespace of this process.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, connect, recv, send,
    setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

use super::{Failure, Ipvs, wire};

/// The kernel answers at once or not at all.
const PATIENCE: Duration = Duration::from_secs(10);
/// Larger than any datagram that the kernel sends (`NLMSG_GOODSIZE`, at most 32 KiB in a dump).
const DATAGRAM: usize = 64 << 10;
/// The limit of one answer. A million services take less.
const LONGEST_ANSWER: usize = 1 << 30;

/// Reads the IPVS table of this namespace.
pub fn read() -> Result<Ipvs, Failure> {
    let socket = open().map_err(io::Error::from)?;
    super::read(&mut |question| ask(&socket, question))
}

fn open() -> nix::Result<OwnedFd> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkGeneric,
    )?;
    let patience = TimeVal::new(PATIENCE.as_secs().cast_signed(), 0);
    setsockopt(&socket, sockopt::ReceiveTimeout, &patience)?;
    // The socket sends to the kernel and receives only from it.
    connect(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    Ok(socket)
}

fn ask(socket: &OwnedFd, question: &[u8]) -> Result<Vec<u8>, Failure> {
    let number = socket.as_raw_fd();
    send(number, question, MsgFlags::empty()).map_err(io::Error::from)?;
    let mut answer = Vec::new();
    let mut datagram = vec![0; DATAGRAM];
    loop {
        let length = match recv(number, &mut datagram, MsgFlags::MSG_TRUNC) {
            Ok(length) => length,
            Err(Errno::EINTR) => continue,
            Err(error) => return Err(io::Error::from(error).into()),
        };
        let Some(bytes) = datagram.get(..length) else {
            return Err(Failure::Broken(format!("{length} bytes at once")));
        };
        answer.extend_from_slice(bytes);
        if wire::is_end(bytes)? {
            return Ok(answer);
        }
        if answer.len() > LONGEST_ANSWER {
            let text = format!("an answer of more than {LONGEST_ANSWER} bytes");
            return Err(Failure::Broken(text));
        }
    }
}
