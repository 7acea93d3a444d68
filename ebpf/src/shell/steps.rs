//! The steps on a frame: the rare parts of the walk, each a function that the verifier checks once,
//! apart from its callers.
//!
//! The kernel calls them global functions. They take the context or numbers, and return a number. A
//! call costs about 9 ns. Only new connections, tunnels, ICMP messages, fragments, answers of the
//! director and the like pay it. One macro writes them for both hooks; the name of each function
//! in the object ends in `_xdp` or `_tc`.

use shunt_datapath::call::id;
use shunt_datapath::table::call::TEXT;

use super::calls::desk;
use super::maps::Maps;
use super::sum::{self, Bytes};

/// Copies a datagram to the desk, as far as there is room, and finds its Call-ID. Returns the
/// length of the Call-ID, 0 without one.
#[inline(always)]
fn identify<B: Bytes>(frame: &B, from: u32, length: u32) -> u32 {
    let Some(desk) = desk() else {
        return 0;
    };
    // Less one, so that one more is at least one: the verifier wants to see that.
    let last = TEXT as u32 - 1;
    let rest = length.wrapping_sub(1);
    let rest = if rest < last { rest } else { last };
    let length = (sum::opaque(rest) & last) + 1;
    // SAFETY: the desk is this CPU's map value, so that its field has an address.
    let text = unsafe { (&raw mut (*desk).text).cast() };
    if frame.load(from, text, length) < 0 {
        return 0;
    }
    id::find(&Maps, length)
}

