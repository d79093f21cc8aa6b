//! `processes.json`: what runs, for the agent that comes after a killed one.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::files;

/// A running process as the next agent has to know it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Main process; 0: it was about to be started, and something of it may run in its cgroup.
    pub(super) pid: i32,
    /// When it started, in clock ticks after boot: tells a reused id.
    pub(super) start_ticks: u64,
    /// What needs a restart when it differs.
    pub(super) fingerprint: String,
    /// What needs a reload when it differs.
    pub(super) configuration: String,
}

/// All records of a server, kept in one file.
#[derive(Debug)]
pub(super) struct Records {
    path: PathBuf,
    all: Mutex<BTreeMap<String, Record>>,
}

impl Records {
    /// Reads what an earlier agent left; an unreadable file counts as none, for cgroups tell of leftovers too.
    pub(super) fn open(path: PathBuf) -> Self {
        let all = match fs::read(&path).map(|bytes| serde_json::from_slice(&bytes)) {
            Ok(Ok(all)) => all,
            Ok(Err(error)) => {
                tracing::warn!(path = %path.display(), %error, "cannot understand the record of processes; starting afresh");
                BTreeMap::new()
            }
            Err(_) => BTreeMap::new(),
        };
        Self { path, all: Mutex::new(all) }
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    pub(super) fn find(&self, name: &str) -> Option<Record> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// Notes or forgets (`None`) a process.
    pub(super) fn set(&self, name: &str, record: Option<Record>) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        match record {
            Some(record) => all.insert(name.to_owned(), record),
            None => all.remove(name),
        };
        let text = match serde_json::to_string_pretty(&*all) {
            Ok(text) => text,
            Err(error) => {
                tracing::error!(%error, "cannot write the record of processes");
                return;
            }
        };
        if let Err(error) = files::write_if_changed(&self.path, &text, 0o600, None) {
            tracing::error!(error = %format!("{error:#}"), "cannot write the record of processes: the next agent cannot adopt them");
        }
    }
}
