//! Tests with two network namespaces, a veth pair between them, and the network machine.

use std::fs::File;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::time::Duration;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressFlags};
use netlink_packet_route::link::LinkMessage;
use netlink_packet_route::route::RouteType;
use nix::sched::{CloneFlags, setns, unshare};
use rtnetlink::{Handle, LinkUnspec, LinkVeth, RouteMessageBuilder};
use shunt_control::network::routes::{Kind, Prefix};
use shunt_control::network::{Input, Mac, Network, NextHop, Output, Route};

use super::*;

/// Far more than the kernel needs for three tries at a neighbour.
const LIMIT: Duration = Duration::from_secs(20);
const OLD: Mac = [2, 0, 0, 0, 0, 7];
const OTHER: Mac = [2, 0, 0, 0, 0, 8];

#[test]
fn neighbour_is_resolved_after_a_probe_and_followed_to_another_hardware_address() {
    in_namespaces(async |mut lab| {
        let interface = lab.cable().await;
        for peer in ["10.1.0.7", "2001:db8:1::7"] {
            let unresolved = Route::Unresolved {
                interface,
                neighbour: ip(peer),
            };
            lab.until(|network| network.next_hop(ip(peer)) == unresolved)
                .await;
        }
        lab.watch(&["10.1.0.7", "2001:db8:1::7"]);
        let hop = lab.via("10.1.0.7", OLD).await;
        assert_eq!((hop.interface, hop.neighbour), (interface, ip("10.1.0.7")));
        assert_eq!((hop.source, hop.mtu), (Some(ip("10.1.0.1")), 1500));
        let hop = lab.via("2001:db8:1::7", OLD).await;
        assert_eq!(hop.source, Some(ip("2001:db8:1::1")));

        // The peer announces its address, as a server that takes over an address does.
        std::fs::write("/proc/sys/net/ipv4/conf/all/arp_notify", "1").unwrap();
        std::fs::write("/proc/sys/net/ipv6/conf/all/ndisc_notify", "1").unwrap();
        let peer = index(&lab.servers, "server").await;
        let link = LinkUnspec::new_with_index(peer)
            .address(OTHER.to_vec())
            .build();
        lab.servers.link().set(link).execute().await.unwrap();
        lab.via("10.1.0.7", OTHER).await;
        lab.via("2001:db8:1::7", OTHER).await;
    });
}

#[test]
fn far_target_is_reached_by_the_gateway_of_its_route() {
    in_namespaces(async |mut lab| {
        lab.cable().await;
        lab.watch(&["10.9.0.1", "2001:db8:9::1", "10.8.0.1"]);
        lab.route("10.9.0.0", 16, "10.1.0.7", RouteType::Unicast)
            .await;
        lab.route("2001:db8:9::", 48, "2001:db8:1::7", RouteType::Unicast)
            .await;
        assert_eq!(lab.via("10.9.0.1", OLD).await.neighbour, ip("10.1.0.7"));
        assert_eq!(
            lab.via("2001:db8:9::1", OLD).await.neighbour,
            ip("2001:db8:1::7")
        );

        lab.route("10.8.0.0", 16, "", RouteType::BlackHole).await;
        let why = "the route 10.8.0.0/16 is a blackhole".to_string();
        let blackhole = Route::Unreachable { why };
        lab.until(|network| network.next_hop(ip("10.8.0.1")) == blackhole)
            .await;
    });
}

#[test]
fn ipv4_route_over_an_ipv6_gateway_is_followed() {
    in_namespaces(async |mut lab| {
        lab.cable().await;
        lab.watch(&["10.9.0.1"]);
        let IpAddr::V6(gateway) = ip("2001:db8:1::7") else {
            unreachable!("it is IPv6")
        };
        let route = RouteMessageBuilder::<std::net::Ipv4Addr>::new()
            .destination_prefix([10, 9, 0, 0].into(), 16)
            .via(gateway)
            .output_interface(index(&lab.director, "director").await)
            .build();
        lab.director.route().add(route).execute().await.unwrap();
        let hop = lab.via("10.9.0.1", OLD).await;
        assert_eq!(
            (hop.neighbour, hop.source),
            (gateway.into(), Some(ip("10.1.0.1")))
        );
    });
}

