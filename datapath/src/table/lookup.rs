//! The look-up of endpoints: which service or masqueraded server an address and port belong to.

use crate::steps::{Choices, Steps};
use crate::table::Tables;
use crate::table::entry::{LEFT, NONE, Settings, WIDE, wide_flag, wide_number, with_port};
use crate::table::family::Family;

/// The endpoint of the service that a frame is for, or [`NONE`]. An endpoint of this port comes
/// first, then the endpoints of [`crate::origin`], then an endpoint of every port.
#[inline(always)]
pub fn service<F: Family, P: Steps, T: Choices>(
    frame: &P,
    tables: &T,
    settings: &Settings,
    target: F::Address,
    word: u32,
) -> u32 {
    let id = F::endpoint(tables, target, word);
    if id != NONE {
        return id;
    }
    wider::<F, P, T>(frame, tables, settings, target, word)
}

/// [`service`] of a frame that no endpoint of just its port is for.
#[inline(always)]
pub fn wider<F: Family, P: Steps, T: Choices>(
    frame: &P,
    tables: &T,
    settings: &Settings,
    target: F::Address,
    word: u32,
) -> u32 {
    if settings.wide == 0 {
        return NONE;
    }
    if settings.wide & !wide_flag::EVERY_PORT != 0 {
        return frame.origin(tables, word);
    }
    tables.wide::<F>(target, word)
}

/// The endpoint of an address and an [`super::entry::endpoint_word`], or [`NONE`]. An endpoint of
/// this port comes before one of every port, as in IPVS (`ip_vs_service_find`).
#[inline(always)]
pub fn endpoint<F: Family, T: Choices>(
    tables: &T,
    settings: &Settings,
    address: F::Address,
    word: u32,
) -> u32 {
    let id = F::endpoint(tables, address, word);
    if id != NONE || settings.wide == 0 {
        return id;
    }
    tables.wide::<F>(address, word)
}

/// The endpoint of every port of an address, with the port of `word` in its id; or [`NONE`].
#[inline(always)]
pub fn wide<F: Family, T: Tables>(tables: &T, address: F::Address, word: u32) -> u32 {
    let id = F::endpoint(tables, address, word & !0xffff);
    if id == NONE {
        return NONE;
    }
    with_port(id, word as u16)
}

/// The service that an endpoint belongs to. [`NONE`] if the endpoint's mark rule is deleted
/// ([`LEFT`]); no service has this id.
#[inline(always)]
pub fn service_of<T: Tables>(tables: &T, endpoint: u32) -> u32 {
    if endpoint & WIDE == 0 {
        endpoint
    } else if endpoint & LEFT == 0 {
        tables.wide_service(wide_number(endpoint))
    } else {
        NONE
    }
}
