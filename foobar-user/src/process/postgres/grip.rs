//! What the keeper of the lease does to PostgreSQL from outside of it: looks at its folder, stops it, kills it, sets whom it
//! waits for.

use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::super::cgroup::Cgroup;
use super::super::{Folders, files};
use super::cluster;
use super::control::Control;
use super::diverged::Diverged;
use crate::host::sockets;

/// File with `synchronous_standby_names`, which `postgresql.conf` includes.
pub(super) const SYNC_FILE: &str = "sync.conf";
/// File with whom a replica follows, which `postgresql.conf` includes.
pub(super) const FOLLOW_FILE: &str = "follow.conf";
/// Content of [`DOUBT`]: a rewind has not helped.
pub(super) const COPY: &str = "copy";
/// Beside the data folder: where its log ended when it was last in doubt.
const DOUBTED: &str = "doubted-at";
/// In the data folder: this is a replica.
pub(super) const STANDBY_SIGNAL: &str = "standby.signal";
/// Beside the data folder: what is in it may not be a part of its leader's history.
pub(super) const DOUBT: &str = "diverged";

/// A hold on the PostgreSQL of this server.
#[derive(Clone, Debug)]
pub struct Grip {
    folder: PathBuf,
    data: PathBuf,
    cgroup: Cgroup,
    port: u16,
}

impl Grip {
    /// A hold on the process of this name.
    ///
    /// # Errors
    /// Its cgroup cannot be made.
    pub fn new(folders: &Folders, process: &str, port: u16) -> Result<Self> {
        let cgroup = Cgroup::create(&folders.cgroup, process)?;
        Ok(Self { folder: super::folder(folders), data: super::data_folder(folders), cgroup, port })
    }

    /// Identifier of the cluster in the data folder; `None`: there is none. It stands first in the control file.
    #[must_use]
    pub fn cluster(&self) -> Option<u64> {
        let mut bytes = [0; 8];
        fs::File::open(self.data.join("global/pg_control")).and_then(|file| file.read_exact_at(&mut bytes, 0)).ok()?;
        Some(u64::from_le_bytes(bytes))
    }

    /// Kills PostgreSQL and all of its processes, stopped or frozen ones as well, and waits until nothing is left: no answer of
    /// it in the kernel either, which would leave when clients are let in again.
    ///
    /// # Errors
    /// Something does not die.
    pub async fn kill(&self) -> Result<()> {
        self.cgroup.clear().await?;
        sockets::end_connections_of(self.port).map(drop)
    }

    /// The postmaster, if one runs.
    #[must_use]
    pub fn postmaster(&self) -> Option<u32> {
        cluster::postmaster_of(&self.data)
    }

    /// Whether a postmaster runs.
    #[must_use]
    pub fn runs(&self) -> bool {
        self.postmaster().is_some()
    }

    /// Whether a postmaster runs that may be written.
    #[must_use]
    pub fn runs_as_leader(&self) -> bool {
        self.runs() && !self.data.join(STANDBY_SIGNAL).exists()
    }

    /// Whom its replica follows; `None`: it was never told.
    #[must_use]
    pub fn follows(&self) -> Option<IpAddr> {
        let text = fs::read_to_string(self.folder.join(FOLLOW_FILE)).ok()?;
        let (_, rest) = text.split_once("host=")?;
        rest.split_whitespace().next()?.parse().ok()
    }

    /// Has the replica that runs follow the server at this address: it goes on, and so do its readers, while it connects anew.
    ///
    /// # Errors
    /// It cannot be told.
    pub fn follow(&self, address: IpAddr) -> Result<()> {
        let path = self.folder.join(FOLLOW_FILE);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let Some(now) = self.follows() else { bail!("{} names nobody", path.display()) };
        let text = text.replacen(&format!("host={now} "), &format!("host={address} "), 1);
        files::write_if_changed(&path, &text, 0o644, None)?;
        self.signal(Signal::SIGHUP).context("PostgreSQL cannot be told whom it follows")
    }

    /// Where the log ended when PostgreSQL was stopped in order: its last record is a checkpoint.
    pub async fn end(&self) -> Option<u64> {
        let control = Control::read(&self.data).await.ok()?;
        if control.value("Database cluster state:") != Some("shut down") {
            return None;
        }
        control.checkpoint()
    }

    /// What the data no longer has of this server's own, and is kept.
    #[must_use]
    pub fn diverged(&self) -> Diverged {
        Diverged::look(&self.folder)
    }

    /// Asks it to end in order ("fast"): transactions are rolled back, replicas get the whole log.
    ///
    /// # Errors
    /// It does not run.
    pub fn stop(&self) -> Result<()> {
        self.signal(Signal::SIGINT).context("PostgreSQL cannot be stopped")
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let Some(pid) = self.postmaster() else { bail!("it does not run") };
        Ok(kill(Pid::from_raw(i32::try_from(pid)?), signal)?)
    }

    /// Writes whom commits wait for; PostgreSQL reads it at a reload or its next start.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn wait_for(&self, names: &str) -> Result<()> {
        write_setting(&self.folder.join(SYNC_FILE), &[("synchronous_standby_names", names)])?;
        files::sync_folder(&self.folder)
    }

    /// Notes that the data, whose log ends there, may have to be rewound before the next start; where that was noted before and has not
    /// helped, that it has to be copied anew.
    ///
    /// # Errors
    /// It cannot be noted.
    pub fn doubt(&self, position: u64) -> Result<()> {
        let before = fs::read_to_string(self.folder.join(DOUBTED)).unwrap_or_default();
        let what = if before == position.to_string() { COPY } else { "" };
        note(&self.folder, DOUBTED, &position.to_string())?;
        note(&self.folder, DOUBT, what)
    }

    /// Notes that the data is of its leader's history.
    ///
    /// # Errors
    /// It cannot be noted.
    pub fn trust(&self) -> Result<()> {
        forget(&self.folder, DOUBT)?;
        forget(&self.folder, DOUBTED)
    }
}

/// Writes a note beside the data, durably.
pub(super) fn note(folder: &Path, name: &str, text: &str) -> Result<()> {
    files::write_if_changed(&folder.join(name), text, 0o600, None)?;
    files::sync_folder(folder)
}

/// Removes a note, if it is there.
pub(super) fn forget(folder: &Path, name: &str) -> Result<()> {
    match fs::remove_file(folder.join(name)) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {name}"))
        }
        _ => Ok(()),
    }
}

/// Writes settings in PostgreSQL's own form.
pub(super) fn write_setting(path: &Path, settings: &[(&str, &str)]) -> Result<()> {
    let line = |(name, value): &(&str, &str)| format!("{name} = {}\n", super::configuration::quoted(value));
    let text: String = settings.iter().map(line).collect();
    files::write_if_changed(path, &text, 0o644, None).map(drop)
}
