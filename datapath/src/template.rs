//! Persistence: the template of a client says which server takes its connections.
//!
//! A template is an entry of the flow table like any other, from the client's address (as much of
//! it as counts) and port 0 to an id that only templates have. It names a server, counts for
//! nobody, and lives for the service's own time after the last connection that it gave a server
//! (`ip_vs_sched_persist`, net/netfilter/ipvs/ip_vs_core.c).

use crate::connection::{self, Meta, TEMPLATE, TEMPLATE_ASSURED};
use crate::entry::{NONE, Server, Service, fate};
use crate::family::Family;
use crate::flows::{self, Key};
use crate::tables::Tables;
use crate::track;
use crate::walk;

/// The key of a client's template.
#[inline(always)]
pub fn key<F: Family>(service: &Service, client: F::Address) -> Key {
    F::key(
        F::from_words(masked::<F>(service, client)),
        0,
        service.template,
    )
}

/// As much of a client's address as counts.
#[inline(always)]
pub fn masked<F: Family>(service: &Service, client: F::Address) -> [u64; 2] {
    let [a, b] = F::words(client);
    let [mask_a, mask_b] = service.granularity;
    [a & mask_a, b & mask_b]
}

/// The server of a client's template, for a new connection: [`NONE`] if it has none that stands.
/// With a `server` that was scheduled since, the template is made, and names it. In the kernel this
/// is a function of its own ([`Tables::recall4`]); the scheduler is not asked from within, which
/// would be more stack than Linux 6.1 has.
#[inline(always)]
pub fn recall<F: Family, T: Tables>(
    tables: &T,
    service: u32,
    client: F::Address,
    server: u32,
) -> u32 {
    let (Some(entry), Some(settings)) = (tables.service(service), tables.settings()) else {
        return NONE;
    };
    let now = tables.now();
    let key = key::<F>(entry, client);
    let hash = track::hash::<F, T>(tables, &key);
    let found = track::find::<F, T>(tables, &key, hash);
    // One way for each of the four cases, none of which meet again: where they did, the kernel's
    // verifier saw a register that nobody had written.
    let seat = match found {
        Some(mut template) => {
            if server == NONE {
                if template.meta().age(now) > connection::TEMPLATE_LIVES {
                    return NONE;
                }
                let id = named(tables, template.target());
                let meta = Meta::template(now, entry.persistence, template.meta().state());
                if id != NONE && meta != template.meta() {
                    template.update::<F::Layout>(meta);
                }
                return id;
            }
            template.seize::<F::Layout>(&key)
        }
        None => {
            if server == NONE {
                return NONE;
            }
            track::claim::<F, T>(tables, settings, hash, now)
        }
    };
    // Without room the connection goes on, and the client's next one is scheduled again.
    if let Some(seat) = seat {
        let meta = Meta::template(now, entry.persistence, TEMPLATE);
        seat.fill::<F::Layout>(&key, flows::value(server, key.tag, meta));
    }
    server
}

/// The server that a template stands for, if it is there. A quiesced one is, unless its settings
/// say that clients leave it.
#[inline(always)]
pub fn named<T: Tables>(tables: &T, id: u32) -> u32 {
    let Some(named) = tables.server(id) else {
        return NONE;
    };
    if named.successor == NONE {
        return if stands(named) { id } else { NONE };
    }
    match tables.server(named.successor) {
        Some(successor) if stands(successor) => named.successor,
        _ => NONE,
    }
}

/// `ip_vs_check_template`.
#[inline(always)]
fn stands(server: &Server) -> bool {
    walk::is_present(server) && server.fate & fate::LEFT_BY_TEMPLATES == 0
}

/// A connection of this client is established: its template no longer gives way.
#[inline(always)]
pub fn assure<F: Family, T: Tables>(tables: &T, service: &Service, client: F::Address) {
    if service.template == NONE {
        return;
    }
    let key = key::<F>(service, client);
    let hash = track::hash::<F, T>(tables, &key);
    if let Some(mut template) = track::find::<F, T>(tables, &key, hash)
        && template.meta().state() == TEMPLATE
    {
        let meta = Meta(template.meta().0 ^ (TEMPLATE ^ TEMPLATE_ASSURED));
        template.update::<F::Layout>(meta);
    }
}