#[test]
fn target_behind_a_deleted_device_is_unreachable_until_it_is_there_again() {
    in_namespaces(async |mut lab| {
        let first = lab.cable().await;
        lab.watch(&["10.1.0.7", "2001:db8:1::7"]);
        lab.via("10.1.0.7", OLD).await;
        lab.via("2001:db8:1::7", OLD).await;

        lab.director.link().del(first).execute().await.unwrap();
        for peer in ["10.1.0.7", "2001:db8:1::7"] {
            lab.until(|network| matches!(network.next_hop(ip(peer)), Route::Unreachable { .. }))
                .await;
        }

        let second = lab.cable().await;
        assert_eq!(lab.via("10.1.0.7", OLD).await.interface, second);
        assert_eq!(lab.via("2001:db8:1::7", OLD).await.interface, second);
    });
}

#[test]
fn routes_that_the_kernel_drops_in_silence_are_gone_too() {
    in_namespaces(async |mut lab| {
        let interface = lab.cable().await;
        lab.route("10.9.0.0", 16, "10.1.0.7", RouteType::Unicast)
            .await;
        let unresolved = Route::Unresolved {
            interface,
            neighbour: ip("10.1.0.7"),
        };
        lab.until(|network| network.next_hop(ip("10.9.0.1")) == unresolved)
            .await;
        for link in [
            LinkUnspec::new_with_index(interface).down().build(),
            LinkUnspec::new_with_index(interface).up().build(),
        ] {
            lab.director.link().set(link).execute().await.unwrap();
        }
        let none = Route::Unreachable {
            why: "no route to 10.9.0.1".into(),
        };
        lab.until(|network| network.next_hop(ip("10.9.0.1")) == none)
            .await;
    });
}

#[test]
fn routes_by_next_hop_objects_follow_them_as_the_kernel_does() {
    in_namespaces(async |mut lab| {
        if !has_iproute2() {
            return;
        }
        let interface = lab.cable().await;
        let by = |neighbour: &str| {
            let neighbour = ip(neighbour);
            move |network: &Network| {
                let way = Route::Unresolved {
                    interface,
                    neighbour,
                };
                network.next_hop(ip("10.9.0.1")) == way
            }
        };
        for compatible in ["1", "0"] {
            let mode = "/proc/sys/net/ipv4/nexthop_compat_mode";
            lab.in_director(move || std::fs::write(mode, compatible).unwrap());
            lab.ip("nexthop add id 1 via 10.1.0.21 dev director");
            lab.ip("nexthop add id 2 via 10.1.0.22 dev director");
            lab.ip("nexthop add id 9 group 1");
            lab.ip("route add 10.9.0.0/16 nhid 9 metric 10");
            lab.ip("route add 10.9.0.0/16 via 10.1.0.23 metric 20");
            lab.until(by("10.1.0.21")).await;
            lab.ip("nexthop replace id 1 via 10.1.0.24 dev director");
            lab.until(by("10.1.0.24")).await;
            lab.ip("nexthop replace id 9 group 2");
            lab.until(by("10.1.0.22")).await;
            // The group goes with its last member, and the route with the group.
            lab.ip("nexthop del id 2");
            lab.until(by("10.1.0.23")).await;

            // The kernel drops the routes with the carrier, and sends no event.
            lab.ip("route add 10.9.0.0/16 nhid 1 metric 10");
            lab.until(by("10.1.0.24")).await;
            let peer = index(&lab.servers, "server").await;
            for up in [false, true] {
                let link = LinkUnspec::new_with_index(peer);
                let link = if up { link.up() } else { link.down() };
                lab.servers
                    .link()
                    .set(link.build())
                    .execute()
                    .await
                    .unwrap();
                lab.until(|network| {
                    let mut links = network.links();
                    links.any(|link| link.index == interface && link.carrier == up)
                })
                .await;
            }
            lab.until(by("10.1.0.23")).await;
            lab.ip("route del 10.9.0.0/16");
        }
    });
}

