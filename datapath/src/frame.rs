//! A frame as the walk sees it: bytes that may be read and written where they are, and room that
//! may be opened and closed at the front.
//!
//! Two shells implement [`Frame`] in the kernel (XDP, tc) and one on the host. All bytes go
//! through [`View`] and [`Edit`]: a stretch of the frame whose length is checked once, and whose
//! fields are then at offsets that the compiler checks. Fields are read as scalars in the byte
//! order of the wire, never as slices: what can panic cannot be loaded.

use core::marker::PhantomData;

use crate::packet::{Extensions, Ports};
use crate::tables::Tables;
use crate::verdict::Word;

/// `N` bytes of a frame, to read.
#[derive(Clone, Copy, Debug)]
pub struct View<'a, const N: usize> {
    start: *const u8,
    frame: PhantomData<&'a [u8; N]>,
}

impl<const N: usize> View<'_, N> {
    /// # Safety
    /// `start` must point to `N` bytes that stay readable as long as the view lives.
    #[inline(always)]
    pub unsafe fn new(start: *const u8) -> Self {
        Self {
            start,
            frame: PhantomData,
        }
    }

    #[inline(always)]
    fn get<const AT: usize, T: Copy>(&self) -> T {
        const { assert!(AT.saturating_add(size_of::<T>()) <= N) };
        // SAFETY: `new` promises N bytes, and the assertion keeps the field within them.
        unsafe { self.start.add(AT).cast::<T>().read_unaligned() }
    }

    /// The byte at `AT`.
    #[inline(always)]
    #[must_use]
    pub fn u8<const AT: usize>(&self) -> u8 {
        self.get::<AT, u8>()
    }

    /// Two bytes as they are on the wire: compare with constants made by `to_be`.
    #[inline(always)]
    #[must_use]
    pub fn u16<const AT: usize>(&self) -> u16 {
        self.get::<AT, u16>()
    }

    /// Four bytes as they are on the wire.
    #[inline(always)]
    #[must_use]
    pub fn u32<const AT: usize>(&self) -> u32 {
        self.get::<AT, u32>()
    }

    /// Eight bytes as they are on the wire.
    #[inline(always)]
    #[must_use]
    pub fn u64<const AT: usize>(&self) -> u64 {
        self.get::<AT, u64>()
    }
}

/// `N` bytes of a frame, to read and write.
#[derive(Debug)]
pub struct Edit<'a, const N: usize> {
    start: *mut u8,
    frame: PhantomData<&'a mut [u8; N]>,
}

impl<const N: usize> Edit<'_, N> {
    /// # Safety
    /// `start` must point to `N` bytes that nobody else touches as long as this lives.
    #[inline(always)]
    pub unsafe fn new(start: *mut u8) -> Self {
        Self {
            start,
            frame: PhantomData,
        }
    }

    #[inline(always)]
    fn put<const AT: usize, T: Copy>(&mut self, value: T) {
        const { assert!(AT.saturating_add(size_of::<T>()) <= N) };
        // SAFETY: `new` promises N bytes, and the assertion keeps the field within them.
        unsafe { self.start.add(AT).cast::<T>().write_unaligned(value) }
    }

    #[inline(always)]
    #[must_use]
    pub fn view(&self) -> View<'_, N> {
        View {
            start: self.start,
            frame: PhantomData,
        }
    }

    #[inline(always)]
    pub fn set_u8<const AT: usize>(&mut self, value: u8) {
        self.put::<AT, u8>(value);
    }

    /// Two bytes, given as they shall be on the wire.
    #[inline(always)]
    pub fn set_u16<const AT: usize>(&mut self, value: u16) {
        self.put::<AT, u16>(value);
    }

    #[inline(always)]
    pub fn set_u32<const AT: usize>(&mut self, value: u32) {
        self.put::<AT, u32>(value);
    }

    #[inline(always)]
    pub fn set_u64<const AT: usize>(&mut self, value: u64) {
        self.put::<AT, u64>(value);
    }
}

/// Which checksum a change of the frame has to be carried into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transport {
    /// Where the checksum field is, from the start of the frame.
    pub field: usize,
    /// Whether a checksum of zero means "none" (UDP over IPv4, RFC 768).
    pub optional: bool,
}

/// What room in front of a packet is for. Segmentation needs to know what lies where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// The headers of a message about the packet.
    Message,
    /// An outer header of IPv6 or IPv4, and what is between it and the packet.
    Tunnel { v6: bool, over: Over },
}

/// What a tunnel's outer header announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// The packet itself.
    Ip,
    Udp,
    Gre,
}

/// A frame, from its Ethernet header on.
///
/// Offsets are from the start of the Ethernet header. What was read before a call that takes
/// `&mut self` must be read again.
pub trait Frame {
    /// `N` bytes at `offset`, if the frame has them.
    fn view<const N: usize>(&self, offset: usize) -> Option<View<'_, N>>;

    /// `N` bytes at `offset` to write to, if the frame has them.
    fn edit<const N: usize>(&mut self, offset: usize) -> Option<Edit<'_, N>>;

    /// Bytes in the frame, those included that `view` cannot reach.
    fn length(&self) -> usize;

    /// Bytes of transport payload that each packet on the wire will carry, if the frame stands
    /// for many of them (GSO); 0 if it is a single packet.
    fn segment(&self) -> usize;

