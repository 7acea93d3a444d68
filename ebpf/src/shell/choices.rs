//! The steps that need only the tables. Each is a separate function, which the verifier checks
//! once, apart from its callers.
//!
//! The kernel calls them global functions. A call costs about 9 ns, which only new connections and
//! the like pay.

use shunt_datapath::connection::sctp;
use shunt_datapath::family::{Family, V4, V6};
use shunt_datapath::schedule::{self, Client};
use shunt_datapath::steps::Choices;
use shunt_datapath::table::lookup;
use shunt_datapath::{call, origin, template, track};

use super::maps::Maps;

impl Choices for Maps {
    #[inline(always)]
    fn wide<F: Family>(&self, address: F::Address, word: u32) -> u32 {
        let [a, b] = F::words(address);
        if F::V6 {
            wide6(a, b, word)
        } else {
            wide4(a as u32, word)
        }
    }

    #[inline(always)]
    fn find_origin<F: Family>(
        &self,
        target: F::Address,
        word: u32,
        source: F::Address,
        interface: u32,
    ) -> u32 {
        let ([a, b], [c, d]) = (F::words(target), F::words(source));
        if F::V6 {
            origin6(a, b, c, d, word as u64 | (interface as u64) << 32)
        } else {
            origin4(a as u32, word, c as u32, interface)
        }
    }

    #[inline(always)]
    fn cheapest<F: Family>(&self, hash: u64) -> u64 {
        if F::V6 {
            cheapest6(hash)
        } else {
            cheapest4(hash)
        }
    }

    #[inline(always)]
    fn recall<F: Family>(&self, service: u32, client: F::Address, server: u32) -> u32 {
        let [a, b] = F::words(client);
        if F::V6 {
            recall6(service, a, b, server)
        } else {
            recall4(service, a as u32, server)
        }
    }

    #[inline(always)]
    fn recall_call(&self, service: u32, server: u32) -> u32 {
        recall_call(service, server)
    }

    #[inline(always)]
    fn schedule(&self, service: u32, client: Client) -> u32 {
        let [a, b] = client.target;
        schedule(service, client.address, client.port as u32, a, b)
    }

    #[inline(always)]
    fn association_next(&self, state: u32, direction: u32, flags: u32) -> u32 {
        association_next(state, direction, flags)
    }
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

/// The server of the call on the desk.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn recall_call(service: u32, server: u32) -> u32 {
    call::recall(&Maps, service, server)
}

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

/// The next state of an SCTP association.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn association_next(state: u32, direction: u32, flags: u32) -> u32 {
    sctp::next(state, direction, flags)
}
