//! Subprograms: the rare parts of the walk, each a function that the verifier checks once, apart
//! from its callers.
//!
//! The kernel calls them global functions. They take the context or numbers, and return a number. A
//! call costs about 9 ns. Only new connections, tunnels, ICMP messages, fragments, answers of the
//! director and the like pay it.
//!
//! A function for both hooks is documented at its XDP form.

use aya_ebpf::bindings::{__sk_buff, xdp_md};
use shunt_datapath::connection::sctp as association;
use shunt_datapath::family::{V4, V6};
use shunt_datapath::frame::Frame;
use shunt_datapath::packet::Ports;
use shunt_datapath::schedule::{self, Client};
use shunt_datapath::table::lookup;
use shunt_datapath::translate::cross;
use shunt_datapath::verdict::Bounce;
use shunt_datapath::wire::{crc, packet, sctp};
use shunt_datapath::{
    claim, fragment, icmp, open, origin, peer, reply, template, track, translate, tunnel,
};

use super::fib;
use super::maps::Maps;
use super::shift;
use super::skb::SkbFrame;
use super::sum;
use super::xdp::XdpFrame;

/// The server that the scheduler picks for a new connection, or `NONE`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn schedule(service: u32, address: u32, port: u32, a: u64, b: u64) -> u32 {
    schedule::pick(
        &Maps,
        service,
        Client {
            address,
            port: port as u16,
            target: [a, b],
        },
    )
}

/// The number of the slot for a new IPv4 flow.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn cheapest4(hash: u64) -> u64 {
    track::cheapest::<V4, Maps>(&Maps, hash)
}

/// The number of the slot for a new IPv6 flow.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn cheapest6(hash: u64) -> u64 {
    track::cheapest::<V6, Maps>(&Maps, hash)
}

/// The server in the template of an IPv4 client, or `NONE`. A `server` other than `NONE` is entered
/// into the template.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn recall4(service: u32, client: u32, server: u32) -> u32 {
    template::recall::<V4, Maps>(&Maps, service, client, server)
}

/// The server in the template of an IPv6 client, or `NONE`. A `server` other than `NONE` is entered
/// into the template.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn recall6(service: u32, a: u64, b: u64, server: u32) -> u32 {
    template::recall::<V6, Maps>(&Maps, service, [a, b], server)
}

/// The endpoint that covers every port of an IPv4 address.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn wide4(address: u32, word: u32) -> u32 {
    lookup::wide::<V4, Maps>(&Maps, address, word)
}

/// The endpoint that covers every port of an IPv6 address.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn wide6(a: u64, b: u64, word: u32) -> u32 {
    lookup::wide::<V6, Maps>(&Maps, [a, b], word)
}

/// The mark endpoint that matches an IPv4 packet's target, source and interface, or `NONE`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn origin4(target: u32, word: u32, source: u32, interface: u32) -> u32 {
    origin::find::<V4, Maps>(&Maps, target, word, source, interface)
}

/// The mark endpoint that matches an IPv6 packet's target, source and interface, or `NONE`. `both`
/// holds the word and the interface: a subprogram takes at most five arguments.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn origin6(a: u64, b: u64, source_a: u64, source_b: u64, both: u64) -> u32 {
    let (word, interface) = (both as u32, (both >> 32) as u32);
    origin::find::<V6, Maps>(&Maps, [a, b], word, [source_a, source_b], interface)
}

/// The ports and chunk events of an SCTP packet, or 0.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn association_xdp(context: *mut xdp_md, l4: u32, end: u32) -> u64 {
    sctp::read(&XdpFrame(context), (l4 & 1023) as usize, end as usize)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn association_tc(context: *mut __sk_buff, l4: u32, end: u32) -> u64 {
    sctp::read(&SkbFrame(context), (l4 & 1023) as usize, end as usize)
}

/// The next state of an SCTP association.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn association_next(state: u32, direction: u32, flags: u32) -> u32 {
    association::next(state, direction, flags)
}

/// The change of a CRC32c that a change of two bytes causes; `behind` bytes follow them.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn crc_change(changed: u32, behind: u32) -> u32 {
    crc::change(changed as u16, behind)
}

/// Whether the answers of a new connection would belong to another live connection.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn taken_xdp(context: *mut xdp_md, ports: u32, id: u32) -> u32 {
    claim::taken(&XdpFrame(context), &Maps, ports, id) as u32
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn taken_tc(context: *mut __sk_buff, ports: u32, id: u32) -> u32 {
    claim::taken(&SkbFrame(context), &Maps, ports, id) as u32
}

/// Ports from one number, the source in the low half.
#[inline(always)]
pub fn both(ports: u32, flags: u32) -> Ports {
    Ports {
        source: ports as u16,
        target: (ports >> 16) as u16,
        flags: flags as u8,
    }
}

