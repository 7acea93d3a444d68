//! Every method, family and protocol, both ways, with tags, options and extension headers.

use shunt_datapath::entry::{Ways, method};
use shunt_datapath::host::{Hook, mac};
use shunt_datapath::verdict::{Drop, Pass, Verdict};

use super::farm::*;
use super::packet::*;
use super::{Case, case};

const SENT: Verdict = Verdict::Send(TO_SERVER);

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for v6 in FAMILIES {
        for protocol in [TCP, UDP, SCTP] {
            for shape in shapes(v6, protocol) {
                cases.extend(all_methods(v6, protocol, &shape));
            }
            cases.push(whole_service_is_needed(v6, protocol));
        }
        cases.push(unusable_way(v6));
        cases.push(way_learned(v6));
        cases.push(no_way_back(v6));
        cases.push(stranger_behind_the_server(v6));
    }
    cases.extend(checksums());
    cases
}

/// Shapes of packets by name: tags, options, extension headers.
pub(crate) fn shapes(v6: bool, protocol: u8) -> Vec<(String, Packet)> {
    let plain = opening(protocol, client(v6), virtual_end(v6));
    let mut shapes = vec![
        ("plain".to_string(), plain.clone()),
        (
            "with an odd payload".to_string(),
            plain.clone().payload(b"abcde"),
        ),
        (
            "with a long payload".to_string(),
            plain.clone().payload(&[0x5a; 1000]),
        ),
        (
            "with a type of service".to_string(),
            plain.clone().service(0x2a),
        ),
        (
            "padded to the least Ethernet frame".to_string(),
            plain.clone().padding(18),
        ),
        ("with TTL 2".to_string(), plain.clone().ttl(2)),
        ("with TTL 255".to_string(), plain.clone().ttl(255)),
    ];
    for (name, tags) in [
        ("with a priority", vec![0x8100]),
        ("with a provider's priority", vec![0x88a8]),
    ] {
        shapes.push((name.into(), plain.clone().tags(&tags)));
    }
    if v6 {
        let hop_by_hop = [1, 4, 0, 0, 0, 0];
        let long = [1; 22];
        let one = plain.clone().extension(0, &hop_by_hop);
        shapes.push(("with hop-by-hop options".into(), one.clone()));
        shapes.push((
            "with destination options".into(),
            plain.clone().extension(60, &long),
        ));
        shapes.push((
            "with a routing header".into(),
            plain.clone().extension(43, &hop_by_hop),
        ));
        let six = one.extension(60, &long).extension(43, &hop_by_hop);
        let six = six.extension(60, &hop_by_hop).extension(60, &long);
        shapes.push(("with five extension headers".into(), six.clone()));
        shapes.push(("with six of them".into(), six.extension(60, &hop_by_hop)));
        shapes.push((
            "as a lone fragment".into(),
            plain.clone().fragment(77, 0, false),
        ));
    } else {
        shapes.push((
            "with an option".into(),
            plain.clone().options(&[1, 1, 1, 0]),
        ));
        shapes.push((
            "with 40 bytes of options".into(),
            plain.clone().options(&[1; 40]),
        ));
        shapes.push(("that may be cut".into(), plain.clone().may_be_cut(0x1234)));
    }
    if protocol == UDP && !v6 {
        shapes.push((
            "without a checksum".into(),
            plain.clone().without_checksum(),
        ));
    }
    shapes
}

fn all_methods(v6: bool, protocol: u8, shape: &(String, Packet)) -> Vec<Case> {
    let (name, packet) = shape;
    let what = format!("{} {} {name}", family_name(v6), protocol_name(protocol));
    vec![
        nat(v6, protocol, &what, packet),
        route(v6, protocol, &what, packet),
        tunnel(v6, false, protocol, &what, packet),
        tunnel(v6, true, protocol, &what, packet),
        local(v6, protocol, &what, packet),
    ]
}

pub(crate) fn forwarded(packet: &Packet) -> Packet {
    packet.clone().macs(7, 3).ttl(packet.hops() - 1)
}

fn nat(v6: bool, protocol: u8, what: &str, packet: &Packet) -> Case {
    let masquerade = server(method::MASQUERADE, v6);
    let there = forwarded(packet).to(server_end(v6));
    let answer = packet
        .clone()
        .from(server_end(v6))
        .to(client(v6))
        .macs(3, 7);
    let answer = answer.flags(SYN | ACK).kind(chunk::INIT_ACK);
    let back = answer
        .clone()
        .from(virtual_end(v6))
        .macs(8, 4)
        .ttl(packet.hops() - 1);
    case(
        format!("NAT: {what} goes to the server's port and the answer comes from ours"),
        one(v6, protocol, &masquerade),
    )
    .turns(packet, SENT, &there)
    .turns(&answer, Verdict::Send(TO_CLIENT), &back)
    .turns(packet, SENT, &there)
    .turns(&answer, Verdict::Send(TO_CLIENT), &back)
    .holds("one connection, two packets each way", move |tables| {
        let traffic = tables.traffic.of(1);
        (traffic.connections, traffic.in_packets, traffic.out_packets) == (1, 2, 2)
            && traffic.in_bytes == traffic.out_bytes
    })
}

