//! The rare parts of the walk, each a function that the verifier looks at once and alone.
//!
//! Global functions in the kernel's sense: they take the context or numbers and return a number.
//! A call costs about 9 ns, which only new connections, tunnels with a
//! header of their own, ICMP messages and answers pay.

use aya_ebpf::bindings::{__sk_buff, xdp_md};
use shunt_datapath::family::{V4, V6};
use shunt_datapath::frame::Frame;
use shunt_datapath::packet::Ports;
use shunt_datapath::schedule::{self, Client};
use shunt_datapath::translate::cross;
use shunt_datapath::verdict::Bounce;
use shunt_datapath::{
    claim, crc, fragment, icmp, lookup, open, origin, packet, peer, reply, sctp, template, track,
    translate, tunnel,
};

use super::fib;
use super::maps::Maps;
use super::shift;
use super::skb::SkbFrame;
use super::sum;
use super::xdp::XdpFrame;

/// The server for a new connection; 0 if there is none.
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

/// The cheapest slot for a new IPv4 flow.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn cheapest4(hash: u64) -> u64 {
    track::cheapest::<V4, Maps>(&Maps, hash)
}

/// The cheapest slot for a new IPv6 flow.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn cheapest6(hash: u64) -> u64 {
    track::cheapest::<V6, Maps>(&Maps, hash)
}

/// The server for a new connection of a persistent IPv4 service.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn recall4(service: u32, client: u32, server: u32) -> u32 {
    template::recall::<V4, Maps>(&Maps, service, client, server)
}

/// The same for IPv6.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn recall6(service: u32, a: u64, b: u64, server: u32) -> u32 {
    template::recall::<V6, Maps>(&Maps, service, [a, b], server)
}

/// The endpoint of every port of an IPv4 address.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn wide4(address: u32, word: u32) -> u32 {
    lookup::wide::<V4, Maps>(&Maps, address, word)
}

/// The same for IPv6.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn wide6(a: u64, b: u64, word: u32) -> u32 {
    lookup::wide::<V6, Maps>(&Maps, [a, b], word)
}

/// The endpoint of packets from somewhere to an IPv4 address.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn origin4(target: u32, word: u32, source: u32, interface: u32) -> u32 {
    origin::find::<V4, Maps>(&Maps, target, word, source, interface)
}

/// The same for IPv6; the word and the interface are in one number, for a function of the kernel
/// has five at the most.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn origin6(a: u64, b: u64, source_a: u64, source_b: u64, both: u64) -> u32 {
    let (word, interface) = (both as u32, (both >> 32) as u32);
    origin::find::<V6, Maps>(&Maps, [a, b], word, [source_a, source_b], interface)
}

/// Ports and events of an SCTP packet.
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
    sctp::next(state, direction, flags)
}

/// What a change of two bytes changes of a CRC32c.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn crc_change(changed: u32, behind: u32) -> u32 {
    crc::change(changed as u16, behind)
}

/// Whether another connection has the answers of a new one.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn taken_xdp(context: *mut xdp_md, ports: u32, id: u32) -> u32 {
    claim::taken(&XdpFrame(context), &Maps, ports, id) as u32
}

/// Whether another connection has the answers of a new one.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn taken_tc(context: *mut __sk_buff, ports: u32, id: u32) -> u32 {
    claim::taken(&SkbFrame(context), &Maps, ports, id) as u32
}

#[inline(always)]
pub fn both(ports: u32, flags: u32) -> Ports {
    Ports {
        source: ports as u16,
        target: (ports >> 16) as u16,
        flags: flags as u8,
    }
}

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

/// Remembers a first fragment.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn first_xdp(context: *mut xdp_md) -> u32 {
    fragment::first(&XdpFrame(context), &Maps);
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn later_xdp(context: *mut xdp_md) -> u64 {
    fragment::later(&XdpFrame(context), &Maps).0
}

/// The endpoint of a frame from somewhere.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn origin_xdp(context: *mut xdp_md, word: u32) -> u32 {
    origin::of_frame(&XdpFrame(context), &Maps, word)
}

/// A fragment of a datagram that gets no entry.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn one_packet_xdp(context: *mut xdp_md, server: u32) -> u64 {
    fragment::one_packet(&XdpFrame(context), &Maps, server).0
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn route4_xdp(context: *mut xdp_md, source: u32, target: u32) -> u32 {
    let interface = XdpFrame(context).interface();
    let (source, target) = ([source as u64, 0], [target as u64, 0]);
    fib::ask(context.cast(), interface, false, source, target)
}

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

/// Whether another director forwarded the frame.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn forwarded_tc(context: *mut __sk_buff, service: u32, a: u64, b: u64) -> u32 {
    peer::forwarded(&SkbFrame(context), &Maps, service, [a, b]) as u32
}

/// Remembers a first fragment.
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

/// The endpoint of a frame from somewhere.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn origin_tc(context: *mut __sk_buff, word: u32) -> u32 {
    origin::of_frame(&SkbFrame(context), &Maps, word)
}

/// A fragment of a datagram that gets no entry.
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

/// A number below 64, as that of a place in the headers is: the verifier does not know who calls.
#[inline(always)]
fn near(place: u32) -> usize {
    (place & 63) as usize
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn options_xdp(context: *mut xdp_md, l3: u32, header: u32) -> u64 {
    packet::options(&XdpFrame(context), near(l3), near(header)).map_or(sum::MISSING, u64::from)
}

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

/// Tells a server who the client is.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn announce_xdp(context: *mut xdp_md) -> u64 {
    translate::announce::announce(&mut XdpFrame(context), &Maps).0
}

/// Tells a server who the client is.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn announce_tc(context: *mut __sk_buff) -> u64 {
    translate::announce::announce(&mut SkbFrame(context), &Maps).0
}

/// Brings a client's packet to a server that is told of it by a header.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn introduce_xdp(context: *mut xdp_md) -> u64 {
    translate::proxy::introduce(&mut XdpFrame(context), &Maps).0
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn acknowledge_xdp(context: *mut xdp_md) -> u64 {
    translate::proxy::acknowledge(&mut XdpFrame(context), &Maps).0
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn shift_xdp(context: *mut xdp_md, from: u32, bytes: u32, length: u32) -> u32 {
    shift::by(&XdpFrame(context), from, bytes, length)
}

/// Brings a client's packet to a server that is told of it by a header.
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

/// Takes an IPv4 packet to the other family.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn cross4_xdp(context: *mut xdp_md) -> u64 {
    cross::carry4(&mut XdpFrame(context), &Maps).0
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn cross_error4_xdp(context: *mut xdp_md) -> u64 {
    cross::error::follow4(&mut XdpFrame(context), &Maps).0
}

/// Takes an IPv6 packet to the other family.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn cross6_xdp(context: *mut xdp_md) -> u64 {
    cross::carry6(&mut XdpFrame(context), &Maps).0
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn cross_error6_xdp(context: *mut xdp_md) -> u64 {
    cross::error::follow6(&mut XdpFrame(context), &Maps).0
}

/// Takes an IPv4 packet to the other family.
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

/// Takes an IPv6 packet to the other family.
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