/// Opens a connection to the server that was picked.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn begin_xdp(
    context: *mut xdp_md,
    ports: u32,
    flags: u32,
    server: u32,
    service: u32,
) -> u64 {
    open::begin(
        &XdpFrame(context),
        &Maps,
        both(ports, flags),
        server,
        service,
    )
    .0
}

/// Whether another director forwarded the frame.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn forwarded_xdp(context: *mut xdp_md, service: u32, a: u64, b: u64) -> u32 {
    peer::forwarded(&XdpFrame(context), &Maps, service, [a, b]) as u32
}

/// Remembers the ports of a first fragment for the later ones.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn first_xdp(context: *mut xdp_md) -> u32 {
    fragment::first(&XdpFrame(context), &Maps);
    0
}

/// The ports of a later fragment, or its verdict.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn later_xdp(context: *mut xdp_md) -> u64 {
    fragment::later(&XdpFrame(context), &Maps).0
}

/// The endpoint of a frame: a mark endpoint that also matches the source, or else the endpoint of
/// every port, or `NONE`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn origin_xdp(context: *mut xdp_md, word: u32) -> u32 {
    origin::of_frame(&XdpFrame(context), &Maps, word)
}

/// Remembers the server of a first fragment for a one-packet service, and finds it for later ones.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn one_packet_xdp(context: *mut xdp_md, server: u32) -> u64 {
    fragment::one_packet(&XdpFrame(context), &Maps, server).0
}

/// Looks up the kernel's route of an IPv4 packet; [`fib::answer`] has the result if this returns 1.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn route4_xdp(context: *mut xdp_md, source: u32, target: u32) -> u32 {
    let interface = XdpFrame(context).interface();
    let (source, target) = ([source as u64, 0], [target as u64, 0]);
    fib::ask(context.cast(), interface, false, source, target)
}

