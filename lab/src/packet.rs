//! Whole frames of a device, sent as crafted and received as they arrive (AF_PACKET).

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, send, setsockopt, socket, sockopt,
};

use crate::host::Host;

/// Larger than any frame, also than the super-packets of GRO.
const FRAME_BYTES: usize = 128 * 1024;
/// Buffer for frames that arrive before the reader reads them.
const QUEUE_BYTES: libc::c_int = 16 * 1024 * 1024;
/// Once its time is over, a reader examines at most this many frames of the queue.
const LATE_FRAMES: usize = 10_000;
const VLAN_TAG: [u8; 2] = [0x81, 0x00];

/// A frame that a device received or sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    /// The bytes from the Ethernet header on. A VLAN tag that the kernel removed is put back.
    pub frame: Vec<u8>,
    /// Whether the device sent the frame; otherwise it received it.
    pub outgoing: bool,
    /// Whether the checksum was left to hardware offload. It is then unfinished, not wrong.
    pub checksum_unfinished: bool,
}

/// Sends and receives whole frames on one device.
#[derive(Debug)]
pub struct PacketSocket {
    socket: OwnedFd,
    device: String,
    buffer: Vec<u8>,
}

impl PacketSocket {
    /// Opens a socket that receives everything on the device from this moment, for any destination.
    pub fn open(host: &Host, device: &str) -> Result<PacketSocket> {
        let index = host.link(device)?.index;
        let socket = host.run(|| {
            open(index).with_context(|| format!("cannot open a packet socket on {device}"))
        })?;
        Ok(PacketSocket {
            socket,
            device: device.to_owned(),
            buffer: vec![0; FRAME_BYTES],
        })
    }

    /// Gives every frame sent after this call this firewall mark, which holds within the namespace.
    pub fn mark(&self, mark: u32) -> Result<()> {
        setsockopt(&self.socket, sockopt::Mark, &mark)
            .with_context(|| format!("cannot mark frames on {}", self.device))
    }

    /// Sends a frame with its headers as they are.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        send(self.socket.as_raw_fd(), frame, MsgFlags::empty())
            .map(drop)
            .with_context(|| format!("cannot send {} bytes on {}", frame.len(), self.device))
    }

    /// Returns the next frame for which `wanted` holds, or `None` if none arrives within `limit`.
    pub fn receive(
        &mut self,
        limit: Duration,
        mut wanted: impl FnMut(&Captured) -> bool,
    ) -> Result<Option<Captured>> {
        let end = Instant::now() + limit;
        let mut late = 0;
        while late < LATE_FRAMES {
            let left = end.saturating_duration_since(Instant::now());
            late += usize::from(left.is_zero());
            let Some(captured) = self.next(left)? else {
                return Ok(None);
            };
            if wanted(&captured) {
                return Ok(Some(captured));
            }
        }
        Ok(None)
    }

    /// Discards the frames received so far.
    pub fn clear(&mut self) -> Result<()> {
        while self.next(Duration::ZERO)?.is_some() {}
        Ok(())
    }

    fn next(&mut self, limit: Duration) -> Result<Option<Captured>> {
        let limit = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
        let mut ready = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        let ready = match poll(&mut ready, limit) {
            // A signal interrupted the wait, which begins again.
            Err(Errno::EINTR) => poll(&mut ready, limit),
            result => result,
        };
        if ready.context("cannot wait for frames")? == 0 {
            return Ok(None);
        }
        take(&self.socket, &mut self.buffer)
            .map(Some)
            .with_context(|| format!("cannot receive on {}", self.device))
    }
}

fn open(index: u32) -> Result<OwnedFd> {
    // Without a protocol the socket receives nothing until bind sets device and protocol together.
    let socket = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        None::<SockProtocol>,
    )?;
    option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, QUEUE_BYTES)?;
    option(&socket, libc::SOL_PACKET, libc::PACKET_AUXDATA, 1)?;
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
        sll_ifindex: index as i32,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: the address is a whole sockaddr_ll and its size is passed.
    let bound = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if bound < 0 {
        return Err(io::Error::last_os_error().into());
    }
    let membership = libc::packet_mreq {
        mr_ifindex: index as i32,
        mr_type: libc::PACKET_MR_PROMISC as u16,
        mr_alen: 0,
        mr_address: [0; 8],
    };
    option(
        &socket,
        libc::SOL_PACKET,
        libc::PACKET_ADD_MEMBERSHIP,
        membership,
    )?;
    Ok(socket)
}

fn option<T>(socket: &OwnedFd, level: i32, name: i32, value: T) -> io::Result<()> {
    // SAFETY: the value is plain data for these options, and its size is passed.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if done < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Buffer for one control message, aligned as the kernel writes it.
#[repr(C, align(8))]
struct Control([u8; 64]);

fn take(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<Captured> {
    let mut control = Control([0; 64]);
    let mut piece = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    // SAFETY: zeroes are valid for both; their fields are integers and null pointers.
    let (mut from, mut message): (libc::sockaddr_ll, libc::msghdr) =
        unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
    message.msg_name = (&raw mut from).cast();
    message.msg_namelen = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    message.msg_iov = &raw mut piece;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = size_of::<Control>();
    // SAFETY: all that the message points to outlives the call, and its sizes are passed.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0) };
    if length < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut captured = Captured {
        frame: buffer.get(..length as usize).unwrap_or_default().to_vec(),
        outgoing: from.sll_pkttype == libc::PACKET_OUTGOING,
        checksum_unfinished: false,
    };
    if let Some(extra) = extra(&message) {
        captured.checksum_unfinished = extra.tp_status & libc::TP_STATUS_CSUMNOTREADY != 0;
        if extra.tp_status & libc::TP_STATUS_VLAN_VALID != 0 && captured.frame.len() >= 12 {
            let tag = VLAN_TAG.into_iter().chain(extra.tp_vlan_tci.to_be_bytes());
            captured.frame.splice(12..12, tag);
        }
    }
    Ok(captured)
}

/// The metadata that the kernel delivers with a frame: struct tpacket_auxdata.
fn extra(message: &libc::msghdr) -> Option<libc::tpacket_auxdata> {
    // SAFETY: recvmsg filled in the message, and its control buffer is alive and aligned.
    unsafe {
        let first = libc::CMSG_FIRSTHDR(message).as_ref()?;
        if first.cmsg_level != libc::SOL_PACKET || first.cmsg_type != libc::PACKET_AUXDATA {
            return None;
        }
        let data: *const libc::tpacket_auxdata = libc::CMSG_DATA(first).cast();
        Some(data.read_unaligned())
    }
}
