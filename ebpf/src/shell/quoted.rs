//! Subprograms for ICMP errors that open a connection.

use aya_ebpf::bindings::{__sk_buff, xdp_md};
use shunt_datapath::{icmp, quoted};

use super::maps::Maps;
use super::skb::SkbFrame;
use super::xdp::XdpFrame;

/// The server for the connection that an ICMP error quotes.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn quoted_xdp(context: *mut xdp_md, endpoint: u32) -> u64 {
    quoted::schedule(&XdpFrame(context), &Maps, endpoint).0
}

/// Sends an ICMP error to this server.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn bring_xdp(context: *mut xdp_md, server: u32) -> u64 {
    icmp::bring_to(&mut XdpFrame(context), &Maps, server).0
}

/// The server for the connection that an ICMP error quotes.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn quoted_tc(context: *mut __sk_buff, endpoint: u32) -> u64 {
    quoted::schedule(&SkbFrame(context), &Maps, endpoint).0
}

/// Sends an ICMP error to this server.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn bring_tc(context: *mut __sk_buff, server: u32) -> u64 {
    icmp::bring_to(&mut SkbFrame(context), &Maps, server).0
}
