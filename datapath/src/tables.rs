//! The tables as the walk sees them: what can be looked up, what can be counted, and the clock.
//!
//! In the kernel these are maps and helpers (`ebpf`), on the host plain memory ([`crate::host`]).

use crate::device::Device;
use crate::entry::{
    Bucket4, Bucket6, Hop, LocalityKey, OriginKey, PeerKey, Server, Service, Settings, Traffic,
    Ways,
};
use crate::flows::Words;
use crate::schedule::Client;
use crate::translation::{Local, Translation, Tuple};

/// What is fixed when the tables are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Number of buckets less one, each a power of two less one.
    pub endpoint4_mask: u32,
    pub endpoint6_mask: u32,
    pub flow4_mask: u32,
    pub flow6_mask: u32,
    /// Drawn at random when the tables are made.
    pub seed: u64,
}

/// What names the fragments of one datagram (RFC 791; RFC 8200, 4.5).
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FragmentKey {
    pub source: [u64; 2],
    pub target: [u64; 2],
    pub id: u32,
    pub protocol: u8,
    pub family: u8,
    pub reserved: u16,
}
const _: () = assert!(size_of::<FragmentKey>() == 40);

/// What the first fragment told.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FragmentValue {
    /// Wire order: source and target port.
    pub ports: [u16; 2],
    pub tick: u32,
    /// Who got it, if no entry of a flow says so ([`crate::entry::service_flag::ONE_PACKET`]).
    pub server: u32,
    /// [`told`]: 0 if the ports are known.
    pub portless: u32,
}

/// Why the ports of a datagram in fragments are not known: the kernel gets all of it.
pub mod told {
    /// Its first fragment is too short for them.
    pub const NO_PORTS: u32 = 1;
    /// Its first fragment has not come in time.
    pub const NOTHING: u32 = 2;
}

/// What became of entering a translation.
pub mod entered {
    pub const DONE: u32 = 0;
    /// There is one with this key already.
    pub const THERE: u32 = 1;
    /// There is no room.
    pub const FULL: u32 = 2;
}

pub trait Tables {
    type Words: Words;

    fn shape(&self) -> Shape;
    fn settings(&self) -> Option<&Settings>;
    /// The clock: ticks of about a second, of which only the low 22 bits count.
    fn now(&self) -> u32;

    fn endpoint4(&self, bucket: u32) -> Option<&Bucket4>;
    fn endpoint6(&self, bucket: u32) -> Option<&Bucket6>;
    fn service(&self, id: u32) -> Option<&Service>;
    fn server(&self, id: u32) -> Option<&Server>;
    /// The service that has the endpoint of every port with this number.
    fn wide_service(&self, number: u32) -> u32;
    /// Runs [`crate::addressed::wide`]; in the kernel as a function of its own.
    fn wide4(&self, address: u32, word: u32) -> u32;
    fn wide6(&self, address: [u64; 2], word: u32) -> u32;
    /// Runs [`crate::origin::find`]; likewise.
    fn origin4(&self, target: u32, word: u32, source: u32, interface: u32) -> u32;
    fn origin6(&self, target: [u64; 2], word: u32, source: [u64; 2], interface: u32) -> u32;
    /// The endpoint of the longest prefix that this key has, or [`crate::entry::NONE`].
    fn origin(&self, key: &OriginKey) -> u32;
    /// A word of the pools.
    fn pool(&self, at: u32) -> Option<Self::Words>;
    /// The live counts of a server: [`crate::entry::counts`].
    fn counts(&self, server: u32) -> Option<Self::Words>;
    /// How a server stands: [`crate::entry::standing`].
    fn standing(&self, server: u32) -> Option<Self::Words>;
    /// The address of a server of this service whose frames come from there, where such servers may
    /// be directors. Wire order, IPv4 in the first four bytes.
    fn peer(&self, key: &PeerKey) -> Option<[u64; 2]>;
    /// The servers of a target: [`crate::entry::locality`].
    fn locality(&self, key: &LocalityKey) -> Option<Self::Words>;
    /// Makes an entry without servers, in place of the one least recently used if there is no room.
    fn add_locality(&self, key: &LocalityKey);
    /// A random number.
    fn random(&self) -> u32;
    /// A bucket of IPv4 flows.
    fn flows4(&self, bucket: u32) -> Option<Self::Words>;
    /// A bucket of IPv6 flows.
    fn flows6(&self, bucket: u32) -> Option<Self::Words>;

