//! The steps that need only the tables, on the host.

use crate::connection::sctp;
use crate::schedule::{self, Client};
use crate::steps::Choices;
use crate::table::family::Family;
use crate::table::lookup;
use crate::{call, origin, template, track};

use super::HostTables;

impl Choices for &HostTables {
    fn wide<F: Family>(&self, address: F::Address, word: u32) -> u32 {
        lookup::wide::<F, _>(self, address, word)
    }

    fn find_origin<F: Family>(
        &self,
        target: F::Address,
        word: u32,
        source: F::Address,
        interface: u32,
    ) -> u32 {
        origin::find::<F, _>(self, target, word, source, interface)
    }

    fn cheapest<F: Family>(&self, hash: u64) -> u64 {
        track::cheapest::<F, _>(self, hash)
    }

    fn recall<F: Family>(&self, service: u32, client: F::Address, server: u32) -> u32 {
        template::recall::<F, _>(self, service, client, server)
    }

    fn recall_call(&self, service: u32, server: u32) -> u32 {
        call::recall(self, service, server)
    }

    fn schedule(&self, service: u32, client: Client) -> u32 {
        schedule::pick(self, service, client)
    }

    fn association_next(&self, state: u32, direction: u32, flags: u32) -> u32 {
        sctp::next(state, direction, flags)
    }
}