#[test]
fn rules_are_followed_and_forgotten() {
    in_namespaces(async |mut lab| {
        if !has_iproute2() {
            return;
        }
        let interface = lab.cable().await;
        let way = Route::Unresolved {
            interface,
            neighbour: ip("10.1.0.7"),
        };
        lab.until(|network| network.is_plain(true) && network.is_plain(false))
            .await;
        lab.ip("route add default via 10.1.0.7 table 100");
        for rule in [
            "to 10.9.0.0/16 lookup 100",
            "not from 192.0.2.1 lookup 100",
            "iif lo lookup 100",
            "fwmark 0/255 lookup 100",
        ] {
            lab.ip(&format!("rule add {rule}"));
            lab.until(|network| network.next_hop(ip("10.9.0.1")) == way)
                .await;
            assert!(!lab.network.is_plain(true), "{rule}");
            lab.ip(&format!("rule del {rule}"));
            lab.until(|network| network.next_hop(ip("10.9.0.1")) != way)
                .await;
        }
        for rule in ["from 192.0.2.1 lookup 100", "iif director lookup 100"] {
            lab.ip(&format!("rule add {rule}"));
            lab.until(|network| !network.is_plain(true)).await;
            assert_ne!(lab.network.next_hop(ip("10.9.0.1")), way, "{rule}");
            lab.ip(&format!("rule del {rule}"));
            lab.until(|network| network.is_plain(true)).await;
        }
        lab.ip("-6 rule add from 2001:db8:f::/64 lookup 100");
        lab.until(|network| !network.is_plain(false) && network.is_plain(true))
            .await;
    });
}

#[test]
fn everything_is_read_again_when_events_were_lost() {
    in_namespaces(async |mut lab| {
        lab.cable().await;
        let interface = index(&lab.servers, "server").await;
        // The socket is in the servers' namespace. Nothing receives the inputs, and the buffer is
        // as small as possible, so events are lost.
        lab.netlink = open_with(1).unwrap();
        let own = |number: u32| IpAddr::from((0x0a20_0000 + number).to_be_bytes());
        for number in 0..2000 {
            let add = lab.servers.address().add(interface, own(number), 32);
            add.execute().await.unwrap();
        }
        let all = (0..2000).map(own).collect();
        lab.until(|network| network.addresses().is_superset(&all))
            .await;
    });
}

#[test]
fn messages_of_a_bridge_about_its_ports_are_not_about_devices() {
    let mut message = LinkMessage::default();
    message.header.index = 3;
    let removed = |message: &LinkMessage| {
        let message = RouteNetlinkMessage::DelLink(message.clone());
        read::input(Message::Route(message), 0)
    };
    assert_eq!(removed(&message), Some(Input::LinkRemoved { interface: 3 }));
    message.header.interface_family = AddressFamily::Bridge;
    assert_eq!(removed(&message), None);
}

#[test]
fn route_is_read_with_its_ways_metric_mtu_and_source() {
    use netlink_packet_route::route::{RouteAttribute, RouteMetric};
    let mut message = RouteMessageBuilder::<std::net::Ipv4Addr>::new()
        .destination_prefix([10, 9, 0, 0].into(), 16)
        .gateway([10, 1, 0, 254].into())
        .pref_source([192, 0, 2, 1].into())
        .output_interface(2)
        .table_id(1000)
        .priority(50)
        .build();
    message
        .attributes
        .push(RouteAttribute::Metrics(vec![RouteMetric::Mtu(1400)]));
    let message = Message::Route(RouteNetlinkMessage::NewRoute(message));
    let read = read::input(message, 0);
    let Some(Input::RouteAdded {
        route,
        replace: false,
    }) = read
    else {
        panic!("{read:?}")
    };
    assert_eq!(route.prefix, Prefix::new(ip("10.9.0.0"), 16));
    assert_eq!(
        (route.table, route.metric, route.kind),
        (1000, 50, Kind::Unicast)
    );
    assert_eq!(
        (route.mtu, route.source),
        (Some(1400), Some(ip("192.0.2.1")))
    );
    assert_eq!(
        (route.paths[0].interface, route.paths[0].gateway),
        (2, Some(ip("10.1.0.254")))
    );
}

/// The namespaces of the director and of the servers, and the network machine of the director.
struct Lab {
    director: Handle,
    director_namespace: File,
    servers: Handle,
    servers_namespace: File,
    netlink: Netlink,
    network: Network,
}

/// Runs a test on a thread in the namespace of the servers.
fn in_namespaces(test: impl AsyncFnOnce(Lab)) {
    if unshare(CloneFlags::CLONE_NEWNET).is_err() {
        println!("skipped: needs CAP_NET_ADMIN");
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let director = connect();
        let netlink = open().unwrap();
        let director_namespace = File::open("/proc/thread-self/ns/net").unwrap();
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let servers = connect();
        let servers_namespace = File::open("/proc/thread-self/ns/net").unwrap();
        let network = Network::new(std::time::Instant::now());
        test(Lab {
            director,
            director_namespace,
            servers,
            servers_namespace,
            netlink,
            network,
        })
        .await;
    });
}