    /// Whether a region of either has entries: a word of [`crate::region`].
    fn occupied4(&self, region: u32) -> Option<Self::Words>;
    fn occupied6(&self, region: u32) -> Option<Self::Words>;

    /// Runs [`crate::track::cheapest`]; in the kernel as a function of its own.
    fn cheapest4(&self, hash: u64) -> u64;
    fn cheapest6(&self, hash: u64) -> u64;

    /// Runs [`crate::template::recall`]; likewise.
    fn recall4(&self, service: u32, client: u32, server: u32) -> u32;
    fn recall6(&self, service: u32, client: [u64; 2], server: u32) -> u32;

    /// Runs [`crate::call::recall`]; likewise.
    fn recall_call(&self, service: u32, server: u32) -> u32;
    /// The words of a [`crate::call::Desk`], where this CPU reads a datagram.
    fn desk(&self) -> Option<Self::Words>;
    /// The words of the [`crate::call::Call`] whose key is on the desk.
    fn call(&self) -> Option<Self::Words>;
    /// Enters the call whose key is on the desk, if there is room.
    fn enter_call(&self, value: u64);
    /// The server that answers from a NAT endpoint, if its service has calls.
    fn answerer(&self, endpoint: u32) -> u32;

    /// Runs [`crate::sctp::next`]; likewise.
    fn association_next(&self, state: u32, direction: u32, flags: u32) -> u32;

    /// Runs [`crate::schedule::pick`] for this service; in the kernel as a function of its own.
    fn schedule(&self, service: u32, client: Client) -> u32;

    /// What is known of the device that has this place.
    fn device(&self, place: u32) -> Option<&Device>;

    fn hop(&self, id: u32) -> Option<&Hop>;
    /// The hop that leads to a client, by the daemon's prepared routes; 0 if none is prepared.
    fn route4(&self, address: u32) -> u32;
    fn route6(&self, address: [u64; 2]) -> u32;

    /// Remembers where packets of a client come from, for when the kernel has no neighbour for it.
    fn learn(&self, client: [u64; 2], ways: Ways);
    fn learned(&self, client: [u64; 2]) -> Option<Ways>;

    fn fragment(&self, key: &FragmentKey) -> Option<FragmentValue>;
    fn remember_fragment(&self, key: &FragmentKey, value: FragmentValue);

    /// What becomes of packets of this tuple: the words of a [`Translation`].
    fn translation(&self, tuple: &Tuple) -> Option<Self::Words>;
    /// Enters a translation; in place of one that is there unless `anew`. Says [`entered`].
    fn translate(&self, tuple: &Tuple, translation: &Translation, anew: bool) -> u32;
    fn forget_translation(&self, tuple: &Tuple);
    /// A local address, by its number within its family.
    fn local(&self, v6: bool, number: u32) -> Option<&Local>;

    /// Counts for a server, on this CPU.
    fn traffic(&self, server: u32, count: impl FnOnce(&mut Traffic));
    /// Counts an outcome or a note, on this CPU.
    fn count(&self, counter: u32);
    /// A word of this CPU's own, for the limit on ICMP errors.
    fn allowance(&self) -> Option<Self::Words>;

    /// The same number. In the kernel the verifier then knows nothing of it, so that paths which
    /// differ only in this number are verified once: 742,627 instructions verified for the tc hook
    /// without it, a fraction with it, for two instructions run.
    fn blur(&self, value: usize) -> usize;

    /// Calls `body` with 0, 1, ... until it says false or `count` is reached.
    fn repeat<B: FnMut(u32) -> bool>(&self, count: u32, body: B);
}
