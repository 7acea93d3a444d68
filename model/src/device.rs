//! The devices, and how the packet path is attached to each.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// The name in the director's network namespace.
    pub name: String,
    /// The kernel's interface index.
    pub index: u32,
    /// The hook by which the packet path is attached; `None` if it is not.
    pub hook: Option<Hook>,
    /// The hooks that come before, or all, and why each was not possible.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<RefusedHook>,
}

impl Device {
    /// Whether another program has the place of a hook that comes before.
    #[must_use]
    pub fn is_kept_off(&self) -> bool {
        let refused = self.refused.iter();
        refused
            .map(|refused| refused.reason)
            .any(|reason| reason == Some(HookReason::Taken))
    }

    /// The hook, or the reasons why there is none or not the best one.
    #[must_use]
    pub fn hook_text(&self) -> String {
        let refused = self.refused.iter();
        let refused: Vec<String> = refused.map(|refused| refused.text(&self.name)).collect();
        let why = refused.join("; ");
        match self.hook {
            Some(hook) if self.is_kept_off() => format!("{hook} (not {why})"),
            Some(hook) => hook.to_string(),
            None => format!("not attached ({why})"),
        }
    }
}

/// Where in the kernel the packet path sees the frames of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hook {
    /// In the driver, before there is a socket buffer.
    XdpNative,
    /// The same program over socket buffers.
    XdpGeneric,
    /// Traffic control: socket buffers with their offloads.
    Tc,
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Hook::XdpNative => "xdp-native",
            Hook::XdpGeneric => "xdp-generic",
            Hook::Tc => "tc",
        })
    }
}

/// A hook that the kernel refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedHook {
    /// The hook that was tried.
    pub hook: Hook,
    /// The kind of the error. `None` if the program was accepted, but could not be kept attached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<HookReason>,
    /// The errors of the kernel and of the library that asked it.
    pub error: String,
}

impl RefusedHook {
    /// The error, with what an operator can do about it.
    fn text(&self, device: &str) -> String {
        let Self { hook, error, .. } = self;
        let hint = match self.reason {
            Some(HookReason::Taken) => format!(
                " (another program is on {device}, see `ip link show {device}`; Shunt takes its \
                 place when it is gone: `ip link set dev {device} xdp off` takes it off; or give \
                 Shunt another hook: --device {device}=tc)"
            ),
            Some(HookReason::NotSupported) => " (the driver does not support this hook)".to_owned(),
            Some(HookReason::Other) => " (see the kernel's log)".to_owned(),
            None => String::new(),
        };
        format!("{hook}: {error}{hint}")
    }
}

/// Why the kernel refused a hook, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HookReason {
    /// Another program has the place (EBUSY).
    Taken,
    /// The driver does not support the hook (EOPNOTSUPP).
    NotSupported,
    /// The kernel gave another error number.
    Other,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(hook: Option<Hook>, reason: HookReason) -> Device {
        Device {
            name: "eth0".to_owned(),
            index: 2,
            hook,
            refused: vec![RefusedHook {
                hook: Hook::XdpNative,
                reason: Some(reason),
                error: "os error".to_owned(),
            }],
        }
    }

    #[test]
    fn a_hook_that_the_driver_lacks_is_named_only_where_no_other_works() {
        let text = |hook| device(hook, HookReason::NotSupported).hook_text();
        assert_eq!(text(Some(Hook::Tc)), "tc");
        assert_eq!(
            text(None),
            "not attached (xdp-native: os error (the driver does not support this hook))"
        );
    }

    #[test]
    fn a_program_in_the_way_is_named_in_any_case() {
        let text = device(Some(Hook::Tc), HookReason::Taken).hook_text();
        let begin = "tc (not xdp-native: os error (another program is on eth0, see ";
        assert!(text.starts_with(begin), "{text}");
        assert!(text.ends_with("--device eth0=tc))"), "{text}");
    }
}
