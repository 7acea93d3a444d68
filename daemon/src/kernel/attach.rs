//! Hangs the packet path on devices, and finds what hangs there already.
//!
//! A link is pinned under the device's index, so that it outlives the daemon; the kernel takes a
//! link away with its device, after which the pin means nothing and is removed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aya::pin::PinError;
use aya::programs::links::{FdLink, LinkError, PinnedLink};
use aya::programs::{ProgramError, SchedClassifier, TcAttachType, Xdp, XdpMode, tc};
use shunt_control::network::Link;
use shunt_control::network::attach::Choice;
use shunt_model::device::{Device, Hook, HookReason, RefusedHook};
use shunt_model::warning::Warning;
use tracing::debug;

use super::filters::{self, Side};
use super::hanging;
use super::object::Object;
use super::place::Place;
use super::programs::{BARE, HANDED, LEAVE, TC};
use super::refusal::code;
use crate::chain::chain;

/// Why a program does not hang on a device.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the text of each variant describes it")]
pub enum Error {
    #[error(transparent)]
    Program(#[from] ProgramError),
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("cannot pin the link")]
    Pin(#[source] PinError),
    #[error("cannot look at the link")]
    Look(#[from] io::Error),
    #[error("it hangs on nothing")]
    Loose,
}

/// The kernel's reason, if the kernel refused the program.
fn reason(error: &Error) -> Option<HookReason> {
    match error {
        Error::Program(error) => Some(match code(error) {
            Some(libc::EBUSY) => HookReason::Taken,
            Some(libc::EOPNOTSUPP) => HookReason::NotSupported,
            Some(_) | None => HookReason::Other,
        }),
        Error::Link(_) | Error::Pin(_) | Error::Look(_) | Error::Loose => None,
    }
}

/// A device, and how the packet path is attached to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The device with its hook, and the hooks that were refused.
    pub device: Device,
    /// On the loopback device, nobody misses a hook that cannot be.
    loopback: bool,
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
    /// Nothing is known of any device.
    #[must_use]
    pub fn new(place: Place) -> Self {
        Self {
            place,
            present: BTreeMap::new(),
            leaving: BTreeSet::new(),
        }
    }

    /// All devices that the packet path shall be attached to, by index.
    pub fn present(&self) -> impl Iterator<Item = &Attached> {
        self.present.values()
    }

    /// What an operator should look at.
    pub fn warnings(&self) -> impl Iterator<Item = Warning> {
        let troubled = |attached: &&Attached| {
            let device = &attached.device;
            !attached.loopback && (device.hook.is_none() || device.is_kept_off())
        };
        let troubled = self.present.values().filter(troubled);
        troubled.map(|attached| Warning::DeviceTroubled {
            device: attached.device.clone(),
        })
    }

    /// Brings every device to what was chosen for it. Says what changed. What hung on a device and
    /// was taken off by somebody is hung on it again, and a place that was another program's is
    /// tried again: nobody tells of either. What `leaves` is looked at too, or no longer.
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
            if choice.hooks.is_empty() {
                self.detach(link.index);
                continue;
            }
            self.look_at_what_leaves(object, link, leaves);
            let attached = match self.present.get(&link.index) {
                Some(present) if self.stands(&present.device, link, choice) => {
                    let mut present = present.clone();
                    present.device.name.clone_from(&link.name);
                    present
                }
                _ => self.attach(object, link, choice),
            };
            if self.present.get(&link.index) != Some(&attached) {
                changed.push(attached.clone());
            }
            self.present.insert(link.index, attached);
        }
        changed
    }

    /// Whether a device is attached as it shall be.
    fn stands(&self, present: &Device, link: &Link, choice: &Choice) -> bool {
        let Some(hook) = present.hook.filter(|hook| choice.hooks.contains(hook)) else {
            return false;
        };
        let pin = self.pin(link.index, hook);
        !present.is_kept_off()
            && match hook {
                Hook::XdpNative | Hook::XdpGeneric => {
                    let handed = self.handed(link.index);
                    hangs(&pin, link) && stands(&handed, link, Side::Ingress, HANDED)
                }
                Hook::Tc => {
                    let name = if link.bare { BARE } else { TC };
                    stands(&pin, link, Side::Ingress, name)
                }
            }
    }

    /// The pin of what takes frames that XDP cannot send.
    fn handed(&self, index: u32) -> PathBuf {
        self.place.pins.join(format!("link-{index}-handed"))
    }

    fn pin(&self, index: u32, hook: Hook) -> PathBuf {
        self.place.pins.join(format!("link-{index}-{}", hook))
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
        self.leave_only(index, None);
    }

    /// Takes away what hangs on a device by other hooks than this one.
    fn leave_only(&self, index: u32, hook: Option<Hook>) {
        for other in [Hook::XdpNative, Hook::XdpGeneric, Hook::Tc] {
            if hook != Some(other) {
                let _ = fs::remove_file(self.pin(index, other));
            }
        }
        if hook.is_none_or(|hook| hook == Hook::Tc) {
            let _ = fs::remove_file(self.handed(index));
        }
    }

    fn pin_of_leaving(&self, index: u32) -> PathBuf {
        self.place.pins.join(format!("link-{index}-leave"))
    }

    /// Hangs the program for frames that leave on a device, or takes it off.
    fn look_at_what_leaves(&mut self, object: &mut Object, link: &Link, leaves: bool) {
        let path = self.pin_of_leaving(link.index);
        let is_there = stands(&path, link, Side::Egress, LEAVE);
        let is_ours = is_there && self.leaving.contains(&link.index);
        if leaves && is_ours || !leaves && !is_there {
            return;
        }
        let adopted = leaves && path.exists() && adopt_leaving(object, &path).is_ok();
        if !adopted {
            // Before Linux 6.6 it is a filter of the device's own.
            let _ = fs::remove_file(&path);
            let _ = tc::qdisc_detach_program(&link.name, TcAttachType::Egress, LEAVE);
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
                why = chain(&error),
                "answers of this machine's own servers not translated"
            ),
        }
    }

    fn attach(&self, object: &mut Object, link: &Link, choice: &Choice) -> Attached {
        let mut device = Device {
            name: link.name.clone(),
            index: link.index,
            hook: None,
            refused: Vec::new(),
        };
        for hook in choice.hooks {
            match self.hang(object, link, *hook) {
                Ok(()) => {
                    self.leave_only(link.index, Some(*hook));
                    device.hook = Some(*hook);
                    break;
                }
                Err(error) => device.refused.push(RefusedHook {
                    hook: *hook,
                    reason: reason(&error),
                    error: chain(&error),
                }),
            }
        }
        Attached {
            device,
            loopback: link.loopback,
        }
    }

    /// Hangs the packet path on a device. XDP is there only with what takes what it cannot send:
    /// else such frames would go to the machine's own stack, half done.
    fn hang(&self, object: &mut Object, link: &Link, hook: Hook) -> Result<(), Error> {
        match hook {
            Hook::XdpNative | Hook::XdpGeneric => {
                let handed = self.handed(link.index);
                hang_tc(&mut object.handed, HANDED, link, &handed)?;
                let pin = self.pin(link.index, hook);
                hang_xdp(&mut object.xdp, link, hook, &pin)
            }
            Hook::Tc => {
                let pin = self.pin(link.index, hook);
                if link.bare {
                    hang_tc(&mut object.bare, BARE, link, &pin)
                } else {
                    hang_tc(&mut object.tc, TC, link, &pin)
                }
            }
        }
    }
}

