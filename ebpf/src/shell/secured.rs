//! Subprograms for ESP and AH.

use aya_ebpf::bindings::{__sk_buff, xdp_md};
use shunt_datapath::secured;

use super::maps::Maps;
use super::skb::SkbFrame;
use super::xdp::XdpFrame;

/// Forwards a packet of ESP or AH.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn secured_xdp(context: *mut xdp_md) -> u64 {
    secured::carry(&mut XdpFrame(context), &Maps).0
}

/// Forwards a packet of ESP or AH.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn secured_tc(context: *mut __sk_buff) -> u64 {
    secured::carry(&mut SkbFrame(context), &Maps).0
}
