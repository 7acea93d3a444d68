//! The paths of the checkout.

use std::env;
use std::path::{Path, PathBuf};

/// The eBPF objects, by the name of their folder in `ebpf/src`.
pub(crate) const OBJECTS: [&str; 3] = ["director", "realserver", "bench"];

/// The folder of the workspace.
pub(crate) fn root() -> PathBuf {
    // Cargo sets the variable for `cargo run`. A program that is started by hand uses its own
    // folder.
    match env::var_os("CARGO_MANIFEST_DIR") {
        Some(folder) => Path::new(&folder)
            .parent()
            .map(Path::to_path_buf)
            .unwrap_or_default(),
        None => env::current_dir().unwrap_or_default(),
    }
}

/// The folder of everything that the chores build and cache themselves.
pub(crate) fn target() -> PathBuf {
    root().join("target")
}

/// The checked-in object with this name.
pub(crate) fn object(name: &str) -> PathBuf {
    root().join("ebpf/object").join(name).with_extension("o")
}

/// The file with the budget of every program's size.
pub(crate) fn budget() -> PathBuf {
    root().join("ebpf/object/budget.txt")
}
