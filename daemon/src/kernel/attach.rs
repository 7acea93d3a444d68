//! Hangs the packet path on devices, and finds what hangs there already.
//!
//! A link is pinned under the device's index, so that it outlives the daemon; the kernel takes a
//! link away with its device, after which the pin means nothing and is removed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::{TcAttachType, XdpMode, tc};
use shunt_control::network::Link;
use shunt_control::network::attach::{Choice, Hook};

use super::object::Object;
use super::place::Place;

/// A device that the packet path hangs on, or why it does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    pub name: String,
    pub index: u32,
    pub hook: String,
    pub works: bool,
}

/// What hangs where.
#[derive(Debug)]
pub struct Attachments {
    place: Place,
    present: BTreeMap<u32, Attached>,
    /// Devices whose leaving frames are looked at.
    leaving: BTreeSet<u32>,
}

impl Attachments {
    #[must_use]
    pub fn new(place: Place) -> Self {
        Self {
            place,
            present: BTreeMap::new(),
            leaving: BTreeSet::new(),
        }
    }

    pub fn present(&self) -> impl Iterator<Item = &Attached> {
        self.present.values()
    }

    /// Brings every device to what was chosen for it, and looks at what `leaves` there, or no
    /// longer. Says what changed.
    pub fn settle(
        &mut self,
        object: &mut Object,
        wanted: &[(Link, Choice)],
        leaves: bool,
    ) -> Vec<Attached> {
        let mut changed = Vec::new();
        let indices: Vec<u32> = wanted.iter().map(|(link, _)| link.index).collect();
        self.forget_all_but(&indices);
        for (link, choice) in wanted {
            let works = self
                .present
                .get(&link.index)
                .is_some_and(|present| present.works);
            if choice.hooks.is_empty() {
                self.detach(link.index);
                continue;
            }
            self.look_at_what_leaves(object, link, leaves);
            if works {
                continue;
            }
            let attached = self.attach(object, link, choice);
            if self.present.get(&link.index) != Some(&attached) {
                changed.push(attached.clone());
            }
            self.present.insert(link.index, attached);
        }
        changed
    }

    fn pin(&self, index: u32, hook: Hook) -> PathBuf {
        self.place.pins.join(format!("link-{index}-{}", name(hook)))
    }

    /// Pins of devices that are gone, and what was known of them.
    fn forget_all_but(&mut self, indices: &[u32]) {
        self.present.retain(|index, _| indices.contains(index));
        self.leaving.retain(|index| indices.contains(index));
        let Ok(files) = fs::read_dir(&self.place.pins) else {
            return;
        };
        for file in files.flatten() {
            let name = file.file_name();
            let Some(rest) = name.to_str().and_then(|name| name.strip_prefix("link-")) else {
                continue;
            };
            let index = rest
                .split('-')
                .next()
                .and_then(|index| index.parse::<u32>().ok());
            if index.is_none_or(|index| !indices.contains(&index)) {
                let _ = fs::remove_file(file.path());
            }
        }
    }

    fn detach(&mut self, index: u32) {
        self.present.remove(&index);
        self.leaving.remove(&index);
        let _ = fs::remove_file(self.pin_of_leaving(index));
        for hook in [Hook::XdpNative, Hook::XdpGeneric, Hook::Tc] {
            let _ = fs::remove_file(self.pin(index, hook));
        }
    }

    fn pin_of_leaving(&self, index: u32) -> PathBuf {
        self.place.pins.join(format!("link-{index}-leave"))
    }

    /// Hangs the program for frames that leave on a device, or takes it off.
    fn look_at_what_leaves(&mut self, object: &mut Object, link: &Link, leaves: bool) {
        let is_there = self.leaving.contains(&link.index);
        if is_there == leaves {
            return;
        }
        let path = self.pin_of_leaving(link.index);
        let adopted = leaves && path.exists() && adopt_leaving(object, &path).is_ok();
        if !adopted {
            // Before Linux 6.6 it is a filter of the device's own.
            let _ = fs::remove_file(&path);
            let _ = tc::qdisc_detach_program(&link.name, TcAttachType::Egress, "director_leave");
        }
        if !leaves {
            self.leaving.remove(&link.index);
            return;
        }
        let hung = match adopted {
            true => Ok(()),
            false => hang_leaving(object, link, &path),
        };
        match hung {
            Ok(()) => drop(self.leaving.insert(link.index)),
            Err(error) => tracing::warn!(
                device = link.name,
                why = format!("{error:#}"),
                "answers of this machine's own servers not translated"
            ),
        }
    }

