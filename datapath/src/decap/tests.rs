//! Cases of decapsulation: the frame that arrives, and the frame that the kernel gets.

use std::cell::RefCell;
use std::vec;
use std::vec::Vec;

use super::*;
use crate::realserver::Settings;
use crate::wire::frame::{Edit, Room, Transport, View};
use proptest::prelude::*;

pub(crate) const VIRTUAL4: [u8; 4] = [192, 0, 2, 10];
pub(crate) const CLIENT4: [u8; 4] = [198, 51, 100, 7];
const SERVER4: [u8; 4] = [10, 1, 0, 7];
const DIRECTOR4: [u8; 4] = [10, 1, 0, 1];
pub(crate) const VIRTUAL6: [u8; 16] = address6(2, 10);
pub(crate) const CLIENT6: [u8; 16] = address6(0xc, 7);
/// The address in `kernel_tunnels.txt`.
const RECORDED6: [u8; 16] = address6(0, 16);
const SERVER6: [u8; 16] = address6(1, 7);
const DIRECTOR6: [u8; 16] = address6(1, 1);

#[test]
fn all_four_forms_are_taken_out_of_their_tunnel() {
    for (outer_v6, inner_v6) in FORMS {
        let inner = inner(inner_v6);
        let mut frame = ethernet(&tunnel(outer_v6, &inner), outer_v6);
        let known = Known::default();

        let outcome = receive(&mut frame, &known);

        assert_eq!(
            outcome,
            Outcome::Decapsulated,
            "outer v6 {outer_v6}, inner v6 {inner_v6}"
        );
        assert_eq!(frame.0, ethernet(&inner, inner_v6).0);
        assert_eq!(known.notes(), [Note::Decapsulated]);
    }
}

#[test]
fn vlan_tags_are_kept() {
    for (outer_v6, inner_v6) in FORMS {
        let inner = inner(inner_v6);
        let mut frame = tagged(ethernet(&tunnel(outer_v6, &inner), outer_v6));

        assert_eq!(
            receive(&mut frame, &Known::default()),
            Outcome::Decapsulated
        );

        assert_eq!(frame.0, tagged(ethernet(&inner, inner_v6)).0);
    }
}

#[test]
fn options_of_the_outer_header_go_with_it() {
    let inner = inner(false);
    let mut outer = tunnel(false, &inner);
    outer.splice(20..20, [1, 1, 1, 0, 1, 1, 1, 0]);
    finish4(&mut outer, 28);
    let mut frame = ethernet(&outer, false);

    assert_eq!(
        receive(&mut frame, &Known::default()),
        Outcome::Decapsulated
    );
    assert_eq!(frame.0, ethernet(&inner, false).0);
}

// RFC 2473, 4.1.1: Linux puts a destination option with a limit before the inner packet.
#[test]
fn a_tunnel_encapsulation_limit_is_taken_off() {
    let inner = inner(true);
    let mut outer = tunnel(true, &inner);
    outer[6] = 60;
    outer.splice(40..40, [41, 0, 4, 1, 4, 1, 1, 0]);
    finish6(&mut outer);
    let mut frame = ethernet(&outer, true);

    assert_eq!(
        receive(&mut frame, &Known::default()),
        Outcome::Decapsulated
    );
    assert_eq!(frame.0, ethernet(&inner, true).0);
}

#[test]
fn an_outer_header_of_more_than_60_bytes_stays() {
    let mut outer = tunnel(true, &inner(true));
    outer[6] = 60;
    outer.splice(40..40, [[41, 2].as_slice(), &[0; 22]].concat());
    finish6(&mut outer);
    stays(ethernet(&outer, true), Some(Note::LongHeader));
}

