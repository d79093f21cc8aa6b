//! Places that a server's children use.

use std::fs::File;
use std::path::PathBuf;

use anyhow::Result;

use super::{files, log};

/// Folders of one server's supervisor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folders {
    /// What must survive a restart: configuration, data, `processes.json`.
    pub state: PathBuf,
    /// Sockets.
    pub run: PathBuf,
    /// One log file a process.
    pub logs: PathBuf,
    /// A cgroup v2 folder; each process gets a folder in it.
    pub cgroup: PathBuf,
}

impl Folders {
    /// Makes the folders; children of other accounts must be able to walk through them.
    ///
    /// # Errors
    /// Says which folder could not be made.
    pub(super) fn create(&self) -> Result<()> {
        files::walkable_folder(&self.state)?;
        files::walkable_folder(&self.run)?;
        files::walkable_folder(&self.logs)
    }

    /// Configuration and data of one process.
    pub(super) fn state_of(&self, process: &str) -> PathBuf {
        self.state.join(process)
    }

    /// Opens the log of a process for appending: standard output and error of what [`super::Spawned`] starts.
    ///
    /// # Errors
    /// Says which file could not be opened.
    pub fn open_log(&self, process: &str) -> Result<File> {
        log::open(&self.log_of(process))
    }

    /// Log file of one process.
    pub(super) fn log_of(&self, process: &str) -> PathBuf {
        self.logs.join(format!("{process}.log"))
    }

    /// File that names the processes that operators have stopped.
    pub(super) fn stopped(&self) -> PathBuf {
        self.state.join("stopped.json")
    }

    /// File that names the running processes for the next agent.
    pub(super) fn record(&self) -> PathBuf {
        self.state.join("processes.json")
    }
}
