//! The tables as the walk sees them: look-ups, counters, and the clock.
//!
//! In the kernel these are maps and helpers (`ebpf`), on the host plain memory ([`crate::host`]).

pub mod call;
pub mod device;
pub mod endpoint;
pub mod entry;
pub mod family;
pub mod flows;
pub mod fragment;
pub mod hash;
pub mod id;
pub mod layout;
pub mod lookup;
pub mod origin;
pub mod peer;
pub mod pool;
pub mod region;
pub mod translation;

mod localities;
mod switches;

use crate::table::device::Device;
use crate::table::entry::{
    Bucket4, Bucket6, Hop, LocalityKey, OriginKey, PeerKey, Server, Service, Settings, Traffic,
    Ways,
};
use crate::table::flows::Words;
use crate::table::fragment::{FragmentKey, FragmentValue};
use crate::table::translation::{Local, Translation, Tuple};

/// Sizes and seed, fixed when the tables are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Buckets of IPv4 endpoints minus one; the number of buckets is a power of two.
    pub endpoint4_mask: u32,
    /// Buckets of IPv6 endpoints minus one.
    pub endpoint6_mask: u32,
    /// Buckets of IPv4 flows minus one.
    pub flow4_mask: u32,
    /// Buckets of IPv6 flows minus one.
    pub flow6_mask: u32,
    /// The seed of all hashes, drawn at random when the tables are made.
    pub seed: u64,
}

/// What a scheduler may use of a packet.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    /// The address, folded ([`crate::wire::version::Version::folded`]), in host order.
    pub address: u32,
    /// The source port in host order.
    pub port: u16,
    /// The destination address in wire order; IPv4 in the low half of the first word.
    pub target: [u64; 2],
}

/// The result of entering a translation or a connection.
pub mod entered {
    /// It was entered.
    pub const DONE: u32 = 0;
    /// The key is taken.
    pub const THERE: u32 = 1;
    /// There is no room.
    pub const FULL: u32 = 2;
}

/// What the walk looks up, counts and asks for.
pub trait Tables {
    /// Words that several CPUs share.
    type Words: Words;

    /// Sizes and seed.
    fn shape(&self) -> Shape;
    /// The director's settings.
    fn settings(&self) -> Option<&Settings>;
    /// The clock: ticks of about a second, of which only the low 22 bits count.
    fn now(&self) -> u32;

    /// A bucket of IPv4 endpoints.
    fn endpoint4(&self, bucket: u32) -> Option<&Bucket4>;
    /// A bucket of IPv6 endpoints.
    fn endpoint6(&self, bucket: u32) -> Option<&Bucket6>;
    /// A service by its id.
    fn service(&self, id: u32) -> Option<&Service>;
    /// A server by its id.
    fn server(&self, id: u32) -> Option<&Server>;
    /// The service of the endpoint of every port that has this number.
    fn wide_service(&self, number: u32) -> u32;
    /// The endpoint of the longest prefix that matches this key, or [`crate::table::entry::NONE`].
    fn origin(&self, key: &OriginKey) -> u32;
    /// The words of the pools from this place on.
    fn pool(&self, at: u32) -> Option<Self::Words>;
    /// The live counts of a server: [`crate::table::entry::counts`].
    fn counts(&self, server: u32) -> Option<Self::Words>;
    /// Weight, thresholds and overload of a server: [`crate::table::entry::standing`].
    fn standing(&self, server: u32) -> Option<Self::Words>;
    /// The address of the server of a service that has this MAC address, where servers may be
    /// directors. Wire order, IPv4 in the first four bytes.
    fn peer(&self, key: &PeerKey) -> Option<[u64; 2]>;
    /// The servers remembered for a target: [`crate::table::entry::locality`].
    fn locality(&self, key: &LocalityKey) -> Option<Self::Words>;
    /// Adds an entry without servers. A full table replaces the least recently used entry.
    fn add_locality(&self, key: &LocalityKey);
    /// A random number.
    fn random(&self) -> u32;
    /// A bucket of IPv4 flows.
    fn flows4(&self, bucket: u32) -> Option<Self::Words>;
    /// A bucket of IPv6 flows.
    fn flows6(&self, bucket: u32) -> Option<Self::Words>;

    /// The word of [`crate::table::region`] for a region of IPv4 flows.
    fn occupied4(&self, region: u32) -> Option<Self::Words>;
    /// The word of [`crate::table::region`] for a region of IPv6 flows.
    fn occupied6(&self, region: u32) -> Option<Self::Words>;
    /// The words of this CPU's [`call::Desk`], where it reads a datagram.
    fn desk(&self) -> Option<Self::Words>;
    /// The words of the [`call::Call`] whose key is on the desk.
    fn call(&self) -> Option<Self::Words>;
    /// Enters the call whose key is on the desk, if there is room.
    fn enter_call(&self, value: u64);
    /// The server that answers from a NAT endpoint, if its service has calls.
    fn answerer(&self, endpoint: u32) -> u32;

    /// The device at this place of its table.
    fn device(&self, place: u32) -> Option<&Device>;

    /// A prepared hop by its id.
    fn hop(&self, id: u32) -> Option<&Hop>;
    /// The id of the prepared hop that leads to a client; 0 if there is none.
    fn route4(&self, address: u32) -> u32;
    /// The id of the prepared hop that leads to a client; 0 if there is none.
    fn route6(&self, address: [u64; 2]) -> u32;

    /// Remembers the way by which a client's packets came, for a client without a neighbour entry
    /// in the kernel.
    fn learn(&self, client: [u64; 2], ways: Ways);
    /// The way that [`Tables::learn`] remembered for a client.
    fn learned(&self, client: [u64; 2]) -> Option<Ways>;

    /// What is known of a datagram in fragments.
    fn fragment(&self, key: &FragmentKey) -> Option<FragmentValue>;
    /// Notes what is known of a datagram in fragments.
    fn remember_fragment(&self, key: &FragmentKey, value: FragmentValue);

    /// The words of the [`Translation`] for packets of this tuple.
    fn translation(&self, tuple: &Tuple) -> Option<Self::Words>;
    /// Enters a translation; replaces a present one unless `anew`. Returns a code of [`entered`].
    fn translate(&self, tuple: &Tuple, translation: &Translation, anew: bool) -> u32;
    /// Removes a translation.
    fn forget_translation(&self, tuple: &Tuple);
    /// A local address, by its number within its family.
    fn local(&self, v6: bool, number: u32) -> Option<&Local>;

    /// Updates the traffic counters of a server on this CPU.
    fn traffic(&self, server: u32, count: impl FnOnce(&mut Traffic));
    /// Adds one to the counter of an outcome or a note, on this CPU.
    fn count(&self, counter: u32);
    /// This CPU's word for the limit on ICMP errors.
    fn allowance(&self) -> Option<Self::Words>;

    /// Returns `value`. The kernel's verifier then knows no bounds of it, so that it checks paths
    /// which differ only in this number once. Without it the tc hook needs 742,627 verified
    /// instructions, with it a fraction. It costs two instructions.
    fn blur(&self, value: usize) -> usize;

    /// Calls `body` with 0, 1, ... until it returns false or `count` is reached.
    fn repeat<B: FnMut(u32) -> bool>(&self, count: u32, body: B);
}
