//! The agent's changes and the state before them, in a file, so that a later `leave` restores it
//! whatever became of the process that joined.
//!
//! Each change is recorded before it is made.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::folder;
use crate::options::Options;

const VERSION: u32 = 1;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Memory {
    version: u32,
    /// The namespace of the memory. Its number may be reused after its end.
    namespace: u64,
    /// The options of the last join.
    pub options: Options,
    /// The virtual addresses that the agent put on the loopback device.
    pub addresses: Vec<IpAddr>,
    /// The settings that the agent changed, by their keys.
    pub settings: BTreeMap<String, Change>,
    pub programs: Option<Programs>,
    #[serde(skip)]
    path: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Change {
    pub before: String,
    pub after: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Programs {
    pub pins: PathBuf,
    pub devices: Vec<String>,
    /// The programs are attached by filters, which the kernel keeps without a pin (before 6.6).
    pub filters: bool,
}

impl Memory {
    /// Reads the memory of a folder; `None` if there is no file.
    pub(crate) fn read(folder: &Path) -> Result<Memory> {
        let path = folder.join("agent.json");
        let namespace = folder::cookie()?;
        let nothing = Memory {
            version: VERSION,
            namespace,
            options: Options::default(),
            addresses: Vec::new(),
            settings: BTreeMap::new(),
            programs: None,
            path: path.clone(),
        };
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(nothing),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        let mut memory: Memory = serde_json::from_slice(&text)
            .with_context(|| format!("{} is not a memory file of the agent", path.display()))?;
        ensure!(
            memory.version == VERSION,
            "{} has version {}, this agent writes {VERSION}; leave with the agent that wrote it",
            path.display(),
            memory.version
        );
        if memory.namespace != namespace {
            // The agent's changes ended with their namespace. Only pins remain.
            if let Some(programs) = &memory.programs {
                let _ = fs::remove_dir_all(&programs.pins);
            }
            return Ok(nothing);
        }
        memory.path = path;
        Ok(memory)
    }

    /// Writes the memory, whole or not at all.
    pub(crate) fn write(&self) -> Result<()> {
        let beside = self.path.with_extension("json.new");
        let text = serde_json::to_vec_pretty(self)?;
        let folder = beside.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(folder)
            .and_then(|()| fs::write(&beside, text))
            .and_then(|()| fs::rename(&beside, &self.path))
            .with_context(|| format!("cannot write {}", self.path.display()))
    }

    /// Records a change of a setting. The value before the first change is kept.
    pub(crate) fn note_setting(&mut self, key: &str, before: String, after: &str) -> Result<()> {
        self.settings
            .entry(key.to_owned())
            .and_modify(|change| after.clone_into(&mut change.after))
            .or_insert_with(|| Change {
                before,
                after: after.to_owned(),
            });
        self.write()
    }

    pub(crate) fn forget(self) -> Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", self.path.display()))
            }
            _ => {
                self.path.parent().map(folder::tidy);
                Ok(())
            }
        }
    }
}
