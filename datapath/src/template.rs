//! Persistence: a client's template names the server of its connections.
//!
//! A template is an ordinary entry of the flow table, from the client's address (masked by the
//! granularity) and port 0 to an id that only templates have. It names a server and counts in no
//! server's live counts. It lives for the service's persistence timeout after the last connection
//! that used it (`ip_vs_sched_persist`, net/netfilter/ipvs/ip_vs_core.c).

use crate::connection::{self, Meta, TEMPLATE};
use crate::steps::Choices;
use crate::table::Tables;
use crate::table::entry::{NONE, Server, Service, fate};
use crate::table::family::Family;
use crate::table::flows::{self, Key, Price};
use crate::track;

/// The key of a client's template.
#[inline(always)]
pub fn key<F: Family>(service: &Service, client: F::Address) -> Key {
    F::key(
        F::from_words(masked::<F>(service, client)),
        0,
        service.template,
    )
}

/// A client's address, masked by the service's granularity.
#[inline(always)]
pub fn masked<F: Family>(service: &Service, client: F::Address) -> [u64; 2] {
    let [a, b] = F::words(client);
    let [mask_a, mask_b] = service.granularity;
    [a & mask_a, b & mask_b]
}

/// With [`NONE`] as `server`, returns the server of a client's template for a new connection, and
/// renews the template; [`NONE`] if no template holds. With a server that was scheduled, enters a
/// template that names it.
///
/// In the kernel this is a separate function ([`Choices::recall`]). It does not call the scheduler,
/// for which Linux 6.1 has too little stack.
#[inline(always)]
pub fn recall<F: Family, T: Choices>(
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
    // Each of the four cases has a path of its own. Where paths joined, the kernel's verifier saw a
    // register that nothing had written.
    let seat = match found {
        Some(mut template) => {
            if server == NONE {
                if template.meta().age(now) > connection::TEMPLATE_LIVES {
                    return NONE;
                }
                let id = named(tables, template.target());
                let meta = template.meta().renewed(now, entry.persistence);
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
            track::claim::<F, T>(tables, settings, hash, now, Price::LAST)
        }
    };
    // Without room the connection goes on, and the client's next one is scheduled again.
    if let Some(seat) = seat {
        let meta = Meta::template(now, entry.persistence, TEMPLATE);
        seat.fill::<F::Layout>(&key, flows::value(server, key.tag, meta));
    }
    server
}

/// The server that a template names, or its successor, if clients may use it; else [`NONE`]. A
/// quiesced server may be used, unless its fate has [`fate::LEFT_BY_TEMPLATES`].
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
    server.is_present() && server.fate & fate::LEFT_BY_TEMPLATES == 0
}

/// Marks the template of a client with an established connection as assured. If the connection is
/// proved, the template may not be displaced.
#[inline(always)]
pub fn assure<F: Family, T: Tables>(
    tables: &T,
    service: &Service,
    client: F::Address,
    proved: bool,
) {
    if service.template == NONE {
        return;
    }
    let key = key::<F>(service, client);
    let hash = track::hash::<F, T>(tables, &key);
    if let Some(mut template) = track::find::<F, T>(tables, &key, hash) {
        let meta = template.meta().assured(proved);
        if meta != template.meta() {
            template.update::<F::Layout>(meta);
        }
    }
}
