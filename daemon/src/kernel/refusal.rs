//! The kernel's refusal of a program or a map, with what to do about it.

use std::error::Error;
use std::fmt;
use std::io;

use crate::chain::chain;

/// Characters of the end of a refusal that are shown: the verifier's log may have megabytes, and
/// its reason stands last.
const SHOWN: usize = 600;

/// What the kernel refused. The causes are part of the text.
#[derive(Debug)]
pub struct Refusal(Box<dyn Error + Send + Sync>);

impl Refusal {
    pub fn of(cause: impl Error + Send + Sync + 'static) -> Self {
        Self(Box::new(cause))
    }

    fn hint(&self) -> &'static str {
        match code(self.0.as_ref()) {
            Some(libc::EPERM) => {
                "the rights are missing; run as root, or with CAP_BPF, CAP_NET_ADMIN and \
                 CAP_PERFMON"
            }
            Some(libc::ENOSYS) => {
                "this kernel has no BPF; Linux 6.1 or later with CONFIG_BPF_SYSCALL is needed"
            }
            Some(_) | None => {
                "Linux 6.1 or later with CONFIG_BPF_SYSCALL and CONFIG_DEBUG_INFO_BTF is needed"
            }
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = chain(self.0.as_ref());
        let from = text.char_indices().rev().nth(SHOWN - 1);
        let shown = text.get(from.map_or(0, |(at, _)| at)..).unwrap_or_default();
        write!(
            f,
            "the kernel refuses the packet path: {shown}; {}",
            self.hint()
        )
    }
}

impl Error for Refusal {}

/// The kernel's error number in an error, if it has one.
pub(super) fn code(error: &(dyn Error + 'static)) -> Option<i32> {
    let causes = std::iter::successors(Some(error), |&error| error.source());
    let mut numbers = causes.filter_map(|cause| cause.downcast_ref::<io::Error>()?.raw_os_error());
    numbers.next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Failed {
        text: String,
        source: io::Error,
    }

    #[test]
    fn a_refusal_shows_the_end_of_its_text_and_what_to_do() {
        for (number, hint) in [
            (libc::EPERM, "CAP_BPF"),
            (libc::ENOSYS, "has no BPF"),
            (libc::EINVAL, "CONFIG_DEBUG_INFO_BTF"),
        ] {
            let failed = Failed {
                text: "é".repeat(5000),
                source: io::Error::from_raw_os_error(number),
            };
            let text = Refusal::of(failed).to_string();
            assert!(text.contains(hint), "{text}");
            assert!(text.contains(&format!("os error {number}")), "{text}");
            assert!(text.chars().count() < SHOWN + 200, "{text}");
        }
    }
}
