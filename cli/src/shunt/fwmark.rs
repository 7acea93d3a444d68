//! Parses a firewall mark.

use std::num::NonZeroU32;

/// Parses a mark in decimal or hexadecimal.
pub(super) fn read_mark(text: &str) -> Result<NonZeroU32, String> {
    let mark = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    };
    mark.and_then(NonZeroU32::new)
        .ok_or_else(|| format!("\"{text}\" is not a firewall mark; write a number from 1 on"))
}
