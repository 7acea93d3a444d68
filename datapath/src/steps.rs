//! The steps of the walk that the kernel's verifier checks apart.
//!
//! On the host each is an ordinary call. In the kernel each is a separate function, which takes
//! the hook's context or numbers and returns a number: the verifier checks it once, and its stack
//! is not needed at once with the stack of its neighbours. So a step is named here and written
//! elsewhere. The walk calls it through these traits, and each shell (host, XDP, tc) leads to it.
//!
//! [`Steps`] has the steps on a frame. [`Choices`] has those that need only the tables, since a
//! process that connects ([`crate::caller`]) has no frame.

use crate::table::entry::Ways;
use crate::table::family::Family;
use crate::table::{Client, Tables};
use crate::verdict::Word;
use crate::wire::frame::Frame;
use crate::wire::ports::Ports;

/// Tables among whose entries the steps choose.
pub trait Choices: Tables {
    /// Runs [`crate::table::lookup::wide`].
    fn wide<F: Family>(&self, address: F::Address, word: u32) -> u32;

    /// Runs [`crate::origin::find`].
    fn find_origin<F: Family>(
        &self,
        target: F::Address,
        word: u32,
        source: F::Address,
        interface: u32,
    ) -> u32;

    /// Runs [`crate::track::cheapest`].
    fn cheapest<F: Family>(&self, hash: u64) -> u64;

    /// Runs [`crate::template::recall`].
    fn recall<F: Family>(&self, service: u32, client: F::Address, server: u32) -> u32;

    /// Runs [`crate::call::recall`].
    fn recall_call(&self, service: u32, server: u32) -> u32;

    /// Runs [`crate::schedule::pick`].
    fn schedule(&self, service: u32, client: Client) -> u32;

    /// Runs [`crate::connection::sctp::next`].
    fn association_next(&self, state: u32, direction: u32, flags: u32) -> u32;
}

/// A frame on which the steps run.
pub trait Steps: Frame {
    /// Runs [`crate::open::begin`] on this frame.
    fn begin<T: Choices>(&self, tables: &T, ports: Ports, server: u32, service: u32) -> Word;

    /// Runs [`crate::open::start`] on this frame.
    fn start<T: Choices>(&self, tables: &T, ports: Ports, server: u32, service: u32) -> Word;

    /// Runs [`crate::claim::taken`] on this frame.
    fn taken<T: Choices>(&self, tables: &T, ports: u32, id: u32) -> bool;

    /// Copies `length` bytes at `from` to the desk, or as many of them as it has room for, and runs
    /// [`crate::call::id::find`].
    fn identify<T: Tables>(&self, tables: &T, from: usize, length: u32) -> u32;

    /// Runs [`crate::peer::forwarded`] on this frame.
    fn forwarded<T: Tables>(&self, tables: &T, service: u32, source: [u64; 2]) -> bool;

    /// Runs [`crate::fragment::first`] on this frame.
    fn first<T: Choices>(&self, tables: &T);

    /// Runs [`crate::fragment::later`] on this frame.
    fn later<T: Choices>(&self, tables: &T) -> Word;

    /// Runs [`crate::origin::of_frame`] on this frame.
    fn origin<T: Choices>(&self, tables: &T, word: u32) -> u32;

    /// Runs [`crate::fragment::one_packet`] on this frame.
    fn one_packet<T: Tables>(&self, tables: &T, server: u32) -> Word;

    /// The next hop of a packet from `source` to `target` by the kernel's own rules, routes and
    /// neighbours. The next hop is unusable if these refuse such packets. `None` if they have no
    /// next hop. Slow.
    fn route(&self, v6: bool, source: [u64; 2], target: [u64; 2]) -> Option<Ways>;

    /// Runs [`crate::translate::carry`] on this frame.
    fn translate<T: Choices>(&mut self, tables: &T, server: u32) -> Word;

    /// Runs [`crate::translate::enter::asked`] on this frame.
    fn asked<T: Choices>(&self, tables: &T, ports: Ports) -> u32;

    /// Runs [`crate::translate::enter::enter`] on this frame.
    fn enter<T: Choices>(&self, tables: &T, ports: Ports, server: u32, service: u32) -> Word;

    /// Runs [`crate::translate::disown::disown`] on this frame.
    fn disown<T: Choices>(&mut self, tables: &T) -> Word;

    /// Runs [`crate::translate::announce::announce`] on this frame.
    fn announce<T: Choices>(&mut self, tables: &T) -> Word;

    /// Runs [`crate::translate::proxy::acknowledge`] on this frame.
    fn acknowledge<T: Choices>(&mut self, tables: &T) -> Word;

    /// Runs [`crate::translate::proxy::introduce`] on this frame.
    fn introduce<T: Choices>(&mut self, tables: &T) -> Word;

    /// Runs [`crate::translate::proxy::put`] on this frame.
    fn put<T: Choices>(&mut self, tables: &T, keeps: u32) -> Word;

    /// Runs [`crate::translate::cross::carry4`] on this frame.
    fn cross4<T: Choices>(&mut self, tables: &T) -> Word;

    /// Runs [`crate::translate::cross::carry6`] on this frame.
    fn cross6<T: Choices>(&mut self, tables: &T) -> Word;

    /// Runs [`crate::translate::error::follow`] on this frame.
    fn translate_error<T: Choices>(&mut self, tables: &T) -> Word;

    /// Runs [`crate::translate::cross::error::follow4`] on this frame.
    fn cross_error4<T: Choices>(&mut self, tables: &T) -> Word;

    /// Runs [`crate::translate::cross::error::follow6`] on this frame.
    fn cross_error6<T: Choices>(&mut self, tables: &T) -> Word;
}
