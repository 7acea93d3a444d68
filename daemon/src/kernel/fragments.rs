//! Later fragments that came before the first fragment of their datagram.
//!
//! The packet path cannot wait, so it copies such a frame to the daemon and drops it. The daemon
//! holds a bounded number of frames (`shunt_control::fragments`), each until the first fragment
//! came, for at most half a second. Then it runs the packet path's program on the frame, with the
//! same tables and counters. It sends the frame that the program returns. If the program passes the
//! frame to the kernel, the frame comes in again by the device by which it came. Without the
//! daemon, these fragments are lost. If there is no room for a fragment, the packet path leaves it
//! to the kernel at once.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Instant;

use aya::Pod;
use aya::maps::{HashMap, Map, MapData, MapError, RingBuf};
use aya::programs::{ProgramError, TestRun, TestRunAttrs, TestRunOptions, Xdp};
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrLike, sendto,
    socket,
};
use shunt_control::fragments::{self as control, Fate};
use shunt_datapath::entry::NONE;
use shunt_datapath::fragment;
use shunt_datapath::host::{Hook, HostFrame};
use shunt_datapath::link;
use shunt_datapath::packet;
use shunt_datapath::table::fragment::{FragmentKey, FragmentValue, told};
use tracing::{debug, warn};

use super::pinned::{self, PASS, XDP, map};
use super::place::Place;
use crate::chain::chain;

