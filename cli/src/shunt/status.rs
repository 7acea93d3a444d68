//! `shunt status`: the daemon, its devices, and the use of its tables.

use std::io::Write;

use shunt_model::Family;
use shunt_model::api::{LocalPool, Status};
use shunt_model::program::Program;

use super::table::{Side, Table, duration, number};
use super::{Form, Halt, setting, warning, write_json};
use crate::client::Client;

pub(super) fn draw(client: &mut dyn Client, out: &mut dyn Write, form: Form) -> Result<(), Halt> {
    let status = client.status()?;
    if form != Form::Text {
        return write_json(out, &status, form);
    }
    let origin = match status.adopted {
        true => "adopted the packet path of an earlier daemon",
        false => "loaded the packet path itself",
    };
    let up = duration(status.uptime_s);
    let (version, pid) = (&status.version, status.pid);
    writeln!(
        out,
        "daemon       {version}, process {pid}, up {up}, {origin}"
    )?;
    let servers = number(status.servers as usize, "server");
    writeln!(out, "services     {} with {servers}", status.services)?;
    let (used, capacity) = (status.flows_used, status.flows_capacity);
    writeln!(
        out,
        "connections  {used} of {capacity} entries ({})",
        fullness(&status)
    )?;
    let (hops, asked) = (status.client_hops, status.client_routes_asked);
    writeln!(
        out,
        "hops         {hops} prepared for clients, {asked} answers took the kernel's routes"
    )?;
    for pool in &status.local_pools {
        writeln!(out, "local        {}", local_pool(pool))?;
    }
    if status.calls_used > 0 {
        let (used, capacity) = (status.calls_used, status.calls_capacity);
        writeln!(out, "calls        {used} of {capacity}")?;
    }
    if status.translations_used > 0 {
        let (used, capacity) = (status.translations_used, status.translations_capacity);
        writeln!(out, "translations {used} of {capacity} entries")?;
    }
    if let Some(settings) = setting::different(&status.settings) {
        writeln!(out, "settings     {settings}")?;
    }
    if !status.defences.is_empty() {
        let defences = status.defences.iter();
        let defences: Vec<String> = defences.map(warning::defence).collect();
        let dropped = status.dropped_entries;
        writeln!(
            out,
            "defences     {}; {dropped} half-open connections removed so far",
            defences.join("; ")
        )?;
    }
    if !status.loading.is_empty() {
        let programs: Vec<String> = status.loading.iter().map(Program::to_string).collect();
        writeln!(
            out,
            "loading      programs for {}; changes that need them wait",
            programs.join(", ")
        )?;
    }
    for problem in &status.warnings {
        writeln!(out, "warning      {}", warning::text(problem))?;
    }
    draw_devices(&status, out)
}

fn draw_devices(status: &Status, out: &mut dyn Write) -> Result<(), Halt> {
    if status.devices.is_empty() {
        writeln!(out, "devices      none")?;
        return Ok(());
    }
    writeln!(out)?;
    let mut table = Table::new(&[
        ("DEVICE", Side::Left),
        ("INDEX", Side::Right),
        ("HOOK", Side::Left),
    ]);
    for device in &status.devices {
        table.row([
            device.name.clone(),
            device.index.to_string(),
            device.hook_text(),
        ]);
    }
    Ok(table.write(out)?)
}

/// The use of the local addresses of one family.
fn local_pool(pool: &LocalPool) -> String {
    let family = match pool.family {
        Family::Ipv4 => "IPv4",
        Family::Ipv6 => "IPv6",
    };
    let addresses = match pool.addresses {
        1 => "1 address".to_owned(),
        many => format!("{many} addresses"),
    };
    let ports = pool.ports;
    let used = match pool.fullest {
        Some(at) => format!("{} used at {at}", pool.used),
        None => "none used".to_owned(),
    };
    format!("{family}: {addresses} with {ports} ports for each server, {used}")
}

/// The used part of the capacity, with one decimal.
fn fullness(status: &Status) -> String {
    let permille = status
        .flows_used
        .saturating_mul(1000)
        .checked_div(status.flows_capacity);
    match permille {
        Some(permille) => format!("{}.{} %", permille / 10, permille % 10),
        None => "no table".to_owned(),
    }
}
