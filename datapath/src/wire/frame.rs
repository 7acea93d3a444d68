//! A frame as the walk sees it: bytes that are read and written in place, and room that can be
//! opened and closed at the front.
//!
//! Two shells implement [`Frame`] in the kernel (XDP, tc) and one on the host. All bytes go through
//! [`View`] and [`Edit`]: a range of the frame whose length is checked once, and whose fields have
//! offsets that the compiler checks. Fields are scalars in network order, never slices: the kernel
//! does not load code that can panic.

use core::marker::PhantomData;

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

    /// The same bytes, to read.
    #[inline(always)]
    #[must_use]
    pub fn view(&self) -> View<'_, N> {
        View {
            start: self.start,
            frame: PhantomData,
        }
    }

    /// Writes a byte.
    #[inline(always)]
    pub fn set_u8<const AT: usize>(&mut self, value: u8) {
        self.put::<AT, u8>(value);
    }

    /// Two bytes, given as they shall be on the wire.
    #[inline(always)]
    pub fn set_u16<const AT: usize>(&mut self, value: u16) {
        self.put::<AT, u16>(value);
    }

    /// Writes four bytes, given as they shall be on the wire.
    #[inline(always)]
    pub fn set_u32<const AT: usize>(&mut self, value: u32) {
        self.put::<AT, u32>(value);
    }

    /// Writes eight bytes, given as they shall be on the wire.
    #[inline(always)]
    pub fn set_u64<const AT: usize>(&mut self, value: u64) {
        self.put::<AT, u64>(value);
    }
}

/// A transport checksum to update when the frame changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transport {
    /// Where the checksum field is, from the start of the frame.
    pub field: usize,
    /// Whether a checksum of zero means "none" (UDP over IPv4, RFC 768).
    pub optional: bool,
}

/// The purpose of room in front of a packet, which segmentation (GSO) depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// The headers of an ICMP message about the packet.
    Message,
    /// An outer IP header, and the header between it and the packet.
    Tunnel { v6: bool, over: Over },
}

/// The protocol that a tunnel's outer header announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// The packet itself.
    Ip,
    /// GUE, behind a UDP header.
    Udp,
    /// GRE.
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

    /// Bytes in the frame, including those that `view` cannot reach.
    fn length(&self) -> usize;

    /// Bytes of transport payload that each packet on the wire will carry, if the frame stands
    /// for many of them (GSO); 0 if it is a single packet.
    fn segment(&self) -> usize;

    /// Opens `bytes` of room (20 to 60) at `l3`, between the link header and the network header.
    /// The link header stays at the front; the content of the room is undefined. False if there is
    /// no room: the frame is as it was.
    fn open(&mut self, l3: usize, bytes: usize, room: Room) -> bool;

    /// Removes `bytes` (20 to 80) at `l3`, where an outer network header begins. The packet behind
    /// them is IPv6 if `inner_v6`. False if it cannot be done.
    fn close(&mut self, l3: usize, bytes: usize, inner_v6: bool) -> bool;

    /// Cuts the frame to `length` bytes. False if it cannot be done: the frame is as it was.
    fn truncate(&mut self, length: usize) -> bool;

    /// Extends the frame to `length` bytes if it is shorter; the added bytes are undefined. False
    /// if it cannot be done: the frame is as it was.
    fn extend(&mut self, length: usize) -> bool;

    /// Opens `bytes` of room at `at`, behind or within the headers. The content of the room is
    /// undefined. False if it cannot be done. Slow.
    fn insert(&mut self, at: usize, bytes: usize) -> bool;

    /// Replaces the `old` bytes (20 to 600) from `l3` on, where the network header begins, by `new`
    /// bytes (20 to 100), for a packet of the other family: IPv6 if `v6`. The link header stays at
    /// the front with its content; the new bytes are undefined. False if it cannot be done: the
    /// frame is then unusable.
    fn refit(&mut self, l3: usize, old: usize, new: usize, v6: bool) -> bool;

    /// Updates a transport checksum. `pseudo` is the change of the pseudo-header (addresses),
    /// `other` the change of the other covered bytes: each a sum of 16-bit words in wire order, as
    /// [`crate::wire::checksum`] makes them. A checksum that the sender left to the device
    /// (CHECKSUM_PARTIAL) is updated so that the device completes it correctly.
    fn carry(&mut self, transport: Transport, pseudo: u32, other: u32);

    /// Updates the CRC32c at `field` for a change of two bytes. `changed` has the bits that differ,
    /// in memory order; `behind` is the number of bytes that follow the two. A checksum that the
    /// sender left to the device stays as it is: the device computes it from the bytes it sends.
    fn carry_crc(&mut self, field: usize, changed: u16, behind: u32);

    // The director's shells have each of the next three as a separate function, which the kernel's
    // verifier checks on its own.

    /// Runs [`crate::wire::packet::options`] on this frame.
    fn options(&self, l3: usize, header: usize) -> Option<u32>;

    /// Runs [`crate::wire::packet::extensions`] on this frame, and returns the word within.
    fn extensions(&self, l3: usize, first: u8) -> u64;

    /// Runs [`crate::wire::sctp::read`] on this frame.
    fn association(&self, l4: usize, end: usize) -> u64;

    /// The index of the interface that the frame came by.
    fn interface(&self) -> u32;

    /// Whether the kernel has already decided that the frame is for this machine (`PACKET_HOST`).
    #[inline(always)]
    fn is_host(&self) -> bool {
        false
    }

    /// A VLAN tag that the kernel keeps outside the frame's bytes: its two bytes as a number, with
    /// a bit set above them. 0 if there is none.
    #[inline(always)]
    fn beside(&self) -> u32 {
        0
    }

    /// Removes the outermost VLAN tag, within or outside the frame's bytes. False if it cannot be
    /// done: the frame is as it was.
    #[inline(always)]
    fn untag(&mut self) -> bool {
        false
    }

    /// The one's complement sum of `length` bytes (at most 65,535) from `from` on. `None` if the
    /// frame does not have as many. Slow.
    fn sum(&self, from: usize, length: usize) -> Option<u32>;
}