#[test]
fn outer_fragments_stay() {
    for fragmentation in [0x2000u16, 0x0010] {
        let mut outer = tunnel(false, &inner(false));
        outer[6..8].copy_from_slice(&fragmentation.to_be_bytes());
        finish4(&mut outer, 20);
        stays(ethernet(&outer, false), Some(Note::OuterFragment));
    }
    let mut outer = tunnel(true, &inner(true));
    outer[6] = 44;
    outer.splice(40..40, [41, 0, 0, 1, 0, 0, 0, 9]);
    finish6(&mut outer);
    stays(ethernet(&outer, true), Some(Note::OuterFragment));
}

#[test]
fn a_packet_for_an_address_that_is_not_virtual_stays() {
    stays(
        ethernet(
            &tunnel(false, &packet4(CLIENT4, [192, 0, 2, 99], 6, &[0; 20])),
            false,
        ),
        Some(Note::NotVirtual),
    );
    stays(
        ethernet(
            &tunnel(false, &packet4(CLIENT4, SERVER4, 6, &[0; 20])),
            false,
        ),
        Some(Note::NotVirtual),
    );
}

#[test]
fn a_tunnel_that_ends_elsewhere_stays() {
    let outer = packet4(DIRECTOR4, [10, 1, 0, 8], 4, &inner(false));
    stays(ethernet(&outer, false), Some(Note::NotHere));
}

#[test]
fn a_tunnel_to_a_virtual_address_stays_so_that_only_one_header_is_taken_off() {
    let outer = packet4(DIRECTOR4, VIRTUAL4, 4, &inner(false));
    stays(ethernet(&outer, false), Some(Note::NotHere));
}

#[test]
fn a_tunnel_in_a_tunnel_stays() {
    for protocol in [INNER_V4, INNER_V6] {
        let nested = packet4(CLIENT4, VIRTUAL4, protocol, &inner(protocol == INNER_V6));
        stays(ethernet(&tunnel(false, &nested), false), Some(Note::Nested));
        let nested = packet6(CLIENT6, VIRTUAL6, protocol, &inner(protocol == INNER_V6));
        stays(ethernet(&tunnel(true, &nested), true), Some(Note::Nested));
    }
}

#[test]
fn an_inner_packet_of_another_version_than_announced_stays() {
    let as_v6 = packet4(DIRECTOR4, SERVER4, INNER_V6, &inner(false));
    stays(ethernet(&as_v6, false), Some(Note::BadInner));
    let as_v4 = packet4(DIRECTOR4, SERVER4, INNER_V4, &inner(true));
    stays(ethernet(&as_v4, false), Some(Note::BadInner));
}

#[test]
fn an_inner_packet_that_says_to_be_longer_than_it_is_stays() {
    for v6 in [false, true] {
        let mut inner = inner(v6);
        inner.pop();
        stays(ethernet(&tunnel(v6, &inner), v6), Some(Note::BadInner));
    }
}

#[test]
fn an_outer_header_with_a_wrong_checksum_stays() {
    let mut outer = tunnel(false, &inner(false));
    outer[10] ^= 1;
    stays(ethernet(&outer, false), None);
}

#[test]
fn what_is_no_tunnel_stays_uncounted() {
    stays(ethernet(&inner(false), false), None);
    stays(ethernet(&inner(true), true), None);
    stays(Bytes(vec![0xff; 60]), None);
    stays(Bytes(Vec::new()), None);
}

#[test]
fn with_a_list_of_directors_only_theirs_are_taken() {
    for v6 in [false, true] {
        let listed = || {
            let known = Known::default();
            known.settings.borrow_mut().listed = 1;
            known
        };
        let mut known = listed();
        let mut frame = ethernet(&tunnel(v6, &inner(false)), v6);
        assert_eq!(receive(&mut frame, &known), Outcome::Untouched);
        assert_eq!(known.notes(), [Note::NotFromDirector]);

        known = listed();
        known.directors = true;
        assert_eq!(receive(&mut frame, &known), Outcome::Decapsulated);
    }
}

