//! A frame in a vector, with room in front of it.

use std::vec;
use std::vec::Vec;

use crate::claim;
use crate::steps::{Choices, Steps};
use crate::table::Tables;
use crate::table::call::{TEXT, desk};
use crate::table::entry::Ways;
use crate::table::flows::Words;
use crate::verdict::Word;
use crate::wire::checksum;
use crate::wire::frame::{Edit, Frame, Room, Transport, View};
use crate::wire::packet;
use crate::wire::ports::Ports;
use crate::wire::{crc, link, sctp};
use crate::{call, fragment, open, origin, peer, translate};

/// Bytes in front of a frame: what XDP gives.
const HEADROOM: usize = 256;

/// The kernel's hook that a frame imitates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// The driver's hook, before a socket buffer exists.
    Xdp,
    /// A socket buffer: a checksum is updated for the addresses first, then for the ports.
    Tc,
}

/// A frame, from its Ethernet header on.
#[derive(Clone, Debug)]
pub struct HostFrame {
    bytes: Vec<u8>,
    start: usize,
    /// The hook that the frame imitates.
    pub hook: Hook,
    /// The index of the interface that the frame came by.
    pub interface: u32,
    /// Bytes of payload per packet, if the frame stands for many packets (GSO).
    pub segment: usize,
    /// Whether the transport checksum is left to the device (CHECKSUM_PARTIAL).
    pub left_to_device: bool,
    /// A VLAN tag beside the bytes ([`Frame::beside`]).
    pub beside: u32,
    /// The kernel's own routes and neighbours: source, target, next hop.
    pub routes: Vec<([u64; 2], [u64; 2], Ways)>,
}

impl HostFrame {
    /// A frame with these bytes.
    #[must_use]
    pub fn new(hook: Hook, bytes: &[u8]) -> Self {
        let mut room = vec![0; HEADROOM];
        room.extend_from_slice(bytes);
        Self {
            bytes: room,
            start: HEADROOM,
            hook,
            interface: 1,
            segment: 0,
            left_to_device: false,
            beside: 0,
            routes: Vec::new(),
        }
    }

    /// The frame as it is.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

impl HostFrame {
    /// Where `N` bytes at this offset of the frame begin, if the frame has them.
    #[inline]
    fn place<const N: usize>(&self, offset: usize) -> Option<usize> {
        let end = offset.checked_add(self.start + N)?;
        (end <= self.bytes.len()).then(|| end - N)
    }
}

impl Frame for HostFrame {
    #[inline]
    fn view<const N: usize>(&self, offset: usize) -> Option<View<'_, N>> {
        let at = self.place::<N>(offset)?;
        // SAFETY: N bytes, borrowed as long as the view lives.
        Some(unsafe { View::new(self.bytes.as_ptr().add(at)) })
    }

    #[inline]
    fn edit<const N: usize>(&mut self, offset: usize) -> Option<Edit<'_, N>> {
        let at = self.place::<N>(offset)?;
        // SAFETY: N bytes, borrowed as ours as long as this lives.
        Some(unsafe { Edit::new(self.bytes.as_mut_ptr().add(at)) })
    }

    fn length(&self) -> usize {
        self.bytes().len()
    }

    fn segment(&self) -> usize {
        self.segment
    }

    fn open(&mut self, l3: usize, bytes: usize, _room: Room) -> bool {
        if self.start < bytes {
            return false;
        }
        let (old, new) = (self.start, self.start - bytes);
        self.bytes.copy_within(old..old + l3, new);
        self.start = new;
        true
    }

    fn close(&mut self, _l3: usize, _bytes: usize, _inner_v6: bool) -> bool {
        // A director never decapsulates.
        false
    }

    fn truncate(&mut self, length: usize) -> bool {
        self.bytes.truncate(self.start + length);
        true
    }

    fn extend(&mut self, length: usize) -> bool {
        let length = self.start + length;
        if self.bytes.len() < length {
            self.bytes.resize(length, 0);
        }
        true
    }

    fn insert(&mut self, at: usize, bytes: usize) -> bool {
        let at = self.start + at;
        self.bytes.splice(at..at, vec![0; bytes]);
        true
    }

    fn refit(&mut self, l3: usize, old: usize, new: usize, _v6: bool) -> bool {
        let at = self.start + l3;
        if self.start + old < new || at + old > self.bytes.len() {
            return false;
        }
        self.bytes.splice(at..at + old, vec![0; new]);
        true
    }

    fn carry(&mut self, transport: Transport, pseudo: u32, other: u32) {
        match self.hook {
            Hook::Xdp => self.carry_one(transport, checksum::add(pseudo, other)),
            Hook::Tc => {
                for change in [pseudo, other].into_iter().filter(|change| *change != 0) {
                    self.carry_one(transport, change);
                }
            }
        }
    }

    fn carry_crc(&mut self, field: usize, changed: u16, behind: u32) {
        if self.left_to_device {
            return;
        }
        if let Some(mut field) = self.edit::<4>(field) {
            let old = field.view().u32::<0>();
            field.set_u32::<0>(old ^ crc::change(changed, behind));
        }
    }

    fn options(&self, l3: usize, header: usize) -> Option<u32> {
        packet::options(self, l3, header)
    }

    fn extensions(&self, l3: usize, first: u8) -> u64 {
        packet::extensions(self, l3, first).0
    }

    fn association(&self, l4: usize, end: usize) -> u64 {
        sctp::read(self, l4, end)
    }

    fn interface(&self) -> u32 {
        self.interface
    }

    fn beside(&self) -> u32 {
        self.beside
    }

    fn untag(&mut self) -> bool {
        if self.beside != 0 {
            self.beside = 0;
            return true;
        }
        if self.bytes().len() < link::HEADER + 4 {
            return false;
        }
        let at = self.start;
        self.bytes.copy_within(at..at + 12, at + 4);
        self.start += 4;
        true
    }

    fn sum(&self, from: usize, length: usize) -> Option<u32> {
        let mut sum = 0;
        for chunk in self.bytes().get(from..from + length)?.chunks(4) {
            // RFC 1071, 4.1: an incomplete last word is padded with zeros.
            let mut word = [0; 4];
            word[..chunk.len()].copy_from_slice(chunk);
            sum = checksum::add(sum, u32::from_le_bytes(word));
        }
        Some(sum)
    }
}

