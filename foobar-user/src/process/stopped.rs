//! `stopped.json`: which processes operators have stopped; it outlives agents and reboots.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};

use super::files;

/// Names of the stopped processes.
#[derive(Debug)]
pub(super) struct Stopped {
    path: PathBuf,
    names: Mutex<BTreeSet<String>>,
}

impl Stopped {
    /// Reads them; none where there is no file.
    ///
    /// # Errors
    /// The file is no list of names.
    pub(super) fn open(path: PathBuf) -> Result<Self> {
        let names = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).with_context(|| {
                format!(
                    "{} is damaged: it holds which processes are stopped; remove it, and all are started",
                    path.display()
                )
            })?,
            Err(error) if error.kind() == ErrorKind::NotFound => BTreeSet::new(),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        Ok(Self { path, names: Mutex::new(names) })
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).contains(name)
    }

    /// Remembers or forgets one; in force only when it could be written.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn set(&self, name: &str, stopped: bool) -> Result<()> {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = names.clone();
        if stopped {
            changed.insert(name.to_owned())
        } else {
            changed.remove(name)
        };
        files::write_if_changed(&self.path, &serde_json::to_string_pretty(&changed)?, 0o600, None)?;
        *names = changed;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stopped.json");
        let stopped = Stopped::open(path.clone()).unwrap();
        stopped.set("a", true).unwrap();
        stopped.set("b", true).unwrap();
        stopped.set("a", false).unwrap();
        let again = Stopped::open(path.clone()).unwrap();
        assert!(again.has("b") && !again.has("a"));
        fs::write(&path, "{").unwrap();
        assert!(format!("{:#}", Stopped::open(path).unwrap_err()).contains("is damaged"));
    }
}
