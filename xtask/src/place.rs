//! Where things lie in the checkout.

use std::env;
use std::path::{Path, PathBuf};

/// The eBPF objects, by the name of their folder in `ebpf/src`.
pub const OBJECTS: [&str; 3] = ["director", "realserver", "bench"];

/// The folder of the workspace.
pub fn root() -> PathBuf {
    // Cargo sets the variable for `cargo run`; a program started by hand asks its own folder.
    match env::var_os("CARGO_MANIFEST_DIR") {
        Some(folder) => Path::new(&folder)
            .parent()
            .map(Path::to_path_buf)
            .unwrap_or_default(),
        None => env::current_dir().unwrap_or_default(),
    }
}

/// What we build and cache that `cargo` itself does not.
pub fn target() -> PathBuf {
    root().join("target")
}

/// The checked-in object of that name.
pub fn object(name: &str) -> PathBuf {
    root().join("ebpf/object").join(name).with_extension("o")
}

/// The size that each program may have.
pub fn budget() -> PathBuf {
    root().join("ebpf/object/budget.txt")
}
