//! The compiled eBPF objects, as bytes for whoever loads them.
#![cfg_attr(target_arch = "bpf", no_std)]

/// The programs of a real server: `realserver_xdp`, `realserver_in`, `realserver_out`.
#[cfg(not(target_arch = "bpf"))]
pub static REALSERVER: &[u8] = {
    static ALIGNED: &Aligned<[u8]> = &Aligned(*include_bytes!("../object/realserver.o"));
    &ALIGNED.0
};

/// The reader of an object casts its bytes to headers with words of 64 bits.
#[cfg(not(target_arch = "bpf"))]
#[repr(C, align(8))]
struct Aligned<B: ?Sized>(B);