fn route(v6: bool, protocol: u8, what: &str, packet: &Packet) -> Case {
    let length = packet.network().len() as u64;
    case(
        format!("route: {what} keeps its addresses"),
        one(v6, protocol, &server(method::ROUTE, v6)),
    )
    .turns(packet, SENT, &forwarded(packet))
    .turns(packet, SENT, &forwarded(packet))
    .holds("one connection, two packets, their bytes", move |tables| {
        let traffic = tables.traffic.of(1);
        (traffic.connections, traffic.in_packets, traffic.in_bytes) == (1, 2, 2 * length)
    })
}

fn tunnel(v6: bool, outer_v6: bool, protocol: u8, what: &str, packet: &Packet) -> Case {
    let to = server(method::TUNNEL, outer_v6);
    let inner = forwarded(packet);
    let out = inner
        .inside(to.outer_source, to.address)
        .macs(7, 3)
        .padding(packet.behind());
    let sentence = format!("tunnel over {}: {what} is wrapped", family_name(outer_v6));
    case(sentence, one(v6, protocol, &to)).turns(packet, SENT, &out)
}

fn local(v6: bool, protocol: u8, what: &str, packet: &Packet) -> Case {
    case(
        format!("local: {what} is the kernel's, and has an entry"),
        one(v6, protocol, &server(method::LOCAL, v6)),
    )
    .turns(packet, Verdict::Pass(Pass::Local), packet)
    .holds("one connection", |tables| {
        tables.traffic.of(1).connections == 1
    })
}

fn whole_service_is_needed(v6: bool, protocol: u8) -> Case {
    let (address, port) = virtual_end(v6);
    let packet = opening(protocol, client(v6), (address, port));
    let other = if protocol == TCP { UDP } else { TCP };
    let not_ours = Verdict::Pass(Pass::NotOurs);
    case(
        format!(
            "{} {}: another port, protocol or address is not ours",
            family_name(v6),
            protocol_name(protocol)
        ),
        one(v6, protocol, &server(method::ROUTE, v6)),
    )
    .leaves(&packet.clone().to((address, port + 1)), not_ours)
    .leaves(&packet.clone().to((server_end(v6).0, port)), not_ours)
    .leaves(&opening(other, client(v6), (address, port)), not_ours)
    .leaves(&opening(SCTP, client(v6), (address, port + 1)), not_ours)
    .leaves(&bare(client(v6).0, address, 47).payload(&[0; 40]), not_ours)
}

fn unusable_way(v6: bool) -> Case {
    let packet = opening(TCP, client(v6), virtual_end(v6));
    let mut to = server(method::ROUTE, v6);
    to.ways = Ways::default();
    case(
        format!(
            "{}: without a neighbour for the server the packet is dropped",
            family_name(v6)
        ),
        one(v6, TCP, &to),
    )
    .leaves(&packet, Verdict::Drop(Drop::NoNextHop))
}

/// Tables of a masqueraded server without a way to any client.
fn homeless(v6: bool) -> shunt_datapath::host::HostTables {
    let mut tables = one(v6, TCP, &server(method::MASQUERADE, v6));
    tables.routes4.clear();
    tables.routes6.clear();
    tables
}

fn way_learned(v6: bool) -> Case {
    let packet = opening(TCP, client(v6), virtual_end(v6));
    let answer = tcp(server_end(v6), client(v6), SYN | ACK).macs(3, 7);
    let back = answer.clone().from(virtual_end(v6)).ttl(63).macs(1, 2);
    case(
        format!(
            "{}: without a route the answer goes where the client's packet came from",
            family_name(v6)
        ),
        homeless(v6),
    )
    .turns(&packet, SENT, &forwarded(&packet).to(server_end(v6)))
    .turns(&answer, Verdict::Send(1), &back)
    .holds("the way is learned", move |tables| {
        let key = shunt_datapath::host::words(client(v6).0);
        let learned = tables.learned.lock().unwrap();
        learned.get(&key) == Some(&Ways::new(mac(1), mac(2), 1, 1500))
    })
}

fn no_way_back(v6: bool) -> Case {
    let packet = opening(TCP, client(v6), virtual_end(v6));
    let answer = tcp(server_end(v6), client(v6), SYN | ACK).macs(3, 7);
    case(
        format!(
            "{}: with no way to the client the answer is dropped",
            family_name(v6)
        ),
        homeless(v6),
    )
    .turns(&packet, SENT, &forwarded(&packet).to(server_end(v6)))
    .changes(|tables| tables.learned.lock().unwrap().clear())
    .leaves(&answer, Verdict::Drop(Drop::NoWayBack))
}

