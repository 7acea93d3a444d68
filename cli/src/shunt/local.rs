//! `shunt local`: the addresses that servers of full NAT see as their clients.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::IpAddr;

use clap::Subcommand;
use shunt_model::change::{Change, local};
use shunt_model::{LocalAddress, LocalPorts};

use super::change::{Wanted, make_all};
use super::table::{Side, Table};
use super::watch::{self, Watch};
use super::{Form, Halt, Outside, write_json};
use crate::client::Client;

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// List the local addresses
    List(Watch),
    /// Let full NAT use these addresses of the director, or change their ports
    Add {
        /// Addresses of the director, to which the servers have a route
        #[arg(required = true)]
        addresses: Vec<IpAddr>,
        /// The ports of each address that full NAT may use
        #[arg(long, default_value_t = LocalPorts::default())]
        ports: LocalPorts,
    },
    /// Stop using these addresses for new connections; existing ones keep their address
    Delete {
        #[arg(required = true)]
        addresses: Vec<IpAddr>,
    },
}

impl Verb {
    pub(super) fn run(&self, outside: &mut Outside<'_>) -> Result<(), Halt> {
        match self {
            Verb::List(watch) => watch::show(outside, *watch, &draw),
            Verb::Add { addresses, ports } => {
                make_all(outside, |client| add(client, addresses, *ports))
            }
            Verb::Delete { addresses } => make_all(outside, |client| delete(client, addresses)),
        }
    }
}

fn add(
    client: &mut dyn Client,
    addresses: &[IpAddr],
    ports: LocalPorts,
) -> Result<Vec<Wanted>, Halt> {
    let known = client.locals()?.into_iter();
    let mut known: BTreeMap<IpAddr, LocalAddress> =
        known.map(|local| (local.address, local)).collect();
    let addresses = addresses.iter().map(|address| {
        let address = *address;
        let local = LocalAddress { address, ports };
        let text = match known.insert(address, local) {
            Some(known) if known == local => {
                return Wanted::nothing(&format!("local address {local} already exists"));
            }
            Some(known) => format!("changed local address {known}: ports {}", local.ports),
            None => format!("added local address {local}"),
        };
        Wanted::change(Change::Local(local::Change::Set { local }), text)
    });
    Ok(addresses.collect())
}

fn delete(client: &mut dyn Client, addresses: &[IpAddr]) -> Result<Vec<Wanted>, Halt> {
    let known = client.locals()?.into_iter();
    let mut known: BTreeSet<IpAddr> = known.map(|local| local.address).collect();
    let addresses = addresses.iter().map(|address| {
        let address = *address;
        if !known.remove(&address) {
            return Wanted::nothing(&format!("there is no local address {address}"));
        }
        let text = format!("deleted local address {address}; existing connections keep it");
        Wanted::change(Change::Local(local::Change::Delete { address }), text)
    });
    Ok(addresses.collect())
}

fn draw(client: &mut dyn Client, out: &mut dyn Write, form: Form) -> Result<(), Halt> {
    let locals = client.locals()?;
    if form != Form::Text {
        return write_json(out, &locals, form);
    }
    let mut table = Table::new(&[("ADDRESS", Side::Left), ("PORTS", Side::Left)]);
    for local in &locals {
        table.row([local.address.to_string(), local.ports.to_string()]);
    }
    Ok(table.write(out)?)
}