    fn attach(&self, object: &mut Object, link: &Link, choice: &Choice) -> Attached {
        let mut why = Vec::new();
        for hook in choice.hooks {
            let adopted = self.adopt(object, link, *hook);
            let result = match adopted {
                Some(Ok(())) => Ok(()),
                _ => self.hang(object, link, *hook),
            };
            match result {
                Ok(()) => {
                    return Attached {
                        name: link.name.clone(),
                        index: link.index,
                        hook: name(*hook).to_owned(),
                        works: true,
                    };
                }
                Err(error) => why.push(format!("{}: {error:#}", name(*hook))),
            }
        }
        Attached {
            name: link.name.clone(),
            index: link.index,
            hook: format!("not attached ({})", why.join("; ")),
            works: false,
        }
    }

    /// A link that an earlier daemon left: its program is replaced by ours in one step.
    fn adopt(&self, object: &mut Object, link: &Link, hook: Hook) -> Option<Result<()>> {
        let path = self.pin(link.index, hook);
        if !path.exists() {
            return None;
        }
        let mut renew = || -> Result<()> {
            let pinned = PinnedLink::from_pin(&path)?;
            let held = FdLink::from(pinned);
            match hook {
                Hook::XdpNative | Hook::XdpGeneric => {
                    let id = object.xdp.attach_to_link(held.try_into()?)?;
                    // The pin holds the link; ours is only let go.
                    let link = object.xdp.take_link(id)?;
                    drop(FdLink::try_from(link)?);
                }
                Hook::Tc => {
                    let id = object.tc.attach_to_link(held.try_into()?)?;
                    let link = object.tc.take_link(id)?;
                    drop(FdLink::try_from(link)?);
                }
            }
            Ok(())
        };
        let result = renew();
        if let Err(error) = &result {
            tracing::debug!(
                device = link.name,
                ?error,
                "link of an earlier daemon not taken over"
            );
            // The kernel took the link away with an earlier device of this index.
            let _ = fs::remove_file(&path);
        }
        Some(result)
    }

    fn hang(&self, object: &mut Object, link: &Link, hook: Hook) -> Result<()> {
        let path = self.pin(link.index, hook);
        match hook {
            Hook::XdpNative | Hook::XdpGeneric => {
                let mode = if hook == Hook::XdpNative {
                    XdpMode::Driver
                } else {
                    XdpMode::Skb
                };
                let id = object
                    .xdp
                    .attach_to_if_index(link.index, mode)
                    .map_err(|error| explain(&error, &link.name))?;
                let held = FdLink::try_from(object.xdp.take_link(id)?)?;
                held.pin(&path).context("cannot pin the link")?;
            }
            Hook::Tc => {
                // Before Linux 6.6 there is no link to pin: a filter of the device's own stays by
                // itself, so one of an earlier daemon goes first.
                let _ = tc::qdisc_detach_program(&link.name, TcAttachType::Ingress, "director_tc");
                let _ = tc::qdisc_add_clsact(&link.name);
                let id = object
                    .tc
                    .attach(&link.name, TcAttachType::Ingress)
                    .map_err(|error| explain(&error, &link.name))?;
                let taken = object.tc.take_link(id)?;
                if <&FdLink>::try_from(&taken).is_err() {
                    std::mem::forget(taken);
                    return Ok(());
                }
                FdLink::try_from(taken)?
                    .pin(&path)
                    .context("cannot pin the link")?;
            }
        }
        Ok(())
    }
}

/// A link that an earlier daemon left: its program is replaced by ours in one step.
fn adopt_leaving(object: &mut Object, path: &Path) -> Result<()> {
    let held = FdLink::from(PinnedLink::from_pin(path)?);
    let id = object.leave.attach_to_link(held.try_into()?)?;
    drop(FdLink::try_from(object.leave.take_link(id)?)?);
    Ok(())
}

fn hang_leaving(object: &mut Object, link: &Link, path: &Path) -> Result<()> {
    let _ = tc::qdisc_add_clsact(&link.name);
    let id = object
        .leave
        .attach(&link.name, TcAttachType::Egress)
        .map_err(|error| explain(&error, &link.name))?;
    let taken = object.leave.take_link(id)?;
    if <&FdLink>::try_from(&taken).is_err() {
        std::mem::forget(taken);
        return Ok(());
    }
    FdLink::try_from(taken)?
        .pin(path)
        .context("cannot pin the link")?;
    Ok(())
}

fn name(hook: Hook) -> &'static str {
    match hook {
        Hook::XdpNative => "xdp-native",
        Hook::XdpGeneric => "xdp-generic",
        Hook::Tc => "tc",
    }
}

fn explain(error: &dyn std::error::Error, device: &str) -> anyhow::Error {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    let hint = if text.contains("os error 16") {
        format!("another program is on {device} already; see `ip link show {device}`")
    } else if text.contains("os error 95") {
        "the driver does not support this hook".to_owned()
    } else {
        "see the kernel's log".to_owned()
    };
    anyhow!("{text} ({hint})")
}
