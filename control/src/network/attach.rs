//! Which devices get a packet program, and by which hook.
//!
//! A rule over plain data. It never asks the driver. The shell tries the hooks in order.

use shunt_model::device::Hook;

use super::links::Link;

/// The operator's setting for a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Setting {
    /// The best hook that the kind of device allows.
    #[default]
    Auto,
    /// XDP in the driver or nothing.
    XdpNative,
    /// XDP over socket buffers or nothing.
    XdpGeneric,
    /// tc or nothing.
    Tc,
    /// No program, although packets for services may arrive there.
    Off,
}

/// The choice for a device, with the reason as text for `status` and `doctor`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Try these in order until one is accepted. Empty: the device gets no program.
    pub hooks: &'static [Hook],
    /// The reason as a clause, such as "set by configuration".
    pub why: String,
}

/// Chooses the hooks for a device.
#[must_use]
pub fn choose(link: &Link, setting: Setting) -> Choice {
    let (hooks, why): (&'static [Hook], String) = match setting {
        Setting::Off => (&[], "switched off by configuration".into()),
        // The programs read an Ethernet header; a loopback frame has one, of zeros.
        Setting::Auto | Setting::XdpNative | Setting::XdpGeneric | Setting::Tc
            if !link.ethernet && !link.loopback && !link.bare =>
        {
            (
                &[],
                "carries neither Ethernet frames nor bare IP packets".into(),
            )
        }
        Setting::XdpNative | Setting::XdpGeneric | Setting::Tc if link.bare => (
            &[Hook::Tc],
            "its frames have no Ethernet header, so only tc can see them".into(),
        ),
        Setting::XdpNative => (&[Hook::XdpNative], "set by configuration".into()),
        Setting::XdpGeneric => (&[Hook::XdpGeneric], "set by configuration".into()),
        Setting::Tc => (&[Hook::Tc], "set by configuration".into()),
        Setting::Auto => automatic(link),
    };
    Choice { hooks, why }
}

/// Whether XDP can send frames by a device. Some devices accept frames and then drop them.
/// `features` are the kernel's (`NETDEV_A_DEV_XDP_FEATURES`, Linux 6.3); those of a veth change
/// with its other end. Without `features` only a network card is assumed to send.
#[must_use]
pub fn is_port(link: &Link, features: Option<u64>) -> bool {
    /// `NETDEV_XDP_ACT_NDO_XMIT`.
    const SENDS: u64 = 1 << 2;
    if !link.ethernet || link.loopback {
        return false;
    }
    match (link.kind.as_deref(), features) {
        // A bond or team reports the features of its devices, but does not send itself.
        (Some("bond" | "team"), _) => false,
        (_, Some(features)) => features & SENDS != 0,
        (kind, None) => kind.is_none(),
    }
}

/// Whether a frame must go back by a redirect. The other end of a veth pair receives `XDP_TX`
/// frames only if it has an XDP program itself.
#[must_use]
pub fn goes_back_by_redirect(link: &Link) -> bool {
    link.kind.as_deref() == Some("veth")
}

fn automatic(link: &Link) -> (&'static [Hook], String) {
    if link.loopback {
        return (&[], "loopback".into());
    }
    if !link.up {
        return (&[], "down; it gets a program when it comes up".into());
    }
    if link.master.is_some() {
        return (&[], "enslaved; its master gets the program".into());
    }
    match link.kind.as_deref() {
        None => {
            let why = "network card: XDP in the driver, or tc where the driver refuses";
            (&[Hook::XdpNative, Hook::Tc], why.into())
        }
        Some(kind @ ("dummy" | "ifb" | "nlmon")) => (&[], format!("{kind} receives no frames")),
        Some(kind) => (
            &[Hook::Tc],
            format!("{kind}: its frames are socket buffers with offloads"),
        ),
    }
}