/// Looks up the kernel's route of an IPv6 packet; [`fib::answer`] has the result if this returns 1.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn route6_xdp(context: *mut xdp_md, a: u64, b: u64, c: u64, d: u64) -> u32 {
    let interface = XdpFrame(context).interface();
    fib::ask(context.cast(), interface, true, [a, b], [c, d])
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn begin_tc(
    context: *mut __sk_buff,
    ports: u32,
    flags: u32,
    server: u32,
    service: u32,
) -> u64 {
    open::begin(
        &SkbFrame(context),
        &Maps,
        both(ports, flags),
        server,
        service,
    )
    .0
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn forwarded_tc(context: *mut __sk_buff, service: u32, a: u64, b: u64) -> u32 {
    peer::forwarded(&SkbFrame(context), &Maps, service, [a, b]) as u32
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn first_tc(context: *mut __sk_buff) -> u32 {
    fragment::first(&SkbFrame(context), &Maps);
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn later_tc(context: *mut __sk_buff) -> u64 {
    fragment::later(&SkbFrame(context), &Maps).0
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn origin_tc(context: *mut __sk_buff, word: u32) -> u32 {
    origin::of_frame(&SkbFrame(context), &Maps, word)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn one_packet_tc(context: *mut __sk_buff, server: u32) -> u64 {
    fragment::one_packet(&SkbFrame(context), &Maps, server).0
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn route4_tc(context: *mut __sk_buff, source: u32, target: u32) -> u32 {
    let interface = SkbFrame(context).interface();
    let (source, target) = ([source as u64, 0], [target as u64, 0]);
    fib::ask(context.cast(), interface, false, source, target)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn route6_tc(context: *mut __sk_buff, a: u64, b: u64, c: u64, d: u64) -> u32 {
    let interface = SkbFrame(context).interface();
    fib::ask(context.cast(), interface, true, [a, b], [c, d])
}

/// Decides what becomes of an ICMP message.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn related_xdp(context: *mut xdp_md) -> u64 {
    icmp::follow(&mut XdpFrame(context), &Maps).0
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn related_tc(context: *mut __sk_buff) -> u64 {
    icmp::follow(&mut SkbFrame(context), &Maps).0
}

/// The checksum of `length` bytes from offset `from` on, or [`sum::MISSING`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn sum_xdp(context: *mut xdp_md, from: u32, length: u32) -> u64 {
    sum::of(&XdpFrame(context), from, length)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn sum_tc(context: *mut __sk_buff, from: u32, length: u32) -> u64 {
    sum::of(&SkbFrame(context), from, length)
}

/// Wraps a packet into the tunnel of its server, and sends it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tunnel_xdp(context: *mut xdp_md, server: u32) -> u64 {
    tunnel::wrap(&mut XdpFrame(context), &Maps, server).0
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tunnel_tc(context: *mut __sk_buff, server: u32) -> u64 {
    tunnel::wrap(&mut SkbFrame(context), &Maps, server).0
}

/// Turns a frame into the director's own answer to it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn answer_xdp(context: *mut xdp_md, bounce: u32, mtu: u32) -> u64 {
    reply::answer(&mut XdpFrame(context), &Maps, Bounce::from(bounce), mtu).0
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn answer_tc(context: *mut __sk_buff, bounce: u32, mtu: u32) -> u64 {
    reply::answer(&mut SkbFrame(context), &Maps, Bounce::from(bounce), mtu).0
}

/// An offset in the headers, which is always below 64. The mask gives the verifier the bound, since
/// it does not know the callers.
#[inline(always)]
fn near(place: u32) -> usize {
    (place & 63) as usize
}

/// The checksum of the options of an IPv4 header, or [`sum::MISSING`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn options_xdp(context: *mut xdp_md, l3: u32, header: u32) -> u64 {
    packet::options(&XdpFrame(context), near(l3), near(header)).map_or(sum::MISSING, u64::from)
}

/// Reads the extension headers of an IPv6 packet.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn extensions_xdp(context: *mut xdp_md, l3: u32, first: u32) -> u64 {
    packet::extensions(&XdpFrame(context), near(l3), first as u8).0
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn options_tc(context: *mut __sk_buff, l3: u32, header: u32) -> u64 {
    packet::options(&SkbFrame(context), near(l3), near(header)).map_or(sum::MISSING, u64::from)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn extensions_tc(context: *mut __sk_buff, l3: u32, first: u32) -> u64 {
    packet::extensions(&SkbFrame(context), near(l3), first as u8).0
}

/// Puts the option with the client's address into a SYN for a server of full NAT.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn announce_xdp(context: *mut xdp_md) -> u64 {
    translate::announce::announce(&mut XdpFrame(context), &Maps).0
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn announce_tc(context: *mut __sk_buff) -> u64 {
    translate::announce::announce(&mut SkbFrame(context), &Maps).0
}

/// Prepares a client's packet for a server that expects a PROXY header.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn introduce_xdp(context: *mut xdp_md) -> u64 {
    translate::proxy::introduce(&mut XdpFrame(context), &Maps).0
}

/// Prepares the answer of a server that got a PROXY header for its client.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn acknowledge_xdp(context: *mut xdp_md) -> u64 {
    translate::proxy::acknowledge(&mut XdpFrame(context), &Maps).0
}

/// Moves `length` bytes at offset `from` by `bytes` ([`shift::by`]).
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn shift_xdp(context: *mut xdp_md, from: u32, bytes: u32, length: u32) -> u32 {
    shift::by(&XdpFrame(context), from, bytes, length)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn introduce_tc(context: *mut __sk_buff) -> u64 {
    translate::proxy::introduce(&mut SkbFrame(context), &Maps).0
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn acknowledge_tc(context: *mut __sk_buff) -> u64 {
    translate::proxy::acknowledge(&mut SkbFrame(context), &Maps).0
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn shift_tc(context: *mut __sk_buff, from: u32, bytes: u32, length: u32) -> u32 {
    shift::by(&SkbFrame(context), from, bytes, length)
}

/// Puts a PROXY header before the payload, or, if `keeps` is 0, in place of it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn put_xdp(context: *mut xdp_md, keeps: u32) -> u64 {
    translate::proxy::put(&mut XdpFrame(context), &Maps, keeps & 1).0
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn put_tc(context: *mut __sk_buff, keeps: u32) -> u64 {
    translate::proxy::put(&mut SkbFrame(context), &Maps, keeps & 1).0
}

/// Translates an IPv4 packet to IPv6, and forwards it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn cross4_xdp(context: *mut xdp_md) -> u64 {
    cross::carry4(&mut XdpFrame(context), &Maps).0
}

/// Translates an ICMP error of IPv4 to IPv6, and forwards it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn cross_error4_xdp(context: *mut xdp_md) -> u64 {
    cross::error::follow4(&mut XdpFrame(context), &Maps).0
}

/// Translates an IPv6 packet to IPv4, and forwards it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn cross6_xdp(context: *mut xdp_md) -> u64 {
    cross::carry6(&mut XdpFrame(context), &Maps).0
}

/// Translates an ICMP error of IPv6 to IPv4, and forwards it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn cross_error6_xdp(context: *mut xdp_md) -> u64 {
    cross::error::follow6(&mut XdpFrame(context), &Maps).0
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn cross4_tc(context: *mut __sk_buff) -> u64 {
    cross::carry4(&mut SkbFrame(context), &Maps).0
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn cross_error4_tc(context: *mut __sk_buff) -> u64 {
    cross::error::follow4(&mut SkbFrame(context), &Maps).0
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn cross6_tc(context: *mut __sk_buff) -> u64 {
    cross::carry6(&mut SkbFrame(context), &Maps).0
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn cross_error6_tc(context: *mut __sk_buff) -> u64 {
    cross::error::follow6(&mut SkbFrame(context), &Maps).0
}