// RFC 6040, 4.2.
#[test]
fn congestion_on_the_way_is_told_or_the_packet_is_dropped() {
    for (outer_v6, inner_v6) in FORMS {
        for (able, outcome) in [(0, Outcome::Drop), (2, Outcome::Decapsulated)] {
            let mut inner = inner(inner_v6);
            set_mark(&mut inner, able);
            let mut outer = tunnel(outer_v6, &inner);
            set_mark(&mut outer, CONGESTED);
            let mut frame = ethernet(&outer, outer_v6);

            assert_eq!(receive(&mut frame, &Known::default()), outcome);

            if outcome == Outcome::Decapsulated {
                set_mark(&mut inner, CONGESTED);
                assert_eq!(frame.0, ethernet(&inner, inner_v6).0);
            }
        }
    }
}

proptest! {
    #[test]
    fn a_truncated_tunnel_stays_as_it_came(form in 0usize..4, keep in 0usize..120) {
        let (outer_v6, inner_v6) = FORMS[form];
        let mut frame = ethernet(&tunnel(outer_v6, &inner(inner_v6)), outer_v6);
        prop_assume!(keep < frame.0.len());
        frame.0.truncate(keep);
        let before = frame.0.clone();
        prop_assert_eq!(receive(&mut frame, &Known::default()), Outcome::Untouched);
        prop_assert_eq!(frame.0, before);
    }

    #[test]
    fn damaged_frames_never_lose_more_than_a_header(form in 0usize..4, at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let (outer_v6, inner_v6) = FORMS[form];
        let mut frame = ethernet(&tunnel(outer_v6, &inner(inner_v6)), outer_v6);
        let at = at.index(frame.0.len());
        frame.0[at] = to;
        let before = frame.0.len();
        let outcome = receive(&mut frame, &Known::default());
        let lost = before - frame.0.len();
        prop_assert!(lost <= LONGEST_HEADER);
        prop_assert_eq!(lost != 0, outcome == Outcome::Decapsulated);
    }
}

pub(crate) const FORMS: [(bool, bool); 4] =
    [(false, false), (true, true), (true, false), (false, true)];

fn stays(mut frame: Bytes, note: Option<Note>) {
    let before = frame.0.clone();
    let known = Known::default();
    assert_eq!(receive(&mut frame, &known), Outcome::Untouched);
    assert_eq!(frame.0, before);
    assert_eq!(known.notes(), note.into_iter().collect::<Vec<_>>());
}

fn inner(v6: bool) -> Vec<u8> {
    let payload: Vec<u8> = (0..28).collect();
    if v6 {
        packet6(CLIENT6, VIRTUAL6, 6, &payload)
    } else {
        packet4(CLIENT4, VIRTUAL4, 6, &payload)
    }
}

fn tunnel(v6: bool, inner: &[u8]) -> Vec<u8> {
    let protocol = if inner[0] >> 4 == 6 {
        INNER_V6
    } else {
        INNER_V4
    };
    if v6 {
        packet6(DIRECTOR6, SERVER6, protocol, inner)
    } else {
        packet4(DIRECTOR4, SERVER4, protocol, inner)
    }
}

pub(crate) fn packet4(from: [u8; 4], to: [u8; 4], protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 0, 0x12, 0x34, 0x40, 0, 64, protocol, 0, 0];
    packet.extend(from);
    packet.extend(to);
    packet.extend(payload);
    finish4(&mut packet, 20);
    packet
}

/// Sets the lengths and the checksum.
fn finish4(packet: &mut [u8], header: usize) {
    packet[0] = 0x40 | (header / 4) as u8;
    let length = packet.len() as u16;
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    packet[10..12].fill(0);
    let sum = !sum(&packet[..header]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
}

pub(crate) fn packet6(from: [u8; 16], to: [u8; 16], protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, 0, protocol, 64];
    packet.extend(from);
    packet.extend(to);
    packet.extend(payload);
    finish6(&mut packet);
    packet
}