fn stranger_behind_the_server(v6: bool) -> Case {
    let own = tcp(server_end(v6), client(v6), SYN | ACK);
    case(
        format!(
            "{}: what a masqueraded server says of itself passes",
            family_name(v6)
        ),
        one(v6, TCP, &server(method::MASQUERADE, v6)),
    )
    .leaves(&own, Verdict::Pass(Pass::NotOurs))
}

/// Payloads with corner cases of the transport checksum, zero and all ones too.
fn checksums() -> Vec<Case> {
    let mut cases = Vec::new();
    for v6 in FAMILIES {
        let masquerade = server(method::MASQUERADE, v6);
        let sentence = format!(
            "NAT: checksums of {} UDP stay right, none is zero",
            family_name(v6)
        );
        let mut all = case(sentence, one(v6, UDP, &masquerade));
        for number in (0..=u16::MAX).step_by(251).chain(zero_sums(v6)) {
            let packet = udp(client(v6), virtual_end(v6)).payload(&number.to_be_bytes());
            let there = forwarded(&packet).to(server_end(v6));
            all = all.turns(&packet, SENT, &there);
        }
        cases.push(all);
    }
    cases
}

/// Payload words with which the masqueraded checksum becomes zero, or nearly.
fn zero_sums(v6: bool) -> Vec<u16> {
    let sum = |number: u16| {
        let packet = udp(client(v6), server_end(v6)).payload(&number.to_be_bytes());
        let network = packet.network();
        let at = network.len() - 4;
        u16::from_be_bytes([network[at], network[at + 1]])
    };
    (0..=u16::MAX)
        .filter(|number| matches!(sum(*number), 1 | 0xfffe | 0xffff))
        .collect()
}

/// Runs only on the host: in the kernel a test cannot choose the kernel's answer.
#[test]
fn the_kernel_is_asked_for_the_way_from_the_virtual_address_and_its_refusal_holds() {
    use shunt_datapath::host::{Hook, HostFrame, words};
    for v6 in [false, true] {
        let tables = homeless(v6);
        let packet = opening(TCP, client(v6), virtual_end(v6));
        let mut frame = HostFrame::new(Hook::Xdp, &packet.bytes());
        assert_eq!(tables.run(&mut frame), SENT);
        let answer = tcp(server_end(v6), client(v6), SYN | ACK).macs(3, 7);
        let (from, to) = (words(virtual_end(v6).0), words(client(v6).0));
        let by = Ways::new(mac(8), mac(9), 5, 1500);
        for (source, ways, verdict) in [
            (from, by, Verdict::Send(5)),
            (from, Ways::default(), Verdict::Drop(Drop::NoWayBack)),
            // This route is for other packets, so the answer goes the way that the client's packet
            // came.
            (words(server_end(v6).0), by, Verdict::Send(1)),
        ] {
            let mut frame = HostFrame::new(Hook::Xdp, &answer.bytes());
            frame.routes.push((source, to, ways));
            assert_eq!(tables.run(&mut frame), verdict, "{source:?}");
        }
    }
}

/// Cases of frames beyond 64 kB, which no test run of the kernel takes.
pub(crate) fn beyond() -> Vec<Case> {
    FAMILIES.into_iter().map(beyond_64_kb).collect()
}

/// Such a frame says no length of its own, or says it in a jumbo header.
fn beyond_64_kb(v6: bool) -> Case {
    let forms: &[fn(&Packet) -> Packet] = if v6 {
        &[Packet::clone, jumbo]
    } else {
        &[Packet::clone]
    };
    let mut all = case(
        format!("{}: frames beyond 64 kB, there and back", family_name(v6)),
        one(v6, TCP, &server(method::MASQUERADE, v6)),
    );
    let syn = tcp(client(v6), virtual_end(v6), SYN);
    let at_server = |packet: &Packet| packet.clone().to(server_end(v6)).macs(7, 3).ttl(63);
    all = all.turns(&syn, SENT, &at_server(&syn));
    for form in forms {
        let asks = form(&tcp(client(v6), virtual_end(v6), ACK).payload(&vec![7; 185_000]));
        let answer = form(&tcp(server_end(v6), client(v6), ACK).payload(&vec![9; 70_000]));
        let out = answer.clone().from(virtual_end(v6)).macs(8, 4).ttl(63);
        let segment = 1460 - 20 * usize::from(v6);
        let hook = Some(Hook::Tc);
        all = all
            .given(asks.bytes(), SENT, at_server(&asks).bytes(), hook, segment)
            .given(
                answer.bytes(),
                Verdict::Send(TO_CLIENT),
                out.bytes(),
                hook,
                segment,
            );
    }
    all
}