macro_rules! steps {
    ($hook:literal, $context:ident, $frame:ident, $file:ident) => {
        use aya_ebpf::bindings::$context;
        use shunt_datapath::entry::Ways;
        use shunt_datapath::frame::Frame;
        use shunt_datapath::packet::Ports;
        use shunt_datapath::steps::{Choices, Steps};
        use shunt_datapath::table::Tables;
        use shunt_datapath::translate::{self, cross, enter, proxy};
        use shunt_datapath::verdict::{Bounce, Word};
        use shunt_datapath::{
            call, claim, fragment, icmp, open, origin, peer, quoted, reply, secured, tunnel,
        };

        use crate::shell::fib;
        use crate::shell::maps::Maps;
        use crate::shell::$file::$frame;

        impl Steps for $frame {
            #[inline(always)]
            fn begin<T: Choices>(&self, _: &T, ports: Ports, server: u32, service: u32) -> Word {
                Word(begin(
                    self.0,
                    ports.both(),
                    ports.flags as u32,
                    server,
                    service,
                ))
            }

            #[inline(always)]
            fn start<T: Choices>(&self, _: &T, ports: Ports, server: u32, service: u32) -> Word {
                Word(start(self.0, ports.both(), server, service))
            }

            #[inline(always)]
            fn taken<T: Choices>(&self, _: &T, ports: u32, id: u32) -> bool {
                taken(self.0, ports, id) != 0
            }

            #[inline(always)]
            fn identify<T: Tables>(&self, _: &T, from: usize, length: u32) -> u32 {
                identify(self.0, from as u32, length)
            }

            #[inline(always)]
            fn forwarded<T: Tables>(&self, _: &T, service: u32, source: [u64; 2]) -> bool {
                forwarded(self.0, service, source[0], source[1]) != 0
            }

            #[inline(always)]
            fn first<T: Choices>(&self, _: &T) {
                first(self.0);
            }

            #[inline(always)]
            fn later<T: Choices>(&self, _: &T) -> Word {
                Word(later(self.0))
            }

            #[inline(always)]
            fn origin<T: Choices>(&self, _: &T, word: u32) -> u32 {
                origin(self.0, word)
            }

            #[inline(always)]
            fn one_packet<T: Tables>(&self, _: &T, server: u32) -> Word {
                Word(one_packet(self.0, server))
            }

            #[inline(always)]
            fn route(&self, v6: bool, source: [u64; 2], target: [u64; 2]) -> Option<Ways> {
                let ([a, b], [c, d]) = (source, target);
                fib::answer(match v6 {
                    true => route6(self.0, a, b, c, d),
                    false => route4(self.0, a as u32, c as u32),
                })
            }

            #[inline(always)]
            fn translate<T: Choices>(&mut self, _: &T, server: u32) -> Word {
                Word(translate(self.0, server))
            }

            #[inline(always)]
            fn asked<T: Choices>(&self, _: &T, ports: Ports) -> u32 {
                asked(self.0, ports.both())
            }

            #[inline(always)]
            fn enter<T: Choices>(&self, _: &T, ports: Ports, server: u32, service: u32) -> Word {
                Word(enter(self.0, ports.both(), server, service))
            }

            #[inline(always)]
            fn put<T: Choices>(&mut self, _: &T, keeps: u32) -> Word {
                Word(put(self.0, keeps))
            }

            #[inline(always)]
            fn disown<T: Choices>(&mut self, _: &T) -> Word {
                Word(disown(self.0))
            }

            #[inline(always)]
            fn announce<T: Choices>(&mut self, _: &T) -> Word {
                Word(announce(self.0))
            }

            #[inline(always)]
            fn acknowledge<T: Choices>(&mut self, _: &T) -> Word {
                Word(acknowledge(self.0))
            }

            #[inline(always)]
            fn introduce<T: Choices>(&mut self, _: &T) -> Word {
                Word(introduce(self.0))
            }

            #[inline(always)]
            fn cross4<T: Choices>(&mut self, _: &T) -> Word {
                Word(cross4(self.0))
            }

            #[inline(always)]
            fn cross6<T: Choices>(&mut self, _: &T) -> Word {
                Word(cross6(self.0))
            }

            #[inline(always)]
            fn translate_error<T: Choices>(&mut self, _: &T) -> Word {
                Word(translate_error(self.0))
            }

            #[inline(always)]
            fn cross_error4<T: Choices>(&mut self, _: &T) -> Word {
                Word(cross_error4(self.0))
            }

            #[inline(always)]
            fn cross_error6<T: Choices>(&mut self, _: &T) -> Word {
                Word(cross_error6(self.0))
            }
        }

        /// Opens a connection to the server that was picked.
        #[unsafe(export_name = concat!("begin_", $hook))]
        #[inline(never)]
        pub extern "C" fn begin(
            context: *mut $context,
            ports: u32,
            flags: u32,
            server: u32,
            service: u32,
        ) -> u64 {
            let mut ports = Ports::of(ports);
            ports.flags = flags as u8;
            open::begin(&$frame(context), &Maps, ports, server, service).0
        }

        /// Opens a connection to a client with a packet of its server.
        #[unsafe(export_name = concat!("start_", $hook))]
        #[inline(never)]
        pub extern "C" fn start(
            context: *mut $context,
            ports: u32,
            server: u32,
            service: u32,
        ) -> u64 {
            open::start(&$frame(context), &Maps, Ports::of(ports), server, service).0
        }

        /// Whether the answers of a new connection would belong to another live connection.
        #[unsafe(export_name = concat!("taken_", $hook))]
        #[inline(never)]
        pub extern "C" fn taken(context: *mut $context, ports: u32, id: u32) -> u32 {
            claim::taken(&$frame(context), &Maps, ports, id) as u32
        }

        /// The length of a datagram's Call-ID, 0 without one.
        #[unsafe(export_name = concat!("identify_", $hook))]
        #[inline(never)]
        pub extern "C" fn identify(context: *mut $context, from: u32, length: u32) -> u32 {
            super::identify(&$frame(context), from, length)
        }

        /// Whether another director forwarded the frame.
        #[unsafe(export_name = concat!("forwarded_", $hook))]
        #[inline(never)]
        pub extern "C" fn forwarded(context: *mut $context, service: u32, a: u64, b: u64) -> u32 {
            peer::forwarded(&$frame(context), &Maps, service, [a, b]) as u32
        }

        /// Remembers the ports of a first fragment for the later ones.
        #[unsafe(export_name = concat!("first_", $hook))]
        #[inline(never)]
        pub extern "C" fn first(context: *mut $context) -> u32 {
            fragment::first(&$frame(context), &Maps);
            0
        }

        /// The ports of a later fragment, or its verdict.
        #[unsafe(export_name = concat!("later_", $hook))]
        #[inline(never)]
        pub extern "C" fn later(context: *mut $context) -> u64 {
            fragment::later(&$frame(context), &Maps).0
        }

        /// The endpoint of a frame: a mark endpoint that also matches the source, or else the
        /// endpoint of every port, or `NONE`.
        #[unsafe(export_name = concat!("origin_", $hook))]
        #[inline(never)]
        pub extern "C" fn origin(context: *mut $context, word: u32) -> u32 {
            origin::of_frame(&$frame(context), &Maps, word)
        }

        /// Remembers the server of a first fragment for a one-packet service, and finds it for
        /// later ones.
        #[unsafe(export_name = concat!("one_packet_", $hook))]
        #[inline(never)]
        pub extern "C" fn one_packet(context: *mut $context, server: u32) -> u64 {
            fragment::one_packet(&$frame(context), &Maps, server).0
        }

        /// Looks up the kernel's route of an IPv4 packet; [`fib::answer`] has the result if this
        /// returns 1.
        #[unsafe(export_name = concat!("route4_", $hook))]
        #[inline(never)]
        pub extern "C" fn route4(context: *mut $context, source: u32, target: u32) -> u32 {
            let interface = $frame(context).interface();
            let (source, target) = ([source as u64, 0], [target as u64, 0]);
            fib::ask(context.cast(), interface, false, source, target)
        }

        /// Looks up the kernel's route of an IPv6 packet; [`fib::answer`] has the result if this
        /// returns 1.
        #[unsafe(export_name = concat!("route6_", $hook))]
        #[inline(never)]
        pub extern "C" fn route6(context: *mut $context, a: u64, b: u64, c: u64, d: u64) -> u32 {
            let interface = $frame(context).interface();
            fib::ask(context.cast(), interface, true, [a, b], [c, d])
        }

        /// Decides what becomes of an ICMP message.
        #[unsafe(export_name = concat!("related_", $hook))]
        #[inline(never)]
        pub extern "C" fn related(context: *mut $context) -> u64 {
            icmp::follow(&mut $frame(context), &Maps).0
        }

        /// Forwards a packet of ESP or AH.
        #[unsafe(export_name = concat!("secured_", $hook))]
        #[inline(never)]
        pub extern "C" fn secured(context: *mut $context) -> u64 {
            secured::carry(&mut $frame(context), &Maps).0
        }

        /// The server for the connection that an ICMP error quotes.
        #[unsafe(export_name = concat!("quoted_", $hook))]
        #[inline(never)]
        pub extern "C" fn quoted(context: *mut $context, endpoint: u32) -> u64 {
            quoted::schedule(&$frame(context), &Maps, endpoint).0
        }

        /// Sends an ICMP error to this server.
        #[unsafe(export_name = concat!("bring_", $hook))]
        #[inline(never)]
        pub extern "C" fn bring(context: *mut $context, server: u32) -> u64 {
            icmp::bring_to(&mut $frame(context), &Maps, server).0
        }

        /// The server of a packet's call.
        #[unsafe(export_name = concat!("choose_", $hook))]
        #[inline(never)]
        pub extern "C" fn choose(context: *mut $context, endpoint: u32) -> u64 {
            call::choose(&$frame(context), &Maps, endpoint).0
        }

        /// Opens a connection to the server of a packet's call.
        #[unsafe(export_name = concat!("call_", $hook))]
        #[inline(never)]
        pub extern "C" fn call(context: *mut $context, endpoint: u32, server: u32) -> u64 {
            call::carry(&mut $frame(context), &Maps, endpoint, server).0
        }

        /// Wraps a packet into the tunnel of its server, and sends it.
        #[unsafe(export_name = concat!("tunnel_", $hook))]
        #[inline(never)]
        pub extern "C" fn tunnel(context: *mut $context, server: u32) -> u64 {
            tunnel::wrap(&mut $frame(context), &Maps, server).0
        }

        /// Turns a frame into the director's own answer to it.
        #[unsafe(export_name = concat!("answer_", $hook))]
        #[inline(never)]
        pub extern "C" fn answer(context: *mut $context, bounce: u32, mtu: u32) -> u64 {
            reply::answer(&mut $frame(context), &Maps, Bounce::from(bounce), mtu).0
        }

        /// Translates and forwards a packet of a translated flow.
        #[unsafe(export_name = concat!("translate_", $hook))]
        #[inline(never)]
        pub extern "C" fn translate(context: *mut $context, server: u32) -> u64 {
            translate::carry(&mut $frame(context), &Maps, server).0
        }

        /// The id of the service whose flow is about to be entered, or `NONE`.
        #[unsafe(export_name = concat!("asked_", $hook))]
        #[inline(never)]
        pub extern "C" fn asked(context: *mut $context, ports: u32) -> u32 {
            enter::asked(&$frame(context), &Maps, Ports::of(ports))
        }

        /// Enters both translations of a flow.
        #[unsafe(export_name = concat!("enter_", $hook))]
        #[inline(never)]
        pub extern "C" fn enter(
            context: *mut $context,
            ports: u32,
            server: u32,
            service: u32,
        ) -> u64 {
            enter::enter(&$frame(context), &Maps, Ports::of(ports), server, service).0
        }

        /// Blanks the options by which a client would name another one.
        #[unsafe(export_name = concat!("disown_", $hook))]
        #[inline(never)]
        pub extern "C" fn disown(context: *mut $context) -> u64 {
            translate::disown::disown(&mut $frame(context), &Maps).0
        }

        /// Puts the option with the client's address into a SYN for a server of full NAT.
        #[unsafe(export_name = concat!("announce_", $hook))]
        #[inline(never)]
        pub extern "C" fn announce(context: *mut $context) -> u64 {
            translate::announce::announce(&mut $frame(context), &Maps).0
        }

        /// Prepares the answer of a server that got a PROXY header for its client.
        #[unsafe(export_name = concat!("acknowledge_", $hook))]
        #[inline(never)]
        pub extern "C" fn acknowledge(context: *mut $context) -> u64 {
            proxy::acknowledge(&mut $frame(context), &Maps).0
        }

        /// Prepares a client's packet for a server that expects a PROXY header.
        #[unsafe(export_name = concat!("introduce_", $hook))]
        #[inline(never)]
        pub extern "C" fn introduce(context: *mut $context) -> u64 {
            proxy::introduce(&mut $frame(context), &Maps).0
        }

        /// Puts a PROXY header before the payload, or, if `keeps` is 0, in place of it.
        #[unsafe(export_name = concat!("put_", $hook))]
        #[inline(never)]
        pub extern "C" fn put(context: *mut $context, keeps: u32) -> u64 {
            proxy::put(&mut $frame(context), &Maps, keeps & 1).0
        }

        /// Translates an IPv4 packet to IPv6, and forwards it.
        #[unsafe(export_name = concat!("cross4_", $hook))]
        #[inline(never)]
        pub extern "C" fn cross4(context: *mut $context) -> u64 {
            cross::carry4(&mut $frame(context), &Maps).0
        }

        /// Translates an IPv6 packet to IPv4, and forwards it.
        #[unsafe(export_name = concat!("cross6_", $hook))]
        #[inline(never)]
        pub extern "C" fn cross6(context: *mut $context) -> u64 {
            cross::carry6(&mut $frame(context), &Maps).0
        }

        /// Translates and forwards an ICMP error about a translated flow.
        #[unsafe(export_name = concat!("translate_error_", $hook))]
        #[inline(never)]
        pub extern "C" fn translate_error(context: *mut $context) -> u64 {
            translate::error::follow(&mut $frame(context), &Maps).0
        }

        /// Translates an ICMP error of IPv4 to IPv6, and forwards it.
        #[unsafe(export_name = concat!("cross_error4_", $hook))]
        #[inline(never)]
        pub extern "C" fn cross_error4(context: *mut $context) -> u64 {
            cross::error::follow4(&mut $frame(context), &Maps).0
        }

        /// Translates an ICMP error of IPv6 to IPv4, and forwards it.
        #[unsafe(export_name = concat!("cross_error6_", $hook))]
        #[inline(never)]
        pub extern "C" fn cross_error6(context: *mut $context) -> u64 {
            cross::error::follow6(&mut $frame(context), &Maps).0
        }
    };
}

/// The steps on a frame of the XDP hook.
pub mod xdp {
    steps!("xdp", xdp_md, XdpFrame, xdp);
}

/// The steps on a socket buffer.
pub mod tc {
    steps!("tc", __sk_buff, SkbFrame, skb);
}
