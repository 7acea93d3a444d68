//! Kernel settings (sysctls) of the network namespace.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The key of a setting of a device or of `all`: `net/ipv4/conf/DEVICE/NAME`. Keys use slashes,
/// because device names may have dots.
#[must_use]
pub(crate) fn key(device: &str, name: &str) -> String {
    format!("net/ipv4/conf/{device}/{name}")
}

/// The value; `None` if the setting does not exist, for example because its device is gone.
pub(crate) fn read(key: &str) -> Result<Option<String>> {
    match fs::read_to_string(path(key)) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {key}")),
    }
}

/// The value as a number; 0 if it does not exist.
pub(crate) fn number(key: &str) -> Result<u32> {
    Ok(read(key)?.and_then(|text| text.parse().ok()).unwrap_or(0))
}

pub(crate) fn write(key: &str, value: &str) -> Result<()> {
    fs::write(path(key), value).with_context(|| format!("cannot write {value} to {key}"))
}

fn path(key: &str) -> PathBuf {
    Path::new("/proc/sys").join(key)
}
