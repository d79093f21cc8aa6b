//! Where one server's agent keeps what.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::Options;
use crate::host::requirements;
use crate::process::Folders;

/// Folders and files of one server.
#[derive(Clone, Debug)]
pub struct ServerFolders {
    control: PathBuf,
    run: PathBuf,
    state: PathBuf,
    /// The connect hooks serve the processes of this cgroup.
    pub cgroup: PathBuf,
    /// Each process has a cgroup in this one.
    children: PathBuf,
}

impl ServerFolders {
    /// The folders that options name; nothing is made.
    ///
    /// # Errors
    /// No cgroup was named, and cgroup v2 is not mounted.
    pub fn new(options: &Options) -> Result<Self> {
        let (cgroup, children) = match &options.cgroup {
            Some(cgroup) => (cgroup.clone(), cgroup.clone()),
            None => {
                let mount = requirements::cgroup_mount()?;
                let children = mount.join(format!("foobar-{}", options.server));
                (mount, children)
            }
        };
        let state = options.state_dir.join(&options.server);
        let run = run_folder(&options.run_dir, &options.server);
        Ok(Self { control: control_path(&options.run_dir, &options.server), run, state, cgroup, children })
    }

    /// Makes run and state folders.
    ///
    /// # Errors
    /// A folder cannot be made.
    pub fn create(&self) -> Result<()> {
        for folder in [&self.run, &self.state, &self.children] {
            fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        Ok(())
    }

    /// The run folder.
    #[must_use]
    pub fn run(&self) -> &Path {
        &self.run
    }

    /// The state folder.
    #[must_use]
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// The file by which a server has one agent at a time.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        lock_path(&self.run)
    }

    /// The control socket.
    #[must_use]
    pub fn control(&self) -> PathBuf {
        self.control.clone()
    }

    /// The edge's metrics socket.
    #[must_use]
    pub fn edge_metrics(&self) -> PathBuf {
        self.run.join("edge-metrics.sock")
    }

    /// Folders of the processes.
    #[must_use]
    pub fn processes(&self) -> Folders {
        Folders {
            state: self.state.clone(),
            run: self.run.clone(),
            logs: logs_within(&self.state),
            cgroup: self.children.clone(),
        }
    }
}

/// Folder of the logs of a server's processes.
#[must_use]
pub fn logs_folder(state_dir: &Path, server: &str) -> PathBuf {
    logs_within(&state_dir.join(server))
}

fn logs_within(state: &Path) -> PathBuf {
    state.join("logs")
}

/// A server's run folder.
#[must_use]
pub(super) fn run_folder(run_dir: &Path, server: &str) -> PathBuf {
    run_dir.join(server)
}

/// A server's lock file.
#[must_use]
pub(super) fn lock_path(run: &Path) -> PathBuf {
    run.join("agent.lock")
}

/// A server's control socket.
#[must_use]
pub(super) fn control_path(run_dir: &Path, server: &str) -> PathBuf {
    run_dir.join(format!("{server}.sock"))
}