fn finish6(packet: &mut [u8]) {
    let length = (packet.len() - 40) as u16;
    packet[4..6].copy_from_slice(&length.to_be_bytes());
}

fn set_mark(packet: &mut [u8], mark: u8) {
    if packet[0] >> 4 == 6 {
        packet[1] = packet[1] & 0xcf | mark << 4;
    } else {
        packet[1] = packet[1] & 0xfc | mark;
        finish4(packet, 20);
    }
}

/// The one's complement sum of bytes, in host order.
pub(crate) fn sum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|word| u32::from(word[0]) << 8 | u32::from(word.get(1).copied().unwrap_or_default()));
    let mut sum: u32 = words.sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

pub(crate) fn ethernet(packet: &[u8], v6: bool) -> Bytes {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    frame.extend(if v6 { [0x86, 0xdd] } else { [0x08, 0x00] });
    frame.extend(packet);
    Bytes(frame)
}

pub(crate) fn tagged(mut frame: Bytes) -> Bytes {
    frame.0.splice(12..12, [0x81, 0x00, 0x00, 0x05]);
    frame
}

const fn address6(network: u8, host: u8) -> [u8; 16] {
    [
        0x20, 1, 0xd, 0xb8, 0, network, 0, 0, 0, 0, 0, 0, 0, 0, 0, host,
    ]
}

#[derive(Default)]
pub(crate) struct Known {
    pub settings: RefCell<Settings>,
    directors: bool,
    notes: RefCell<Vec<Note>>,
}

impl Known {
    pub fn notes(&self) -> Vec<Note> {
        self.notes.borrow().clone()
    }
}

impl Knowledge for Known {
    fn role(&self, address: [u64; 2]) -> u32 {
        let mapped = |v4: [u8; 4]| std::net::Ipv4Addr::from(v4).to_ipv6_mapped().octets();
        let bytes: Vec<u8> = address.iter().flat_map(|word| word.to_ne_bytes()).collect();
        if bytes == mapped(VIRTUAL4) || bytes == VIRTUAL6 || bytes == RECORDED6 {
            role::VIRTUAL
        } else if bytes == mapped(SERVER4) || bytes == SERVER6 {
            role::OWN
        } else if self.directors && (bytes == mapped(DIRECTOR4) || bytes == DIRECTOR6) {
            role::DIRECTOR
        } else {
            0
        }
    }

    fn settings(&self) -> Settings {
        *self.settings.borrow()
    }

    fn count(&self, note: Note) {
        self.notes.borrow_mut().push(note);
    }

    fn blur(&self, value: usize) -> usize {
        value
    }
}

/// A frame in a vector, with the part of [`Frame`] that a real server needs.
#[derive(Clone, Debug)]
pub(crate) struct Bytes(pub Vec<u8>);

