//! The change of a CRC32c, in a separate function: the verifier checks its loop once.

use shunt_datapath::wire::crc;

/// The change of a CRC32c that a change of two bytes causes; `behind` bytes follow them.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn crc_change(changed: u32, behind: u32) -> u32 {
    crc::change(changed as u16, behind)
}
