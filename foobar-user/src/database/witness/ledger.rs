//! The witness's memory: what must survive is on disk before it is answered.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::database::state::{Member, State};
use crate::database::store::Snapshot;
use crate::sets::replace_file;

/// What is on disk.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Page {
    /// Grows with each start: versions of an earlier life never come back.
    life: u64,
    state: Option<State>,
}

/// Everything that is kept, and where.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    now: Snapshot,
}

impl Ledger {
    /// Opens the memory in `folder` and begins another life.
    ///
    /// # Errors
    /// It is damaged or cannot be written: a witness that forgets is none.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join("witness.json");
        let page: Page = match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).with_context(|| {
                format!(
                    "{} is damaged: it holds who leads the database. Remove it, and the last leader leads again when all \
                     database servers have been heard",
                    path.display()
                )
            })?,
            Err(error) if error.kind() == ErrorKind::NotFound => Page::default(),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let now =
            Snapshot { version: (page.life + 1, 0), state: page.state, members: std::collections::BTreeMap::new() };
        let ledger = Self { path, now };
        ledger.write(ledger.now.state.as_ref())?;
        Ok(ledger)
    }

    /// Everything.
    #[must_use]
    pub fn read(&self) -> Snapshot {
        self.now.clone()
    }

    /// See [`crate::database::Store::swap`]. A state that stays the same is not written again: only its version moves.
    ///
    /// # Errors
    /// It cannot be written; then nothing was swapped.
    pub fn swap(&mut self, version: (u64, u64), state: State) -> Result<Option<(u64, u64)>> {
        if version != self.now.version {
            return Ok(None);
        }
        if self.now.state.as_ref() != Some(&state) {
            self.write(Some(&state))?;
            self.now.state = Some(state);
        }
        self.now.version.1 += 1;
        Ok(Some(self.now.version))
    }

    /// Keeps a server's word.
    pub fn tell(&mut self, server: &str, member: Member) {
        self.now.members.insert(server.to_owned(), member);
    }

    fn write(&self, state: Option<&State>) -> Result<()> {
        let page = Page { life: self.now.version.0, state: state.cloned() };
        replace_file(&self.path, &serde_json::to_vec(&page)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(epoch: u64) -> State {
        State { epoch, leader: "db1".into(), held: true, ..State::default() }
    }

    #[test]
    fn only_the_version_that_was_read_is_swapped() {
        let folder = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(folder.path()).unwrap();
        let first = ledger.read().version;
        let second = ledger.swap(first, state(1)).unwrap().unwrap();
        assert_eq!(ledger.swap(first, state(2)).unwrap(), None);
        // A renewal moves the version, too.
        let third = ledger.swap(second, state(1)).unwrap().unwrap();
        assert_ne!(second, third);
        assert_eq!(ledger.read().state, Some(state(1)));
    }

    #[test]
    fn another_life_has_the_state_and_no_version_of_before() {
        let folder = tempfile::tempdir().unwrap();
        let mut seen = Vec::new();
        for epoch in 1..5 {
            let mut ledger = Ledger::open(folder.path()).unwrap();
            assert_eq!(ledger.read().state.map_or(0, |state| state.epoch), epoch - 1);
            for _ in 0..3 {
                let version = ledger.read().version;
                assert!(!seen.contains(&version), "{version:?} came back");
                seen.push(version);
                ledger.swap(version, state(epoch)).unwrap();
            }
        }
    }

    #[test]
    fn a_damaged_memory_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("witness.json"), "{").unwrap();
        assert!(format!("{:#}", Ledger::open(folder.path()).unwrap_err()).contains("is damaged"));
    }
}