impl Steps for HostFrame {
    fn begin<T: Choices>(&self, tables: &T, ports: Ports, server: u32, service: u32) -> Word {
        open::begin(self, tables, ports, server, service)
    }

    fn start<T: Choices>(&self, tables: &T, ports: Ports, server: u32, service: u32) -> Word {
        open::start(self, tables, ports, server, service)
    }

    fn taken<T: Choices>(&self, tables: &T, ports: u32, id: u32) -> bool {
        claim::taken(self, tables, ports, id)
    }

    fn identify<T: Tables>(&self, tables: &T, from: usize, length: u32) -> u32 {
        let length = (length as usize).min(TEXT);
        let (Some(text), Some(desk)) = (self.bytes().get(from..from + length), tables.desk())
        else {
            return 0;
        };
        for (number, chunk) in text.chunks(8).enumerate() {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            desk.store(desk::TEXT + number, u64::from_le_bytes(word));
        }
        call::id::find(tables, length as u32)
    }

    fn forwarded<T: Tables>(&self, tables: &T, service: u32, source: [u64; 2]) -> bool {
        peer::forwarded(self, tables, service, source)
    }

    fn first<T: Choices>(&self, tables: &T) {
        fragment::first(self, tables);
    }

    fn later<T: Choices>(&self, tables: &T) -> Word {
        fragment::later(self, tables)
    }

    fn origin<T: Choices>(&self, tables: &T, word: u32) -> u32 {
        origin::of_frame(self, tables, word)
    }

    fn one_packet<T: Tables>(&self, tables: &T, server: u32) -> Word {
        fragment::one_packet(self, tables, server)
    }

    fn route(&self, _: bool, source: [u64; 2], target: [u64; 2]) -> Option<Ways> {
        let mut routes = self.routes.iter();
        routes
            .find(|route| (route.0, route.1) == (source, target))
            .map(|route| route.2)
    }

    fn translate<T: Choices>(&mut self, tables: &T, server: u32) -> Word {
        translate::carry(self, tables, server)
    }

    fn asked<T: Choices>(&self, tables: &T, ports: Ports) -> u32 {
        translate::enter::asked(self, tables, ports)
    }

    fn enter<T: Choices>(&self, tables: &T, ports: Ports, server: u32, service: u32) -> Word {
        translate::enter::enter(self, tables, ports, server, service)
    }

    fn disown<T: Choices>(&mut self, tables: &T) -> Word {
        translate::disown::disown(self, tables)
    }

    fn announce<T: Choices>(&mut self, tables: &T) -> Word {
        translate::announce::announce(self, tables)
    }

    fn acknowledge<T: Choices>(&mut self, tables: &T) -> Word {
        translate::proxy::acknowledge(self, tables)
    }

    fn introduce<T: Choices>(&mut self, tables: &T) -> Word {
        translate::proxy::introduce(self, tables)
    }

    fn put<T: Choices>(&mut self, tables: &T, keeps: u32) -> Word {
        translate::proxy::put(self, tables, keeps)
    }

    fn cross4<T: Choices>(&mut self, tables: &T) -> Word {
        translate::cross::carry4(self, tables)
    }

    fn cross6<T: Choices>(&mut self, tables: &T) -> Word {
        translate::cross::carry6(self, tables)
    }

    fn translate_error<T: Choices>(&mut self, tables: &T) -> Word {
        translate::error::follow(self, tables)
    }

    fn cross_error4<T: Choices>(&mut self, tables: &T) -> Word {
        translate::cross::error::follow4(self, tables)
    }

    fn cross_error6<T: Choices>(&mut self, tables: &T) -> Word {
        translate::cross::error::follow6(self, tables)
    }
}

impl HostFrame {
    fn carry_one(&mut self, transport: Transport, change: u32) {
        let Some(mut field) = self.edit::<2>(transport.field) else {
            return;
        };
        let old = field.view().u16::<0>();
        if transport.optional && old == 0 {
            return;
        }
        let new = checksum::update(old, change);
        let is_none = transport.optional && new == 0;
        field.set_u16::<0>(if is_none { 0xffff } else { new });
    }
}
