//! The way to a client.

use crate::steps::Steps;
use crate::table::Tables;
use crate::table::entry::Ways;
use crate::table::family::Family;
use crate::verdict::Note;

/// The way to a client. The prepared hop comes first; then the kernel's rules and routes for a
/// packet from `from`, the address that the client knows; then the way that the client's own
/// packets came. `None` if the kernel refuses, or no way is known.
#[inline(always)]
pub fn way_back<F: Family, P: Steps, T: Tables>(
    frame: &P,
    tables: &T,
    hop: u32,
    from: F::Address,
    client: F::Address,
) -> Option<Ways> {
    if let Some(ways) = prepared(tables, hop) {
        return Some(ways);
    }
    tables.count(Note::RouteAsked.counter());
    match frame.route(F::V6, F::words(from), F::words(client)) {
        Some(ways) if ways.is_usable() => Some(ways),
        Some(_) => None,
        None => tables.learned(F::words(client)),
    }
}

/// [`way_back`] without the kernel's routes: for rare packets Linux 6.1 has no stack left to look
/// them up.
#[inline(always)]
pub fn known_way<F: Family, T: Tables>(tables: &T, hop: u32, client: F::Address) -> Option<Ways> {
    prepared(tables, hop).or_else(|| tables.learned(F::words(client)))
}

#[inline(always)]
fn prepared<T: Tables>(tables: &T, hop: u32) -> Option<Ways> {
    if hop == 0 {
        return None;
    }
    let ways = tables.hop(hop)?.ways;
    if ways.is_usable() { Some(ways) } else { None }
}