    /// Opens `bytes` of room (20 to 60) at `l3`, between the link header and the network header.
    /// The link header stays at the front; what the room holds is undefined. False if there is no
    /// room: the frame is as it was.
    fn open(&mut self, l3: usize, bytes: usize, room: Room) -> bool;

    /// Takes `bytes` (20 to 80) out at `l3`, where an outer network header is. `inner_v6` says what
    /// follows.
    fn close(&mut self, l3: usize, bytes: usize, inner_v6: bool) -> bool;

    /// Cuts the frame to `length` bytes. False if it cannot be done: the frame is as it was.
    fn truncate(&mut self, length: usize) -> bool;

    /// Makes the frame `length` bytes long, of which it may have some already; what is new is
    /// undefined. False if it cannot be done: the frame is as it was.
    fn extend(&mut self, length: usize) -> bool;

    /// Opens `bytes` of room at `at`, which lies behind the headers or within them. What the room
    /// holds is undefined. False if it cannot be done. Slow.
    fn insert(&mut self, at: usize, bytes: usize) -> bool;

    /// Makes the `old` bytes (20 to 600) from `l3` on, where the network header begins, `new` ones
    /// (20 to 100), for a packet of the other family: IPv6 if `v6`. The link header stays at the
    /// front and says what it said; what the bytes hold is undefined. False if it cannot be done:
    /// the frame is then good for nothing.
    fn refit(&mut self, l3: usize, old: usize, new: usize, v6: bool) -> bool;

    /// Carries a change into a transport checksum. `pseudo` is the change of what the
    /// pseudo-header holds (addresses), `other` that of the rest, each a sum of 16-bit words in
    /// wire order as [`crate::checksum`] makes them. A checksum that the sender left to the
    /// device is kept so that the device still gets it right.
    fn carry(&mut self, transport: Transport, pseudo: u32, other: u32);

    /// Carries a change of two bytes into the CRC32c at `field`: `changed` are the bits of them
    /// that differ, as they lie in memory, and `behind` bytes follow them. A checksum that the
    /// sender left to the device stays as it is: the device computes it of what it sends.
    fn carry_crc(&mut self, field: usize, changed: u16, behind: u32);

    /// Runs [`crate::open::begin`] on this frame; in the kernel as a function of its own.
    fn begin<T: Tables>(&self, tables: &T, ports: Ports, server: u32, service: u32) -> Word;

    /// Runs [`crate::open::start`] on this frame; likewise.
    fn start<T: Tables>(&self, tables: &T, ports: Ports, server: u32, service: u32) -> Word;

    /// Runs [`crate::claim::taken`]; likewise.
    fn taken<T: Tables>(&self, tables: &T, ports: u32, id: u32) -> bool;

    /// Runs [`crate::call::id::find`] on `length` bytes at `from`, or as many of them as the desk
    /// has room for; likewise.
    fn identify<T: Tables>(&self, tables: &T, from: usize, length: u32) -> u32;

    /// Runs [`crate::peer::forwarded`] on this frame; likewise.
    fn forwarded<T: Tables>(&self, tables: &T, service: u32, source: [u64; 2]) -> bool;

    /// Runs [`crate::fragment::first`] on this frame; likewise.
    fn first<T: Tables>(&self, tables: &T);

    /// Runs [`crate::fragment::later`] on this frame; likewise.
    fn later<T: Tables>(&self, tables: &T) -> Word;

    /// Runs [`crate::origin::of_frame`] on this frame; likewise.
    fn origin<T: Tables>(&self, tables: &T, word: u32) -> u32;

    /// Runs [`crate::fragment::one_packet`] on this frame; likewise.
    fn one_packet<T: Tables>(&self, tables: &T, server: u32) -> Word;

    /// Runs [`crate::packet::options`] on this frame; likewise.
    fn options(&self, l3: usize, header: usize) -> Option<u32>;

    /// Runs [`crate::packet::extensions`] on this frame; likewise.
    fn extensions(&self, l3: usize, first: u8) -> Extensions;

    /// Runs [`crate::sctp::read`] on this frame; likewise.
    fn association(&self, l4: usize, end: usize) -> u64;

    /// The interface that the frame came by.
    fn interface(&self) -> u32;

    /// Whether the kernel has found already that the frame is addressed to this machine.
    #[inline(always)]
    fn is_host(&self) -> bool {
        false
    }

    /// A VLAN tag that does not lie in the frame's bytes but beside them: its two bytes as a
    /// number, and a bit above them. 0 if there is none.
    #[inline(always)]
    fn beside(&self) -> u32 {
        0
    }

    /// Takes the outermost VLAN tag off, wherever it lies. False if it cannot be done: the frame is
    /// as it was.
    #[inline(always)]
    fn untag(&mut self) -> bool {
        false
    }

    /// The way of a packet from `source` to `target`, as the kernel's own rules, routes and
    /// neighbours have it. One that may not be used: they refuse such packets. Slow.
    fn route(&self, v6: bool, source: [u64; 2], target: [u64; 2]) -> Option<crate::entry::Ways>;

    /// The one's complement sum of `length` bytes from `from` on, at most 65,535, as they are in
    /// the frame. `None` if the frame has not as many. Slow.
    fn sum(&self, from: usize, length: usize) -> Option<u32>;
}
