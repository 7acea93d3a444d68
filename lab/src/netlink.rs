//! A netlink socket of one network namespace, for one request at a time.
//!
//! A netlink socket belongs to the namespace in which it was opened, whichever thread uses it
//! later. Nothing in this file is asynchronous, so a host can be set up from any thread and any
//! runtime.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket,
    sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

/// The limit for an answer. The kernel answers at once, so a longer silence is reported as a fault.
const ANSWER_LIMIT_S: i64 = 10;
/// The largest netlink datagram that the kernel builds for a dump.
const DATAGRAM_BYTES: usize = 64 * 1024;

/// What a request does if the object exists already, or does not exist.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mode {
    Create,
    Replace,
    Change,
    Dump,
}

impl Mode {
    fn flags(self) -> u16 {
        match self {
            Mode::Create => NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL,
            Mode::Replace => NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE,
            Mode::Change => NLM_F_REQUEST | NLM_F_ACK,
            Mode::Dump => NLM_F_REQUEST | NLM_F_DUMP,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
    datagram: Vec<u8>,
}

impl Netlink {
    /// Opens a socket in the namespace of the calling thread.
    pub(crate) fn open() -> Result<Netlink> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )
        .context("cannot open a netlink socket")?;
        setsockopt(
            &socket,
            sockopt::ReceiveTimeout,
            &TimeVal::seconds(ANSWER_LIMIT_S),
        )
        .context("cannot limit the wait for netlink answers")?;
        Ok(Netlink {
            socket,
            sequence: 0,
            datagram: vec![0; DATAGRAM_BYTES],
        })
    }

    /// Sends one request and returns the kernel's answers, without acknowledgements.
    pub(crate) fn ask(
        &mut self,
        request: RouteNetlinkMessage,
        mode: Mode,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut message = NetlinkMessage::from(request);
        message.header.flags = mode.flags();
        message.header.sequence_number = self.sequence;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        send(self.socket.as_raw_fd(), &bytes, MsgFlags::empty())?;

        let mut answers = Vec::new();
        while !self.receive(&mut answers)? {}
        Ok(answers)
    }

    /// Reads one datagram. Returns true if it ended the answer.
    fn receive(&mut self, answers: &mut Vec<RouteNetlinkMessage>) -> io::Result<bool> {
        let socket = self.socket.as_raw_fd();
        let length = match recv(socket, &mut self.datagram, MsgFlags::empty()) {
            // A signal interrupted the call. The answer is still to come.
            Err(Errno::EINTR) => return Ok(false),
            result => result?,
        };
        let mut rest = self.datagram.get(..length).unwrap_or_default();
        while !rest.is_empty() {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
            let step = (message.header.length as usize).next_multiple_of(4).max(4);
            rest = rest.get(step..).unwrap_or_default();
            // An answer to an earlier request that timed out may still arrive.
            if message.header.sequence_number != self.sequence {
                continue;
            }
            match message.payload {
                NetlinkPayload::InnerMessage(answer) => answers.push(answer),
                NetlinkPayload::Done(_) => return Ok(true),
                NetlinkPayload::Error(error) => match error.code {
                    None => return Ok(true),
                    Some(code) => return Err(io::Error::from_raw_os_error(-code.get())),
                },
                _ => {}
            }
        }
        Ok(false)
    }
}