impl Frame for Bytes {
    fn view<const N: usize>(&self, offset: usize) -> Option<View<'_, N>> {
        let bytes = self.0.get(offset..offset.checked_add(N)?)?;
        // SAFETY: the slice has N bytes and is borrowed as long as the view.
        Some(unsafe { View::new(bytes.as_ptr()) })
    }

    fn edit<const N: usize>(&mut self, offset: usize) -> Option<Edit<'_, N>> {
        let bytes = self.0.get_mut(offset..offset.checked_add(N)?)?;
        // SAFETY: the slice has N bytes and is borrowed as long as the edit.
        Some(unsafe { Edit::new(bytes.as_mut_ptr()) })
    }

    fn length(&self) -> usize {
        self.0.len()
    }

    fn segment(&self) -> usize {
        0
    }

    fn open(&mut self, _: usize, _: usize, _: Room) -> bool {
        false
    }

    fn close(&mut self, l3: usize, bytes: usize, _: bool) -> bool {
        self.0.drain(l3..l3 + bytes);
        true
    }

    fn truncate(&mut self, _: usize) -> bool {
        false
    }

    fn insert(&mut self, _: usize, _: usize) -> bool {
        unreachable!()
    }

    fn extend(&mut self, _: usize) -> bool {
        unreachable!()
    }

    fn association(&self, _l4: usize, _end: usize) -> u64 {
        // A real server reads no ports of SCTP.
        0
    }

    fn carry_crc(&mut self, _field: usize, _changed: u16, _behind: u32) {
        // A real server rewrites no port.
    }

    fn refit(&mut self, _l3: usize, _old: usize, _new: usize, _v6: bool) -> bool {
        unreachable!("only a director does")
    }

    fn carry(&mut self, transport: Transport, pseudo: u32, other: u32) {
        let mut field = self.edit::<2>(transport.field).unwrap();
        let sum = field.view().u16::<0>();
        field.set_u16::<0>(checksum::update(sum, checksum::add(pseudo, other)));
    }

    fn options(&self, l3: usize, header: usize) -> Option<u32> {
        packet::options(self, l3, header)
    }

    fn extensions(&self, l3: usize, first: u8) -> u64 {
        packet::extensions(self, l3, first).0
    }

    fn interface(&self) -> u32 {
        0
    }

    fn sum(&self, from: usize, length: usize) -> Option<u32> {
        let bytes = self.0.get(from..from + length)?;
        Some(u32::from(sum(bytes).swap_bytes()))
    }
}

/// What the kernel's IPVS sent: the words before the bytes, and the packet with its outer header.
fn recorded() -> Vec<(Vec<&'static str>, Vec<u8>)> {
    let lines = include_str!("../../tests/kernel_tunnels.txt").lines();
    let lines = lines.filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (words, text) = line.rsplit_once(' ').unwrap();
            let bytes = (0..text.len() / 2)
                .map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap())
                .collect();
            (words.split(' ').collect(), bytes)
        })
        .collect()
}

fn knows_gue() -> Known {
    let known = Known::default();
    known.settings.borrow_mut().gue_port = 6080u16.to_be();
    known
}

/// Where the inner packet begins in what the kernel sent.
fn begins(words: &[&str]) -> usize {
    let ip = if words[3].ends_with('6') { 40 } else { 20 };
    ip + match (words[0], words[1], words[2]) {
        ("half", "gue", "remcsum") => 20,
        (_, "gue", _) => 12,
        (_, _, "csum") => 8,
        _ => 4,
    }
}

#[test]
fn what_the_kernels_director_sends_is_taken_out_with_every_checksum_right() {
    for (words, bytes) in recorded() {
        let at = begins(&words);
        let outer_v6 = words[3].ends_with('6');
        let inner_v6 = words[3].starts_with('6');
        let mut frame = ethernet(&bytes.clone(), outer_v6);
        let known = knows_gue();

        let outcome = receive(&mut frame, &known);

        assert_eq!(
            outcome,
            Outcome::Decapsulated,
            "{words:?} {:?}",
            known.notes()
        );
        assert_eq!(transport_sum(&frame.0[14..]), 0xffff, "{words:?}");
        if words[0] == "whole" {
            let inner = bytes[at..].to_vec();
            assert_eq!(frame.0, ethernet(&inner, inner_v6).0, "{words:?}");
        }
    }
}

/// The sum of a transport header, its payload and the pseudo-header: all ones if the checksum is
/// right.
fn transport_sum(packet: &[u8]) -> u16 {
    let (addresses, protocol, l4) = if packet[0] >> 4 == 6 {
        (&packet[8..40], packet[6], 40)
    } else {
        (&packet[12..20], packet[9], 20)
    };
    let length = (packet.len() - l4) as u32;
    let mut pseudo = addresses.to_vec();
    pseudo.extend(length.to_be_bytes());
    pseudo.extend([0, 0, 0, protocol]);
    sum(&[&pseudo, &packet[l4..]].concat())
}

