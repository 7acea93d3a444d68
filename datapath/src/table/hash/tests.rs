//! Keys that count up in one field or two, as people choose them, spread like random keys.

use std::string::String;
use std::vec;
use std::vec::Vec;

use super::{first, second};
use crate::table::endpoint::{self, Bucket, Endpoint};
use crate::table::entry::{
    BACK, Bucket4, Bucket6, Endpoint4, Endpoint6, endpoint_word, kind, wide as stretch,
};
use crate::table::flows::{self, Key, Narrow, Wide};
use crate::table::translation::ends;
use crate::tunnel;

const SEEDS: [u64; 3] = [0x5eed, 0x0123_4567_89ab_cdef, 0x8421_c639_1f0e_d2b5];
/// Bits of a bucket's number.
const TABLES: [u32; 3] = [8, 12, 16];

/// A kind of key: its length in bytes, and its hash.
struct Kind {
    name: &'static str,
    bytes: usize,
    hash: fn(&[u8; 24], u64) -> u64,
}

fn word(bytes: &[u8; 24], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn half(bytes: &[u8; 24], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn port(bytes: &[u8; 24], at: usize) -> u16 {
    u16::from_ne_bytes([bytes[at], bytes[at + 1]])
}

/// An id whose lowest byte is the last one, so that keys count through ids.
fn id(bytes: &[u8; 24], at: usize) -> u32 {
    u32::from_be_bytes([0, bytes[at], bytes[at + 1], bytes[at + 2]])
}

/// Every hash that gives the two buckets of a key.
const KINDS: [Kind; 4] = [
    Kind {
        name: "IPv4 flows",
        bytes: 9,
        hash: |bytes, seed| {
            let key = Key::v4(half(bytes, 0), port(bytes, 4), id(bytes, 6));
            flows::hash::<Narrow>(&key, seed)
        },
    },
    Kind {
        name: "IPv6 flows",
        bytes: 21,
        hash: |bytes, seed| {
            let address = [word(bytes, 0), word(bytes, 8)];
            let key = Key::v6(address, port(bytes, 16), id(bytes, 18));
            flows::hash::<Wide>(&key, seed)
        },
    },
    Kind {
        name: "IPv4 endpoints",
        bytes: 8,
        hash: |bytes, seed| {
            let word = endpoint_word(port(bytes, 4), bytes[6], bytes[7]);
            let address = [u64::from(half(bytes, 0)), 0];
            Bucket4::hash(address, word, seed)
        },
    },
    Kind {
        name: "IPv6 endpoints",
        bytes: 20,
        hash: |bytes, seed| {
            let word_of = endpoint_word(port(bytes, 16), bytes[18], bytes[19]);
            Bucket6::hash([word(bytes, 0), word(bytes, 8)], word_of, seed)
        },
    },
];

/// The keys from which counting begins: zeros, and a realistic address.
const BASES: [[u8; 24]; 2] = [
    [0; 24],
    [
        0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 9, 0x9c, 0x41, 6, 1, 0, 3, 0, 0,
    ],
];

/// Sets of keys that count up.
fn sets(bytes: usize) -> Vec<(String, Vec<[u8; 24]>)> {
    let mut sets = Vec::new();
    for base in BASES {
        let with = |steps: &[(usize, u8)]| {
            let mut key = base;
            for (at, step) in steps {
                key[*at] = key[*at].wrapping_add(*step);
            }
            key
        };
        for a in 0..bytes {
            let name = |what: &str, b: usize| std::format!("{what} {a} and {b} of {base:?}");
            // One byte, and each nibble of it.
            sets.push((
                name("byte", a),
                (0..=255).map(|n| with(&[(a, n)])).collect(),
            ));
            // Two bytes that count together, and all combinations of two bytes.
            for b in a + 1..bytes {
                let both = (0..=255).map(|n| with(&[(a, n), (b, n)])).collect();
                sets.push((name("together", b), both));
                let forth = (0..=255u8).map(|n| with(&[(a, n), (b, n.wrapping_neg())]));
                sets.push((name("against", b), forth.collect()));
                {
                    let grid = |shift: u8| {
                        let cell = |n: usize| ((n & 31) as u8, (n >> 5) as u8);
                        let keys = (0..1024).map(|n| {
                            let (x, y) = cell(n);
                            with(&[(a, x << shift), (b, y << shift)])
                        });
                        keys.collect::<Vec<_>>()
                    };
                    sets.push((name("each with each", b), grid(0)));
                    sets.push((name("in high bits", b), grid(3)));
                    let nibbles = (0..=255u8).map(|n| with(&[(a, n << 4), (b, n & 0xf0)]));
                    sets.push((name("nibbles", b), nibbles.collect()));
                }
            }
        }
    }
    sets
}

/// The number of pairs of keys that share a bucket.
fn pairs(buckets: impl Iterator<Item = u32> + Clone, held: &mut [u16]) -> u64 {
    let mut pairs = 0;
    for bucket in buckets.clone() {
        let count = &mut held[bucket as usize];
        pairs += u64::from(*count);
        *count += 1;
    }
    for bucket in buckets {
        held[bucket as usize] = 0;
    }
    pairs
}

/// More pairs than random keys have in any of the quarter of a million draws here. Random keys
/// differ from the mean by at most five times its square root, ours by at most nine times. Hashes
/// in which two fields cancel each other differ by hundreds.
fn most_pairs(keys: usize, size: usize) -> u64 {
    let mean = keys as f64 * (keys as f64 - 1.0) / 2.0 / size as f64;
    (mean + 4.0 + 10.0 * (mean + 4.0).sqrt()) as u64
}

#[test]
fn keys_that_are_counted_up_share_buckets_no_more_than_random_ones() {
    let mut held = vec![0u16; 1 << 16];
    for kind in KINDS {
        for (name, keys) in sets(kind.bytes) {
            for seed in SEEDS {
                let hashes: Vec<u64> = keys.iter().map(|key| (kind.hash)(key, seed)).collect();
                for bits in TABLES {
                    for (which, of) in CHOICES {
                        let buckets = hashes.iter().map(|hash| of(*hash, bits));
                        let found = pairs(buckets, &mut held);
                        assert!(
                            found <= most_pairs(keys.len(), 1 << bits),
                            "{}, {which} of {bits} bits, {name}, seed {seed:x}: {found} pairs of {}",
                            kind.name,
                            keys.len()
                        );
                    }
                }
            }
        }
    }
}

/// A name, and a function that makes a number of so many bits from a hash.
type Choice = (&'static str, fn(u64, u32) -> u32);

const CHOICES: [Choice; 3] = [
    ("first", |hash, bits| first(hash, mask(bits))),
    ("second", |hash, bits| second(hash, mask(bits))),
    // Keys that share the first bucket must not share the second one too. One bit of the second
    // bucket's number follows from the first one's.
    ("both", |hash, bits| {
        let half = bits / 2;
        first(hash, mask(half)) << half | second(hash, mask(half + 1)) >> 1
    }),
];

fn mask(bits: u32) -> u32 {
    (1 << bits) - 1
}

#[test]
fn there_are_always_two_buckets() {
    for mask in [1, 3, 0xffff] {
        for hash in 0..1000u64 {
            let hash = hash.wrapping_mul(super::FACTOR);
            assert_ne!(first(hash, mask), second(hash, mask));
            assert!(second(hash, mask) <= mask);
        }
    }
    assert_eq!(second(7, 0), 0);
}

/// An address with this number added at one byte.
fn v6(at: usize, number: u8) -> [u64; 2] {
    let mut bytes = BASES[1];
    bytes[at] = number;
    [word(&bytes, 0), word(&bytes, 8)]
}

// A table that is nearly empty never refuses.
#[test]
fn a_table_of_endpoints_takes_all_addresses_that_differ_in_one_byte() {
    for seed in SEEDS {
        for at in 0..16 {
            let mut buckets = vec![
                Bucket6 {
                    slots: [Endpoint6::default(); 2]
                };
                1024
            ];
            for number in 0..=255 {
                for kind in [kind::SERVICE, kind::ADDRESS] {
                    let word =
                        endpoint_word(if kind == kind::SERVICE { 0x5000 } else { 0 }, 6, kind);
                    let endpoint = Endpoint {
                        address: v6(at, number),
                        word,
                        id: 1,
                    };
                    let placed = endpoint::place(&mut buckets[..], seed, endpoint);
                    assert!(placed.is_ok(), "byte {at}, {number}, seed {seed:x}");
                }
            }
        }
        for at in 0..4 {
            let mut buckets = vec![
                Bucket4 {
                    slots: [Endpoint4::default(); 4]
                };
                512
            ];
            for number in 0..=255u32 {
                for kind in [kind::MASQUERADED, kind::ADDRESS] {
                    let word =
                        endpoint_word(if kind == kind::ADDRESS { 0 } else { 0x5000 }, 17, kind);
                    let address = [u64::from(0x0100_000a ^ number << (8 * at)), 0];
                    let placed = endpoint::place(
                        &mut buckets[..],
                        seed,
                        Endpoint {
                            address,
                            word,
                            id: 1,
                        },
                    );
                    assert!(placed.is_ok(), "byte {at}, {number}, seed {seed:x}");
                }
            }
        }
    }
}

// A client with connections from neighbouring ports to neighbouring services of every port.
#[test]
fn stretches_of_every_port_and_ports_do_not_cancel_each_other() {
    for seed in SEEDS {
        for back in [0, BACK] {
            let hash = |(port, number): (u16, u16)| {
                let id = stretch(u32::from(number)) | u32::from(port.wrapping_add(number)) | back;
                let port = (40_000 + port + number).to_be();
                flows::hash::<Narrow>(&Key::v4(0x0964_33c6, port, id), seed)
            };
            let keys = (0..64u16).flat_map(|port| (0..64u16).map(move |number| (port, number)));
            let mut held = vec![0; 1 << 16];
            let found = pairs(keys.map(|key| first(hash(key), 0xffff)), &mut held);
            assert!(
                found <= most_pairs(4096, 1 << 16),
                "seed {seed:x}: {found} pairs"
            );
        }
    }
}

// The draw of a local port uses each half of the hash as a fraction.
#[test]
fn draws_of_neighbours_differ_in_both_halves() {
    for seed in SEEDS {
        for at in 0..16 {
            for shift in [0, 32] {
                let drawn = (0..=255).map(|number| {
                    let hash =
                        super::wide(v6(at, number), ends(1, 2, 6, false) & 0xffff_ffff, seed);
                    let part = hash >> shift & 0xffff_ffff;
                    (part.wrapping_mul(4096) >> 32) as u32
                });
                let found = pairs(drawn, &mut [0; 4096]);
                assert!(
                    found <= most_pairs(256, 4096),
                    "byte {at}, bits {shift}: {found}"
                );
            }
        }
    }
}

#[test]
fn source_ports_of_tunnels_spread_clients_and_ports() {
    let mut held = vec![0; 1 << 16];
    for seed in SEEDS {
        for at in 0..16 {
            let of = |number: u8| tunnel::port(seed, (v6(at, number), v6(0, 0x20)), 6, 7);
            let ports = (0..=255).map(|number| u32::from(of(number)));
            let found = pairs(ports, &mut held);
            assert!(
                found <= most_pairs(256, 28_232),
                "source byte {at}: {found}"
            );
            let of = |number: u8| tunnel::port(seed, (v6(0, 0x20), v6(at, number)), 6, 7);
            let ports = (0..=255).map(|number| u32::from(of(number)));
            let found = pairs(ports, &mut held);
            assert!(
                found <= most_pairs(256, 28_232),
                "target byte {at}: {found}"
            );
        }
        for shift in [0, 8, 16, 24] {
            let of = |number: u32| tunnel::port(seed, (v6(0, 1), v6(0, 2)), 17, number << shift);
            let ports = (0..=255).map(|number| u32::from(of(number)));
            let found = pairs(ports, &mut held);
            assert!(found <= most_pairs(256, 28_232), "ports {shift}: {found}");
        }
    }
}