fn has_iproute2() -> bool {
    let found = Command::new("ip").arg("-V").output().is_ok();
    if !found {
        println!("skipped: needs iproute2");
    }
    found
}

fn connect() -> Handle {
    let (connection, handle, _) = rtnetlink::new_connection().unwrap();
    tokio::spawn(connection);
    handle
}

impl Lab {
    /// Makes a veth pair between director and servers, both ends with addresses. Returns the index
    /// of the director's end.
    async fn cable(&self) -> u32 {
        let pair = LinkVeth::new("director", "server").build();
        self.director.link().add(pair).execute().await.unwrap();
        let peer = index(&self.director, "server").await;
        let there = LinkUnspec::new_with_index(peer)
            .setns_by_fd(self.servers_namespace.as_raw_fd())
            .address(OLD.to_vec())
            .build();
        self.director.link().set(there).execute().await.unwrap();
        for (handle, name, last) in [
            (&self.servers, "server", 7),
            (&self.director, "director", 1),
        ] {
            let index = index(handle, name).await;
            let up = LinkUnspec::new_with_index(index).up().build();
            handle.link().set(up).execute().await.unwrap();
            for (address, length) in [
                (format!("10.1.0.{last}"), 24),
                (format!("2001:db8:1::{last}"), 64),
            ] {
                let mut add = handle.address().add(index, ip(&address), length);
                // No other host is here, so duplicate address detection is not needed.
                let at_once = AddressAttribute::Flags(AddressFlags::Nodad);
                add.message_mut().attributes.push(at_once);
                add.execute().await.unwrap();
            }
        }
        index(&self.director, "director").await
    }

    /// Runs a function on a thread in the director's namespace.
    fn in_director(&self, work: impl FnOnce() + Send + 'static) {
        let namespace = self.director_namespace.try_clone().unwrap();
        let thread = std::thread::spawn(move || {
            setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
            work();
        });
        thread.join().unwrap();
    }

    /// Runs iproute2 in the director's namespace.
    fn ip(&self, line: &str) {
        let line = line.to_owned();
        self.in_director(move || {
            let words = line.split(' ');
            let done = Command::new("ip").args(words).status().unwrap();
            assert!(done.success(), "ip {line}");
        });
    }

    /// An empty gateway means no gateway.
    async fn route(&self, prefix: &str, length: u8, gateway: &str, kind: RouteType) {
        let mut route = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(ip(prefix), length)
            .unwrap()
            .kind(kind);
        if !gateway.is_empty() {
            route = route.gateway(ip(gateway)).unwrap();
        }
        self.director
            .route()
            .add(route.build())
            .execute()
            .await
            .unwrap();
    }

    fn watch(&mut self, targets: &[&str]) {
        for target in targets {
            self.network.watch(ip(target), std::time::Instant::now());
        }
    }

    /// The next hop to `to`, once it is at this hardware address.
    async fn via(&mut self, to: &str, mac: Mac) -> NextHop {
        let found = |network: &Network| match network.next_hop(ip(to)) {
            Route::Via(hop) if hop.target_mac == mac => Some(hop),
            _ => None,
        };
        self.until(|network| found(network).is_some()).await;
        found(&self.network).unwrap()
    }

    /// Acts like the daemon until the condition holds.
    async fn until(&mut self, condition: impl Fn(&Network) -> bool) {
        let limit = Instant::now() + LIMIT;
        while !condition(&self.network) {
            while let Some(output) = self.network.poll() {
                if let Output::Probe {
                    interface,
                    neighbour,
                } = output
                {
                    self.netlink.prober.probe(interface, neighbour);
                }
            }
            let deadline = self.network.deadline().map(Instant::from_std);
            let input = tokio::select! {
                input = self.netlink.inputs.recv() => input.expect("the socket lives"),
                () = at(deadline) => Input::Tick,
                () = at(Some(limit)) => panic!("not within {LIMIT:?}: {:#?}", self.network),
            };
            self.network.handle(input, std::time::Instant::now());
        }
    }
}

async fn index(handle: &Handle, name: &str) -> u32 {
    let mut links = handle.link().get().match_name(name).execute();
    let link = links
        .next()
        .await
        .expect("the link exists")
        .expect("the link exists");
    link.header.index
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}