#[test]
fn every_byte_that_a_tunnels_checksum_covers_is_checked() {
    for (words, bytes) in recorded() {
        let has_sum = words[2] == "csum" || words[2] == "remcsum";
        // The packet's own checksums cover the rest; the kernel verifies them.
        let end = begins(&words) + if words[3].starts_with('6') { 8 } else { 0 };
        let ip = if words[3].ends_with('6') { 40 } else { 20 };
        for at in ip..end {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x55;
            let known = knows_gue();
            let outcome = receive(&mut ethernet(&damaged, words[3].ends_with('6')), &known);
            if has_sum {
                assert_ne!(outcome, Outcome::Decapsulated, "{words:?}, byte {at}");
            }
        }
    }
}

#[test]
fn a_tunnel_with_a_wrong_checksum_is_dropped_and_counted() {
    let (words, bytes) = recorded()
        .into_iter()
        .find(|(words, _)| words[1..3] == ["gre", "csum"])
        .unwrap();
    let mut bytes = bytes;
    bytes[24] ^= 1;
    let known = knows_gue();
    let outcome = receive(&mut ethernet(&bytes, false), &known);
    assert_eq!(outcome, Outcome::Drop, "{words:?}");
    assert_eq!(known.notes(), [Note::BadChecksum]);
}

#[test]
fn gue_to_another_port_stays_uncounted() {
    let (_, bytes) = recorded().remove(0);
    stays(ethernet(&bytes, false), None);
}

#[test]
fn headers_that_a_director_does_not_send_stay() {
    let gue = |change: fn(&mut Vec<u8>)| {
        let mut bytes = recorded().remove(0).1;
        change(&mut bytes);
        bytes
    };
    let gre = |change: fn(&mut Vec<u8>)| {
        let of = |(words, _): &(Vec<&str>, Vec<u8>)| words[1..3] == ["gre", "nocsum"];
        let mut bytes = recorded().into_iter().find(of).unwrap().1;
        change(&mut bytes);
        bytes
    };
    for bytes in [
        // Version 1, a control message, words of options without a flag, a flag without options.
        gue(|bytes| bytes[28] = 0x40),
        gue(|bytes| bytes[28] = 0x20),
        gue(|bytes| bytes[28] = 1),
        gue(|bytes| bytes[31] = 1),
        gue(|bytes| bytes[30] = 0x80),
        // No IP inside; a datagram that ends before the packet does.
        gue(|bytes| bytes[29] = 17),
        gue(|bytes| bytes[25] -= 1),
        // A key, a sequence number, version 1, Ethernet inside.
        gre(|bytes| bytes[20] = 0x20),
        gre(|bytes| bytes[20] = 0x10),
        gre(|bytes| bytes[21] = 1),
        gre(|bytes| bytes[22..24].copy_from_slice(&[0x65, 0x58])),
    ] {
        let mut frame = ethernet(&bytes, false);
        let (before, known) = (frame.0.clone(), knows_gue());
        assert_eq!(receive(&mut frame, &known), Outcome::Untouched);
        assert_eq!(frame.0, before);
        assert_eq!(known.notes(), [Note::OtherHeader]);
    }
}

#[test]
fn a_remote_checksum_outside_the_packet_stays() {
    let of = |(words, _): &(Vec<&str>, Vec<u8>)| words[0] == "half";
    for (start, field) in [(20u16, 4000u16), (30, 26), (20, 32)] {
        let mut bytes = recorded().into_iter().find(of).unwrap().1;
        bytes[36..38].copy_from_slice(&start.to_be_bytes());
        bytes[38..40].copy_from_slice(&field.to_be_bytes());
        // The tunnel has no checksum, so that only the packet's own is wrong.
        bytes[26..28].fill(0);
        let known = knows_gue();
        assert_eq!(
            receive(&mut ethernet(&bytes, false), &known),
            Outcome::Untouched
        );
        assert_eq!(known.notes(), [Note::OtherHeader]);
    }
}