/// Whether a link still hangs on its device.
fn hangs(pin: &Path, link: &Link) -> bool {
    hanging::interface(pin).is_ok_and(|interface| interface == link.index)
}

/// Whether a program of tc is still on its device: by a link, or before Linux 6.6 as a filter.
fn stands(pin: &Path, link: &Link, side: Side, name: &str) -> bool {
    if has_links() {
        return hangs(pin, link);
    }
    filters::stands(link.index, side, name).unwrap_or_else(|error| {
        debug!(device = link.name, %error, "filters not listed");
        true
    })
}

/// Whether programs of tc hang by links (tcx).
fn has_links() -> bool {
    aya::util::KernelVersion::current()
        .is_ok_and(|version| version >= aya::util::KernelVersion::new(6, 6, 0))
}

/// The programs of tc that see whole devices, which must not see what XDP has seen.
const WALKS: [&str; 2] = [TC, BARE];

fn hang_xdp(program: &mut Xdp, link: &Link, hook: Hook, pin: &Path) -> Result<(), Error> {
    if !has_links() {
        for name in WALKS {
            let _ = tc::qdisc_detach_program(&link.name, TcAttachType::Ingress, name);
        }
    }
    if adopt(pin, link, |held| {
        let id = program.attach_to_link(held.try_into()?)?;
        // The pin holds the link; ours is only let go.
        drop(FdLink::try_from(program.take_link(id)?)?);
        Ok(())
    }) {
        return Ok(());
    }
    let mode = if hook == Hook::XdpNative {
        XdpMode::Driver
    } else {
        XdpMode::Skb
    };
    let id = program.attach_to_if_index(link.index, mode)?;
    let held = FdLink::try_from(program.take_link(id)?)?;
    held.pin(pin).map_err(Error::Pin)?;
    Ok(())
}

