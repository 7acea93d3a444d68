//! Becoming a real server of virtual addresses, staying one, and leaving.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::signal::unix::{SignalKind, signal};

use crate::folder;
use crate::machine::{self, Machine};
use crate::memory::{Memory, Programs};
use crate::options::{Hook, Options};
use crate::program::{self, Lesson};
use crate::report::{Item, Report, State};
use crate::setting;
use crate::wanted::{self, Thing, Wanted};

/// How often `run` checks the state.
const PERIOD: Duration = Duration::from_secs(2);

/// Makes this machine a real server of exactly `options.vips`. A second call changes nothing.
pub fn join(options: &Options) -> Result<Report> {
    options.check()?;
    options.check_believed()?;
    let folder = folder::run()?;
    let _alone = folder::alone()?;
    let mut memory = Memory::read(&folder)?;
    let machine = Machine::look()?;
    let before = wanted::list(options, &machine, &memory)?;
    memory.options = options.clone();
    memory.write()?;

    let mut dropped = drop_unwanted(options, &machine, &mut memory)?;
    for wanted in before.iter().filter(|wanted| wanted.found.is_some()) {
        make(wanted, options, &machine, &mut memory)?;
    }
    // The report shows what the kernel has afterwards, not what the agent did.
    let after = wanted::list(options, &Machine::look()?, &memory)?;
    dropped.extend(after.into_iter().map(|now| {
        let was = before
            .iter()
            .any(|then| then.what == now.what && then.found.is_none());
        let state = match (&now.found, was) {
            (Some(_), _) => State::Missing,
            (None, true) => State::Ok,
            (None, false) => State::Done,
        };
        item(now, state)
    }));
    Ok(report(options, dropped, &memory))
}

/// Reports the state of each thing and changes nothing. Without virtual addresses it checks the
/// last join.
pub fn check(options: &Options) -> Result<Report> {
    let memory = Memory::read(&folder::run()?)?;
    let options = if options.vips.is_empty() {
        &memory.options
    } else {
        options
    };
    ensure!(
        !options.vips.is_empty(),
        "no virtual address; name at least one, or join first"
    );
    options.check()?;
    let wanted = wanted::list(options, &Machine::look()?, &memory)?;
    let judged = wanted.into_iter().map(|wanted| {
        let state = if wanted.found.is_none() {
            State::Ok
        } else {
            State::Missing
        };
        item(wanted, state)
    });
    Ok(report(options, judged.collect(), &memory))
}

/// Restores the state before this machine joined, whichever process joined and however it ended.
pub fn leave() -> Result<Report> {
    let folder = folder::run()?;
    let _alone = folder::alone()?;
    let mut memory = Memory::read(&folder)?;
    let vips = memory.options.vips.clone();
    let machine = Machine::look()?;
    let mut items = Vec::new();
    for address in std::mem::take(&mut memory.addresses) {
        machine::remove_address(machine.loopback()?.index, address)?;
        items.push(Item::restored(format!("{address} is not on lo")));
    }
    if let Some(programs) = memory.programs.take() {
        program::detach(&programs)?;
        let devices = programs.devices.join(", ");
        items.push(Item::restored(format!(
            "no program of ours is on {devices}"
        )));
    }
    for (key, change) in &memory.settings {
        let present = setting::read(key)?;
        if present.as_ref() == Some(&change.after) {
            setting::write(key, &change.before)?;
            items.push(Item::restored(format!("{key} is {}", change.before)));
        } else if let Some(present) = present.filter(|present| *present != change.before) {
            // Somebody else set this value, so the agent does not undo it.
            let what = format!("{key} was {}", change.before);
            items.push(Item {
                what,
                state: State::Kept,
                found: Some(present),
                fix: None,
            });
        }
    }
    memory.forget()?;
    Ok(Report {
        vips,
        items,
        ..Report::default()
    })
}

/// Waits for SIGTERM or SIGINT.
pub(crate) fn until_asked_to_end() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")?;
    runtime.block_on(async {
        let mut ended = signal(SignalKind::terminate())?;
        let mut interrupted = signal(SignalKind::interrupt())?;
        tokio::select! {
            _ = ended.recv() => {}
            _ = interrupted.recv() => {}
        }
        Ok(())
    })
}