/// Why fragments are not held, or why one is lost.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the text of each variant describes it")]
pub enum Error {
    #[error(transparent)]
    Pinned(#[from] pinned::Error),
    #[error("the map {name}")]
    Map {
        name: &'static str,
        source: MapError,
    },
    #[error("cannot open a packet socket (CAP_NET_RAW)")]
    Socket(#[source] Errno),
    #[error("cannot note it")]
    Note(#[source] MapError),
    #[error("cannot run the packet path")]
    Run(#[source] ProgramError),
    #[error("no device has the MAC address to send from")]
    NoDevice,
    #[error("cannot name the device")]
    Unnamed,
    #[error("cannot send")]
    Send(#[source] Errno),
    #[error("cannot give it to the network stack")]
    Receive(#[source] ProgramError),
}

fn of(name: &'static str) -> impl Fn(MapError) -> Error {
    move |source| Error::Map { name, source }
}

/// How often the waiting fragments are checked.
const TURN_MS: u16 = 2;
/// The most bytes that a tunnel adds.
const GROWTH: usize = 64;

/// The length of the note in front of a frame that XDP hands on to tc: the packet path and the
/// interface.
const NOTE: usize = 8;

const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;
const XDP_REDIRECT: u32 = 4;

#[repr(transparent)]
#[derive(Clone, Copy)]
struct Key(FragmentKey);
// SAFETY: integers only, no padding: the size is asserted beside the type.
unsafe impl Pod for Key {}

#[repr(transparent)]
#[derive(Clone, Copy)]
struct Value(FragmentValue);
// SAFETY: integers only, no padding.
unsafe impl Pod for Value {}

/// A fragment that waits.
struct Waiting {
    interface: u32,
    tick: u32,
    key: FragmentKey,
    frame: Vec<u8>,
}

/// A record of the packet path's ring.
struct Held {
    interface: u32,
    tick: u32,
    frame: Vec<u8>,
}

/// The held fragments, with the maps, programs and socket that bring them on.
pub struct Fragments {
    ring: RingBuf<MapData>,
    known: HashMap<MapData, Key, Value>,
    program: Xdp,
    pass: Xdp,
    socket: OwnedFd,
    waiting: control::Fragments<Waiting>,
}

impl Fragments {
    /// Opens the pinned maps and programs. The socket belongs to the network namespace of the
    /// calling thread.
    pub fn open(place: &Place) -> Result<Self, Error> {
        let ring = RingBuf::try_from(Map::RingBuf(map(place, "HELD")?)).map_err(of("HELD"))?;
        let known = Map::LruHashMap(map(place, "FRAGMENTS")?);
        let known = HashMap::try_from(known).map_err(of("FRAGMENTS"))?;
        let socket = socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            None::<SockProtocol>,
        )
        .map_err(Error::Socket)?;
        let program = pinned::xdp(place, XDP)?;
        let pass = pinned::xdp(place, PASS)?;
        Ok(Self {
            ring,
            known,
            program,
            pass,
            socket,
            waiting: control::Fragments::default(),
        })
    }

    /// Runs until the daemon ends, on a thread of its own.
    pub fn run(mut self) {
        loop {
            let wait = if self.waiting.is_empty() {
                1000
            } else {
                TURN_MS
            };
            let fd = self.ring.as_fd();
            let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
            if poll(&mut fds, PollTimeout::from(wait)).is_err() {
                continue;
            }
            self.take_in();
            self.bring();
        }
    }

    fn take_in(&mut self) {
        while self.waiting.has_room() {
            let Some(record) = self.ring.next() else {
                return;
            };
            let Some(held) = read(&record) else {
                continue;
            };
            let Some(key) = key(&held.frame) else {
                continue;
            };
            let fragment = Waiting {
                interface: held.interface,
                tick: held.tick,
                key,
                frame: held.frame,
            };
            self.waiting.hold(fragment, Instant::now());
        }
    }

    fn bring(&mut self) {
        let known = &self.known;
        let due = self
            .waiting
            .due(|fragment| is_known(known, fragment), Instant::now());
        for fate in due {
            let fragment = match fate {
                Fate::Send(fragment) => fragment,
                Fate::GiveUp(fragment) => match self.give_up(&fragment) {
                    Ok(()) => fragment,
                    Err(error) => {
                        warn!(error = chain(&error), "fragment lost: its first never came");
                        continue;
                    }
                },
            };
            if let Err(error) = self.send(&fragment) {
                warn!(error = chain(&error), "fragment not sent on");
            }
        }
    }

    /// Enters a datagram whose first fragment did not come. The kernel gets its fragments.
    fn give_up(&mut self, fragment: &Waiting) -> Result<(), Error> {
        debug!(
            interface = fragment.interface,
            "fragment given up: its first never came"
        );
        let value = FragmentValue {
            tick: fragment.tick,
            server: NONE,
            portless: told::NOTHING,
            ..FragmentValue::default()
        };
        let done = self.known.insert(Key(fragment.key), Value(value), 0);
        done.map_err(Error::Note)
    }

    /// Runs the packet path on a fragment, and sends the result.
    fn send(&self, fragment: &Waiting) -> Result<(), Error> {
        let mut out = vec![0; NOTE + fragment.frame.len() + GROWTH];
        let context = context(fragment);
        let mut after = [0u8; 24];
        let options = TestRunOptions {
            data_in: Some(&fragment.frame),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            ctx_out: Some(&mut after),
            repeat: 1,
            ..TestRunOptions::default()
        };
        let result = self.program.test_run(options).map_err(Error::Run)?;
        out.truncate(result.data_size_out as usize);
        let note = u32::from_ne_bytes([after[0], after[1], after[2], after[3]]) as usize == NOTE;
        let interface = match result.return_value {
            XDP_PASS if note => {
                let to = out.get(4..NOTE).and_then(|to| to.try_into().ok());
                out.drain(..NOTE.min(out.len()));
                u32::from_ne_bytes(to.unwrap_or_default())
            }
            XDP_PASS => return self.receive(fragment),
            XDP_TX => fragment.interface,
            // The program does not return the interface, but the source MAC address identifies it.
            XDP_REDIRECT => owner(&out).ok_or(Error::NoDevice)?,
            _ => return Ok(()),
        };
        // A frame without addresses is for a device without Ethernet headers.
        let (head, packet) = out.split_at(link::HEADER.min(out.len()));
        let [addresses @ .., a, b] = head else {
            return Ok(());
        };
        let is_bare = addresses.iter().all(|byte| *byte == 0);
        let frame = if is_bare { packet } else { &out };
        let ethertype = u16::from_ne_bytes([*a, *b]);
        let to = target(interface, ethertype).ok_or(Error::Unnamed)?;
        sendto(self.socket.as_raw_fd(), frame, &to, MsgFlags::empty()).map_err(Error::Send)?;
        Ok(())
    }

    /// Gives a fragment to the network stack, as a frame that comes in by the same device.
    fn receive(&self, fragment: &Waiting) -> Result<(), Error> {
        let context = context(fragment);
        let options = TestRunOptions {
            data_in: Some(&fragment.frame),
            ctx_in: Some(&context),
            repeat: 1,
            attrs: TestRunAttrs::new().xdp_live_frames(1),
            ..TestRunOptions::default()
        };
        let done = self.pass.test_run(options);
        done.map_err(Error::Receive)?;
        Ok(())
    }
}

/// Whether the packet path has the entry of a fragment's datagram.
fn is_known(known: &HashMap<MapData, Key, Value>, fragment: &Waiting) -> bool {
    let value = known.get(&Key(fragment.key), 0);
    value.is_ok_and(|value| fragment::holds(&value.0, fragment.tick))
}

/// The `struct xdp_md` of a fragment: `data_end` is the frame's length, and `ingress_ifindex` the
/// interface by which it came.
fn context(fragment: &Waiting) -> [u8; 24] {
    let mut context = [0u8; 24];
    let length = u32::try_from(fragment.frame.len()).unwrap_or(u32::MAX);
    for (at, value) in [(4, length), (12, fragment.interface)] {
        if let Some(place) = context.get_mut(at..at + 4) {
            place.copy_from_slice(&value.to_ne_bytes());
        }
    }
    context
}

/// Reads a record of the ring: four numbers, then the frame. A tag that the kernel had taken out of
/// the frame is put back.
fn read(record: &[u8]) -> Option<Held> {
    const HEAD: usize = 16;
    const ADDRESSES: usize = 12;
    let number = |at: usize| {
        let bytes = record.get(at..at + 4)?;
        Some(u32::from_ne_bytes(bytes.try_into().ok()?))
    };
    let (interface, length) = (number(0)?, number(4)? as usize);
    let (tag, tick) = (number(8)?, number(12)?);
    let mut frame = record.get(HEAD..HEAD + length)?.to_vec();
    if tag != 0 && frame.len() >= ADDRESSES {
        let [kind, said] = [
            (tag as u16).to_ne_bytes(),
            ((tag >> 16) as u16).to_be_bytes(),
        ];
        frame.splice(ADDRESSES..ADDRESSES, kind.into_iter().chain(said));
    }
    Some(Held {
        interface,
        tick,
        frame,
    })
}

/// The key of a fragment's datagram.
fn key(frame: &[u8]) -> Option<FragmentKey> {
    let frame = HostFrame::new(Hook::Xdp, frame);
    let found = link::tags(&frame)?;
    if found.ethertype == link::IPV4 {
        Some(fragment::key(&packet::parse4(&frame, found.l3).ok()?))
    } else {
        Some(fragment::key(&packet::read6(&frame, found.l3).ok()?))
    }
}

/// The device that has the source MAC address of a frame.
fn owner(frame: &[u8]) -> Option<u32> {
    let mac: [u8; 6] = frame.get(6..12)?.try_into().ok()?;
    let mut links = getifaddrs().ok()?;
    links.find_map(|link| {
        let address = link.address?;
        let address = address.as_link_addr()?;
        (address.addr() == Some(mac)).then(|| address.ifindex() as u32)
    })
}

/// The socket address for a frame of this type by this device.
fn target(interface: u32, ethertype: u16) -> Option<LinkAddr> {
    // SAFETY: `sockaddr_ll` consists of integers, for which zeros are a value.
    let mut raw: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    raw.sll_family = libc::AF_PACKET as u16;
    raw.sll_ifindex = i32::try_from(interface).ok()?;
    raw.sll_protocol = ethertype;
    raw.sll_halen = 6;
    let length = u32::try_from(size_of::<libc::sockaddr_ll>()).ok()?;
    // SAFETY: `raw` is a whole `sockaddr_ll` of the length passed, and the call copies it.
    unsafe { LinkAddr::from_raw((&raw const raw).cast(), Some(length)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(tag: u32, frame: &[u8]) -> Vec<u8> {
        let numbers = [5, frame.len() as u32, tag, 9];
        let mut record: Vec<u8> = numbers.iter().flat_map(|n| n.to_ne_bytes()).collect();
        record.extend(frame);
        record.resize(record.len() + 100, 0xee);
        record
    }

    #[test]
    fn a_tag_that_the_kernel_took_out_of_a_held_frame_is_put_back() {
        let frame: Vec<u8> = (0..40).collect();
        let plain = read(&record(0, &frame)).unwrap();
        assert_eq!((plain.interface, plain.tick), (5, 9));
        assert_eq!(plain.frame, frame);
        let tag = u32::from(0x8100u16.to_be()) | 0x2064 << 16;
        let tagged = read(&record(tag, &frame)).unwrap().frame;
        let wanted = [&frame[..12], &[0x81, 0, 0x20, 0x64], &frame[12..]].concat();
        assert_eq!(tagged, wanted);
    }

    #[test]
    fn a_record_that_ends_early_is_nothing() {
        assert!(read(&record(0, &[0; 40])[..50]).is_none());
        assert!(read(&[0; 9]).is_none());
    }
}
