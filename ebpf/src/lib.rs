//! The compiled eBPF objects, as bytes for whoever loads them.
//!
//! They are built from this package's own binaries by `cargo xtask bpf` and checked in, so that
//! nothing but stable Rust is needed to build the rest.
#![cfg_attr(target_arch = "bpf", no_std)]

pub mod traffic;

/// The place of the program for frames that are not plain, in `PROGRAMS_XDP` and `PROGRAMS_TC`.
pub const REST: u32 = 0;
/// That of the program for translated flows.
pub const TRANSLATE: u32 = 1;
/// The place of the program for ICMP messages.
pub const RELATED: u32 = 2;
/// The place of the program for what may be a call.
pub const CALL: u32 = 3;
/// The place of the program for ICMP errors that open something.
pub const QUOTED: u32 = 4;
/// The place of the program for ESP and AH.
pub const SECURED: u32 = 5;
/// The place of tc's first program, for frames that had no Ethernet header.
pub const FIRST: u32 = 6;
/// How many places there are.
pub const PROGRAMS: u32 = 7;
/// The programs behind each hook's first one, by what their names end with.
pub const LATER: [(&str, u32); 6] = [
    ("rest", REST),
    ("translate", TRANSLATE),
    ("icmp", RELATED),
    ("call", CALL),
    ("quoted", QUOTED),
    ("secured", SECURED),
];

/// Bytes at a place where an ELF header may be read.
#[cfg(not(target_arch = "bpf"))]
#[repr(C, align(32))]
struct Aligned<Bytes: ?Sized>(Bytes);

/// The director: `director_xdp`, `director_tc`, each with those of [`LATER`], `director_leave`,
/// `director_bare`, `director_handed`, `director_clock`.
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

/// The bench: a packet driver, what it is measured against, and both ends of a wire.
#[cfg(not(target_arch = "bpf"))]
pub static BENCH: &[u8] = {
    static OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!("../object/bench.o"));
    &OBJECT.0
};
