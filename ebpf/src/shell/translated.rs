//! Subprograms for packets of translated flows.

use aya_ebpf::bindings::{__sk_buff, xdp_md};
use shunt_datapath::translate;

use super::maps::Maps;
use super::skb::SkbFrame;
use super::subprograms::both;
use super::xdp::XdpFrame;

/// Translates and forwards a packet of a translated flow.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn translate_xdp(context: *mut xdp_md, server: u32) -> u64 {
    translate::carry(&mut XdpFrame(context), &Maps, server).0
}

/// Translates and forwards an ICMP error about a translated flow.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn translate_error_xdp(context: *mut xdp_md) -> u64 {
    translate::error::follow(&mut XdpFrame(context), &Maps).0
}

/// The id of the service whose flow is about to be entered, or `NONE`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn asked_xdp(context: *mut xdp_md, ports: u32) -> u32 {
    translate::enter::asked(&XdpFrame(context), &Maps, both(ports, 0))
}

/// Enters both translations of a flow.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn enter_xdp(context: *mut xdp_md, ports: u32, server: u32, service: u32) -> u64 {
    translate::enter::enter(&XdpFrame(context), &Maps, both(ports, 0), server, service).0
}

/// Translates and forwards a packet of a translated flow.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn translate_tc(context: *mut __sk_buff, server: u32) -> u64 {
    translate::carry(&mut SkbFrame(context), &Maps, server).0
}

/// Translates and forwards an ICMP error about a translated flow.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn translate_error_tc(context: *mut __sk_buff) -> u64 {
    translate::error::follow(&mut SkbFrame(context), &Maps).0
}

/// The id of the service whose flow is about to be entered, or `NONE`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn asked_tc(context: *mut __sk_buff, ports: u32) -> u32 {
    translate::enter::asked(&SkbFrame(context), &Maps, both(ports, 0))
}

/// Enters both translations of a flow.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn enter_tc(context: *mut __sk_buff, ports: u32, server: u32, service: u32) -> u64 {
    translate::enter::enter(&SkbFrame(context), &Maps, both(ports, 0), server, service).0
}

/// Blanks the options by which a client would name another one.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn disown_xdp(context: *mut xdp_md) -> u64 {
    translate::disown::disown(&mut XdpFrame(context), &Maps).0
}

/// Blanks the options by which a client would name another one.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn disown_tc(context: *mut __sk_buff) -> u64 {
    translate::disown::disown(&mut SkbFrame(context), &Maps).0
}
