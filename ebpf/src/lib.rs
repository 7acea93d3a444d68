//! The compiled eBPF objects, as bytes for the programs that load them.
//!
//! `cargo xtask bpf` builds them from the binaries of this package. They are checked in, so that
//! the other packages build with stable Rust alone.
#![cfg_attr(target_arch = "bpf", no_std)]

pub mod traffic;

/// The place of the program for frames that are not plain TCP or UDP, in `PROGRAMS_XDP` and
/// `PROGRAMS_TC`.
pub const REST: u32 = 0;
/// The place of the program for translated flows.
pub const TRANSLATE: u32 = 1;
/// The place of the program for ICMP messages.
pub const RELATED: u32 = 2;
/// The place of the program for packets that may belong to a SIP call.
pub const CALL: u32 = 3;
/// The place of the program for ICMP errors that open a connection.
pub const QUOTED: u32 = 4;
/// The place of the program for ESP and AH.
pub const SECURED: u32 = 5;
/// The place of tc's first program. A frame that had no Ethernet header goes there once it has one.
pub const FIRST: u32 = 6;
/// The number of places.
pub const PROGRAMS: u32 = 7;
/// The programs behind each hook's first program: the end of the name, and the place.
pub const LATER: [(&str, u32); 6] = [
    ("rest", REST),
    ("translate", TRANSLATE),
    ("icmp", RELATED),
    ("call", CALL),
    ("quoted", QUOTED),
    ("secured", SECURED),
];

/// Bytes that are aligned for the reading of an ELF header.
#[cfg(not(target_arch = "bpf"))]
#[repr(C, align(32))]
struct Aligned<Bytes: ?Sized>(Bytes);

/// The director: `director_xdp` and `director_tc`, each with the programs of [`LATER`];
/// `director_leave`, `director_bare`, `director_handed`, `director_clock`, `director_pass`; and the
/// `caller_*` programs for the director's own processes.
#[cfg(not(target_arch = "bpf"))]
pub static DIRECTOR: &[u8] = {
    static OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!("../object/director.o"));
    &OBJECT.0
};

/// The real server's agent: `realserver_xdp`, `realserver_in`, `realserver_out`; `realserver_hear`,
/// `realserver_peer4`, `realserver_peer6`.
#[cfg(not(target_arch = "bpf"))]
pub static REALSERVER: &[u8] = {
    static OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!("../object/realserver.o"));
    &OBJECT.0
};

/// The bench: a packet driver, the programs that the director is compared with, and both ends of a
/// wire.
#[cfg(not(target_arch = "bpf"))]
pub static BENCH: &[u8] = {
    static OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!("../object/bench.o"));
    &OBJECT.0
};