fn hang_tc(
    program: &mut SchedClassifier,
    name: &str,
    link: &Link,
    pin: &Path,
) -> Result<(), Error> {
    if adopt(pin, link, |held| {
        let id = program.attach_to_link(held.try_into()?)?;
        drop(FdLink::try_from(program.take_link(id)?)?);
        Ok(())
    }) {
        return Ok(());
    }
    // Before Linux 6.6 there is no link to pin: a filter of the device's own stays by itself, so
    // one of an earlier daemon goes first.
    let _ = tc::qdisc_detach_program(&link.name, TcAttachType::Ingress, name);
    let _ = tc::qdisc_add_clsact(&link.name);
    let id = program.attach(&link.name, TcAttachType::Ingress)?;
    let taken = program.take_link(id)?;
    if <&FdLink>::try_from(&taken).is_err() {
        std::mem::forget(taken);
        return Ok(());
    }
    let held = FdLink::try_from(taken)?;
    held.pin(pin).map_err(Error::Pin)?;
    Ok(())
}

/// Takes over a link that an earlier daemon left: its program is replaced by ours in one step. One
/// that hangs on nothing any more, or on an earlier device of this index, is removed.
fn adopt(pin: &Path, link: &Link, renew: impl FnOnce(FdLink) -> Result<(), Error>) -> bool {
    if !pin.exists() {
        return false;
    }
    let result = match hanging::interface(pin) {
        Ok(interface) if interface == link.index => PinnedLink::from_pin(pin)
            .map_err(Error::from)
            .and_then(|pinned| renew(FdLink::from(pinned))),
        Ok(_) => Err(Error::Loose),
        Err(error) => Err(error.into()),
    };
    if let Err(error) = &result {
        debug!(
            device = link.name,
            error = chain(error),
            "link of an earlier daemon not taken over"
        );
        let _ = fs::remove_file(pin);
    }
    result.is_ok()
}

/// A link that an earlier daemon left: its program is replaced by ours in one step.
fn adopt_leaving(object: &mut Object, path: &Path) -> Result<(), Error> {
    let held = FdLink::from(PinnedLink::from_pin(path)?);
    let id = object.leave.attach_to_link(held.try_into()?)?;
    drop(FdLink::try_from(object.leave.take_link(id)?)?);
    Ok(())
}

fn hang_leaving(object: &mut Object, link: &Link, path: &Path) -> Result<(), Error> {
    let _ = tc::qdisc_add_clsact(&link.name);
    let id = object.leave.attach(&link.name, TcAttachType::Egress)?;
    let taken = object.leave.take_link(id)?;
    if <&FdLink>::try_from(&taken).is_err() {
        std::mem::forget(taken);
        return Ok(());
    }
    FdLink::try_from(taken)?.pin(path).map_err(Error::Pin)?;
    Ok(())
}
