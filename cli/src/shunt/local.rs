//! `shunt local`: the addresses that servers of full NAT see as their clients.

use std::io::Write;
use std::net::IpAddr;

use clap::Subcommand;
use shunt_model::change::{Change, local};
use shunt_model::{LocalAddress, LocalPorts};

use super::change::{Wanted, make};
use super::table::{Side, Table};
use super::watch::{self, Watch};
use super::{Form, Halt, Outside, write_json};
use crate::client::Client;

#[derive(Debug, Subcommand)]
pub enum Verb {
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
    pub fn run(&self, outside: &mut Outside<'_>) -> Result<(), Halt> {
        match self {
            Verb::List(watch) => watch::show(outside, *watch, &draw),
            Verb::Add { addresses, ports } => {
                for address in addresses {
                    let local = LocalAddress {
                        address: *address,
                        ports: *ports,
                    };
                    make(outside, |client| add(client, local))?;
                }
                Ok(())
            }
            Verb::Delete { addresses } => {
                for address in addresses {
                    make(outside, |client| delete(client, *address))?;
                }
                Ok(())
            }
        }
    }
}

fn add(client: &mut dyn Client, local: LocalAddress) -> Result<Wanted, Halt> {
    let mut known = client.locals()?.into_iter();
    let text = match known.find(|known| known.address == local.address) {
        Some(known) if known == local => {
            let text = format!("local address {local} already exists");
            return Ok(Wanted::nothing(&text));
        }
        Some(known) => format!("changed local address {known}: ports {}", local.ports),
        None => format!("added local address {local}"),
    };
    Ok(Wanted::change(
        Change::Local(local::Change::Set { local }),
        text,
    ))
}

fn delete(client: &mut dyn Client, address: IpAddr) -> Result<Wanted, Halt> {
    let mut known = client.locals()?.into_iter();
    if !known.any(|known| known.address == address) {
        let text = format!("there is no local address {address}");
        return Ok(Wanted::nothing(&text));
    }
    let text = format!("deleted local address {address}; existing connections keep it");
    Ok(Wanted::change(
        Change::Local(local::Change::Delete { address }),
        text,
    ))
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
