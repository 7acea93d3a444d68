//! What the system refuses to do with a file, a folder or a pin.

use std::error::Error as StdError;
use std::path::{Path, PathBuf};

/// An action on a path failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}", path.display())]
pub struct Error {
    action: &'static str,
    path: PathBuf,
    source: Box<dyn StdError + Send + Sync>,
}

/// Adds the action and the path to an error of the system.
pub(crate) fn cannot<E: Into<Box<dyn StdError + Send + Sync>>>(
    action: &'static str,
    path: &Path,
) -> impl Fn(E) -> Error {
    let path = path.to_owned();
    move |source| Error {
        action,
        path: path.clone(),
        source: source.into(),
    }
}