/// Joins, repairs changes until a signal asks for the end, and then leaves, unless `keep` is set.
/// Passes each change to `tell`.
pub fn run(options: &Options, keep: bool, mut tell: impl FnMut(&Report)) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")?;
    let (mut ended, mut interrupted) = runtime.block_on(async {
        Ok::<_, std::io::Error>((
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
        ))
    })?;
    tell(&join(options)?);
    loop {
        let is_over = runtime.block_on(async {
            tokio::select! {
                _ = ended.recv() => true,
                _ = interrupted.recv() => true,
                () = tokio::time::sleep(PERIOD) => false,
            }
        });
        if is_over {
            break;
        }
        // A device that is missing for a moment must not end the service on the others.
        match join(options) {
            Ok(report) if report.has_changes() || !report.is_ready() => tell(&report),
            Ok(_) => {}
            Err(error) => eprintln!("cannot repair what changed: {error:#}"),
        }
    }
    if !keep {
        tell(&leave()?);
    }
    Ok(())
}

/// Undoes what an earlier join set up and this one does not ask for.
fn drop_unwanted(options: &Options, machine: &Machine, memory: &mut Memory) -> Result<Vec<Item>> {
    let mut items = Vec::new();
    let unwanted = memory
        .addresses
        .extract_if(.., |address| !options.vips.contains(address));
    for address in unwanted.collect::<Vec<_>>() {
        machine::remove_address(machine.loopback()?.index, address)?;
        items.push(Item::restored(format!("{address} is not on lo")));
    }
    if !options.tunnel
        && let Some(programs) = memory.programs.take()
    {
        program::detach(&programs)?;
        items.push(Item::restored("tunnels are not decapsulated".to_owned()));
    }
    if !items.is_empty() {
        memory.write()?;
    }
    Ok(items)
}

fn make(wanted: &Wanted, options: &Options, machine: &Machine, memory: &mut Memory) -> Result<()> {
    match &wanted.thing {
        Thing::Setting { key, value } => {
            let before = setting::read(key)?.with_context(|| format!("there is no {key}"))?;
            let value = value.to_string();
            memory.note_setting(key, before, &value)?;
            setting::write(key, &value)
        }
        Thing::Programs => attach(options, machine, memory),
        Thing::Address(address) => {
            if !memory.addresses.contains(address) {
                memory.addresses.push(*address);
                memory.write()?;
            }
            machine::add_address(machine.loopback()?.index, *address)
        }
        Thing::Elsewhere => Ok(()),
    }
}

/// Attaches the programs, or only configures them if they are attached correctly.
fn attach(options: &Options, machine: &Machine, memory: &mut Memory) -> Result<()> {
    let facing = machine.facing(&options.devices)?;
    ensure!(
        !facing.is_empty(),
        "no device has an address, so no tunnel can end here"
    );
    let names: Vec<&str> = facing.iter().map(|device| device.name.as_str()).collect();
    let lesson = Lesson::new(options, machine, &facing);
    let hook = program::hook(options.hook);
    if let Some(programs) = &memory.programs {
        let told = program::tell(&programs.pins, &lesson);
        if told.is_ok() && program::missing(programs, hook, &names, &lesson)?.is_none() {
            return Ok(());
        }
    }
    let earlier = memory.programs.take();
    // A device may have several tc links, and the second program would see no tunnel. Every other
    // hook has room for one program a device.
    let side_by_side = hook == Hook::Tc && program::has_links();
    if let Some(programs) = earlier.as_ref().filter(|_| !side_by_side) {
        program::detach(programs)?;
    }
    let pins = folder::fresh_pins()?;
    let programs = Programs {
        pins: pins.clone(),
        devices: names.iter().map(ToString::to_string).collect(),
        filters: !program::has_links(),
    };
    memory.programs = Some(programs.clone());
    memory.write()?;
    if let Err(error) = program::attach(&names, hook, &lesson, &pins) {
        program::detach(&programs)?;
        memory.programs = earlier.filter(|_| side_by_side);
        memory.write()?;
        return Err(error);
    }
    match earlier.filter(|_| side_by_side) {
        Some(programs) => program::detach(&programs),
        None => Ok(()),
    }
}

fn item(wanted: Wanted, state: State) -> Item {
    let fix = wanted.found.is_some().then_some(wanted.fix);
    Item {
        what: wanted.what,
        state,
        found: wanted.found,
        fix,
    }
}

impl Item {
    fn restored(what: String) -> Item {
        Item {
            what,
            state: State::Restored,
            found: None,
            fix: None,
        }
    }
}

fn report(options: &Options, items: Vec<Item>, memory: &Memory) -> Report {
    let counters = match &memory.programs {
        Some(programs) => program::counters(&programs.pins).unwrap_or_default(),
        None => Default::default(),
    };
    Report {
        vips: options.vips.clone(),
        items,
        counters,
    }
}
