//! The table of calls: templates of a persistence engine.
//!
//! The packet path enters them and renews them. A scan takes out those whose time is over, and
//! gives another minute to one whose last connection is still there, as `ip_vs_conn_expire` does
//! (net/netfilter/ipvs/ip_vs_conn.c).

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::fd::OwnedFd;

use anyhow::Result;
use shunt_control::director::Names;
use shunt_datapath::call::{Call, CallKey};
use shunt_datapath::connection::{self, Meta};
use shunt_datapath::flows::{self, Key, Narrow, Wide};
use shunt_model::{Connection, EngineData, State};

use super::batch::{self, Batches, Plain};
use super::clock;
use super::listing::Told;
use super::scan::{Found, Look};
use super::templates::{AGAIN_S, SOON};
use super::translations::value_in;

/// Entries of one call of the kernel.
const BATCH: usize = 1024;

/// [`CallKey`] as a map's key.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default)]
struct MapKey(CallKey);
// SAFETY: integers only, without padding.
unsafe impl Plain for MapKey {}

/// [`Call`] as a map's value.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default)]
struct Value(Call);
// SAFETY: words only.
unsafe impl Plain for Value {}

/// The map.
#[derive(Debug)]
pub struct Calls(pub OwnedFd);

impl Calls {
    /// Goes over all calls once.
    pub fn sweep(&self, look: Look<'_>, found: &mut Found) -> Result<()> {
        let mut soon = Vec::new();
        self.each(&mut |key, call| {
            let left = connection::TEMPLATE_LIVES.saturating_sub(meta(call).age(look.now));
            if left <= SOON || look.has_ended(server(call)) || is_unlucky(look, key) {
                soon.push(*key);
            } else {
                count(key, call, found);
            }
            true
        })?;
        for key in soon {
            self.look_after(look, &key, found);
        }
        Ok(())
    }

    /// Takes out a call whose time is over, or gives it more. It is read again: a datagram may have
    /// renewed it meanwhile.
    fn look_after(&self, look: Look<'_>, key: &CallKey, found: &mut Found) {
        let Some(Value(call)) = batch::lookup(&self.0, &MapKey(*key)) else {
            return;
        };
        let age = meta(&call).age(look.now);
        let expired = age > connection::TEMPLATE_LIVES || look.has_ended(server(&call));
        let held = !expired && connection_of(look, &call).is_some();
        if expired || is_unlucky(look, key) && !held {
            found.expired += u64::from(expired);
            found.dropped += u64::from(!expired);
            batch::delete(&self.0, &MapKey(*key));
            return;
        }
        count(key, &call, found);
        if held && connection::TEMPLATE_LIVES - age <= SOON {
            let tick_ns = clock::tick_ns(look.tables.made.jiffies_rate);
            let again = AGAIN_S * 1_000_000_000 / tick_ns.max(1);
            let again = u32::try_from(again).unwrap_or(SOON + 1);
            let meta = Meta::template(look.now, again, connection::TEMPLATE);
            let value = flows::value(server(&call), 0, meta);
            batch::replace(&self.0, &MapKey(*key), &Value(Call { value, ..call }));
        }
    }

    /// Calls `each` with every call, until it says false.
    fn each(&self, each: &mut dyn FnMut(&CallKey, &Call) -> bool) -> Result<()> {
        let mut keys = vec![MapKey::default(); BATCH];
        let mut values = vec![Value::default(); BATCH];
        let mut batches = Batches::new(&self.0);
        loop {
            let count = batches.read(&mut keys, &mut values, 1)?;
            if count == 0 {
                return Ok(());
            }
            for (MapKey(key), Value(call)) in keys.iter().zip(&values).take(count) {
                if !each(key, call) {
                    return Ok(());
                }
            }
        }
    }

    /// Those that are there, by the server that they name.
    pub fn templates(&self, look: Look<'_>, counts: &mut BTreeMap<u32, u32>) -> Result<()> {
        self.each(&mut |_, call| {
            if is_there(look, call) {
                *counts.entry(server(call)).or_insert(0) += 1;
            }
            true
        })
    }

    /// How many are there, and how many of these are assured.
    pub fn states(&self, look: Look<'_>) -> Result<[u64; 2]> {
        let mut counts = [0; 2];
        self.each(&mut |_, call| {
            if is_there(look, call) {
                let assured = state(look, call) == State::Assured;
                counts[usize::from(assured)] += 1;
            }
            true
        })?;
        Ok(counts)
    }

    /// Calls `each` with every call in the operator's words, until it says false.
    pub fn list(
        &self,
        look: Look<'_>,
        names: &Names,
        tick_ns: u64,
        each: &mut dyn FnMut(Connection) -> bool,
    ) -> Result<()> {
        self.each(
            &mut |key, call| match tell(look, key, call, names, tick_ns) {
                Some(connection) => each(connection),
                None => true,
            },
        )
    }
}

fn meta(call: &Call) -> Meta {
    Meta((call.value >> 32) as u32)
}

fn server(call: &Call) -> u32 {
    call.value as u32 & 0xff_ffff
}

fn count(key: &CallKey, call: &Call, found: &mut Found) {
    found.calls += 1;
    found.services.insert(key.service);
    found.servers.insert(server(call));
}

fn is_there(look: Look<'_>, call: &Call) -> bool {
    meta(call).age(look.now) <= connection::TEMPLATE_LIVES && !look.has_ended(server(call))
}

/// Whether `drop_entry` asks for it (`ip_vs_random_dropentry`).
fn is_unlucky(look: Look<'_>, key: &CallKey) -> bool {
    let Some(stretch) = look.stretch else {
        return false;
    };
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    stretch.has(hasher.finish() as u32, u32::MAX)
}

/// The state of the last connection of a call.
fn connection_of(look: Look<'_>, call: &Call) -> Option<connection::State> {
    let [first, a, b, tag] = call.connection;
    let address = [a, b];
    let key = Key {
        first,
        address,
        tag,
    };
    if first == 0 {
        return None;
    }
    let made = &look.tables.made;
    // Only keys of IPv6 have an address beside their first word.
    let value = if address == [0, 0] {
        value_in::<Narrow>(&look.tables.flows4, made.flow4_mask(), made.seed, &key)
    } else {
        value_in::<Wide>(&look.tables.flows6, made.flow6_mask(), made.seed, &key)
    };
    let value = value.filter(|value| *value as u32 & 0xff_ffff == server(call))?;
    Some(Meta((value >> 32) as u32).state())
}

/// A call is assured when its last connection is: what IPVS looks at when it is asked for new ones,
/// is looked at here when somebody asks.
fn state(look: Look<'_>, call: &Call) -> State {
    match connection_of(look, call) {
        Some(connection::UDP) => State::Assured,
        _ => State::None,
    }
}

/// A call in the operator's words; `None` if it expired.
fn tell(
    look: Look<'_>,
    key: &CallKey,
    call: &Call,
    names: &Names,
    tick_ns: u64,
) -> Option<Connection> {
    if look.has_ended(server(call)) {
        return None;
    }
    let left = connection::TEMPLATE_LIVES.checked_sub(meta(call).age(look.now))?;
    let template = Told {
        service: key.service,
        server: server(call),
        client: key.client,
        left,
    };
    let bytes = key.id.iter().flat_map(|word| word.to_le_bytes());
    let data = bytes.take(key.length as usize).map(char::from).collect();
    Some(Connection {
        state: state(look, call),
        engine: Some(EngineData {
            name: "sip".to_owned(),
            data,
        }),
        ..template.tell(names, tick_ns)?
    })
}
