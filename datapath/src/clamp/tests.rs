//! Cases of the segment size: the MSS that a server announces, and the MSS that leaves.

use std::vec::Vec;

use super::*;
use crate::decap::tests::{
    Bytes, CLIENT4, CLIENT6, Known, VIRTUAL4, VIRTUAL6, ethernet, packet4, packet6, sum, tagged,
};
use proptest::prelude::*;

const SYN_ACK: u8 = flag::SYN | flag::ACK;
const MSS_1460: [u8; 4] = [2, 4, 0x05, 0xb4];

#[test]
fn a_syn_ack_announces_what_fits_the_tunnel() {
    for v6 in [false, true] {
        for tag in [false, true] {
            let (frame, known) = clamped(segment(v6, SYN_ACK, &MSS_1460), v6, tag);
            let limit: u16 = if v6 { 1380 } else { 1420 };
            let [.., high, low] = frame[..] else {
                panic!("no frame")
            };
            assert_eq!(u16::from_be_bytes([high, low]), limit);
            assert_eq!(known.notes(), [Note::Clamped]);
        }
    }
}

#[test]
fn a_smaller_size_is_not_raised() {
    unchanged(false, SYN_ACK, &[2, 4, 0x02, 0x18]);
    unchanged(true, SYN_ACK, &[2, 4, 0x04, 0xc4]);
}

#[test]
fn only_segments_that_open_a_connection_are_changed() {
    unchanged(false, flag::ACK, &MSS_1460);
    unchanged(true, flag::ACK, &MSS_1460);
}

#[test]
fn segments_from_other_addresses_are_not_changed() {
    let frame = ethernet(
        &packet4(CLIENT4, VIRTUAL4, TCP, &tcp(SYN_ACK, &MSS_1460)),
        false,
    );
    assert_eq!(look(&frame, &known()), None);
}

#[test]
fn an_option_behind_eight_others_is_not_looked_for() {
    unchanged(false, SYN_ACK, &[1, 1, 1, 1, 1, 1, 1, 1, 2, 4, 0x05, 0xb4]);
}

#[test]
fn options_that_make_no_sense_end_the_search() {
    unchanged(false, SYN_ACK, &[0, 2, 4, 0x05, 0xb4, 0, 0, 0]);
    unchanged(false, SYN_ACK, &[8, 0, 2, 4, 0x05, 0xb4, 0, 0]);
    unchanged(false, SYN_ACK, &[8, 200, 2, 4, 0x05, 0xb4, 0, 0]);
    unchanged(false, SYN_ACK, &[2, 3, 0x05, 0xb4]);
    unchanged(false, SYN_ACK, &[1, 1, 1, 2]);
    unchanged(false, SYN_ACK, &[]);
}

proptest! {
    #[test]
    fn the_checksum_stays_right_wherever_the_option_lies(v6: bool, nothings in 0usize..15, size in 1u16.., tag: bool) {
        let mut options = [NOTHING].repeat(nothings);
        options.extend([2, 4]);
        options.extend(size.to_be_bytes());
        while options.len() % 4 != 0 {
            options.push(END);
        }
        // `clamped` verifies the checksum.
        clamped(segment(v6, SYN_ACK, &options), v6, tag);
    }

    #[test]
    fn whatever_the_options_nothing_is_read_beyond_them(options in prop::collection::vec(any::<u8>(), 0..=10)) {
        let words: Vec<u8> = options.iter().flat_map(|b| [*b, 2, *b, 4]).collect();
        clamped(segment(false, SYN_ACK, &words), false, false);
    }
}

fn unchanged(v6: bool, flags: u8, options: &[u8]) {
    let packet = segment(v6, flags, options);
    let (frame, known) = clamped(packet.clone(), v6, false);
    assert_eq!(frame, ethernet(&packet, v6).0);
    assert_eq!(known.notes(), []);
}

/// The frame after the change. Verifies the checksum.
fn clamped(packet: Vec<u8>, v6: bool, tag: bool) -> (Vec<u8>, Known) {
    let mut frame = ethernet(&packet, v6);
    if tag {
        frame = tagged(frame);
    }
    let known = known();
    if let Some(change) = look(&frame, &known) {
        apply(&mut frame, &change).unwrap();
    }
    let Bytes(frame) = frame;
    let l3 = if tag { 18 } else { 14 };
    assert!(is_right(&frame[l3..], v6), "the checksum is wrong");
    (frame, known)
}

fn known() -> Known {
    let known = Known::default();
    known.settings.borrow_mut().segment4 = 1420;
    known.settings.borrow_mut().segment6 = 1380;
    known
}

fn tcp(flags: u8, options: &[u8]) -> Vec<u8> {
    let words = 5 + options.len() / 4;
    let mut tcp = Vec::from([0, 80, 0x30, 0x39, 0, 0, 0, 1, 0, 0, 0, 2]);
    tcp.extend([(words as u8) << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
    tcp.extend(options);
    tcp
}

/// A SYN from a virtual address to a client, with a correct checksum.
fn segment(v6: bool, flags: u8, options: &[u8]) -> Vec<u8> {
    let tcp = tcp(flags, options);
    let mut packet = if v6 {
        packet6(VIRTUAL6, CLIENT6, TCP, &tcp)
    } else {
        packet4(VIRTUAL4, CLIENT4, TCP, &tcp)
    };
    let at = if v6 { 40 + 16 } else { 20 + 16 };
    let sum = !with_pseudo_header(&packet, v6);
    packet[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    packet
}

fn is_right(packet: &[u8], v6: bool) -> bool {
    with_pseudo_header(packet, v6) == 0xffff
}

fn with_pseudo_header(packet: &[u8], v6: bool) -> u16 {
    let (addresses, tcp) = if v6 {
        (8..40, &packet[40..])
    } else {
        (12..20, &packet[20..])
    };
    let mut all = packet[addresses].to_vec();
    all.extend([0, TCP]);
    all.extend((tcp.len() as u16).to_be_bytes());
    all.extend(tcp);
    sum(&all)
}
