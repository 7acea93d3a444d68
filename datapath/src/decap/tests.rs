//! Cases of decapsulation: what arrives, what goes up.

use std::cell::RefCell;
use std::vec;
use std::vec::Vec;

use super::*;
use crate::entry::Ways;
use crate::frame::{Edit, Transport, View};
use crate::packet::Ports;
use crate::realserver::Settings;
use crate::tables::Tables;
use crate::verdict::Word;
use proptest::prelude::*;

pub(crate) const VIRTUAL4: [u8; 4] = [192, 0, 2, 10];
pub(crate) const CLIENT4: [u8; 4] = [198, 51, 100, 7];
const SERVER4: [u8; 4] = [10, 1, 0, 7];
const DIRECTOR4: [u8; 4] = [10, 1, 0, 1];
pub(crate) const VIRTUAL6: [u8; 16] = address6(2, 10);
pub(crate) const CLIENT6: [u8; 16] = address6(0xc, 7);
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

/// Puts lengths and checksum in order.
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
        if bytes == mapped(VIRTUAL4) || bytes == VIRTUAL6 {
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

    fn open<const BYTES: usize>(&mut self, _: usize, _: bool) -> bool {
        false
    }

    fn close(&mut self, l3: usize, bytes: usize, _: bool) -> bool {
        self.0.drain(l3..l3 + bytes);
        true
    }

    fn truncate(&mut self, _: usize) -> bool {
        false
    }

    fn carry(&mut self, transport: Transport, pseudo: u32, other: u32) {
        let mut field = self.edit::<2>(transport.field).unwrap();
        let sum = field.view().u16::<0>();
        field.set_u16::<0>(checksum::update(sum, checksum::add(pseudo, other)));
    }

    fn begin<T: Tables>(&self, _: &T, _: Ports, _: u32) -> Word {
        unreachable!()
    }

    fn first<T: Tables>(&self, _: &T) {}

    fn later<T: Tables>(&self, _: &T) -> Word {
        unreachable!()
    }

    fn interface(&self) -> u32 {
        0
    }

    fn route(&self, _: bool, _: [u64; 2]) -> Option<Ways> {
        None
    }

    fn sum(&self, _: usize) -> Option<u32> {
        None
    }
}
