//! Writers on the app server, all through one address: a program of its own, the same whoever keeps the database.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;

use super::acknowledged::Acknowledged;
use super::ground;
use crate::cluster::Cluster;
use crate::process::Process;
use crate::site::Binaries;
use crate::{eventually, obtained};

/// Writers at work. Dropping them ends them.
#[derive(Debug)]
pub struct Writers {
    process: Process,
    log: PathBuf,
}

impl Writers {
    /// Begins to write from a cluster's app server, with more of how they log in.
    ///
    /// # Errors
    /// They cannot be started.
    pub(crate) fn start(cluster: &Cluster, name: &str, options: &str) -> Result<Self> {
        let log = cluster.folder().join(format!("{name}.acknowledged"));
        fs::write(&log, "")?;
        let mut command = Command::new(Binaries::find()?.writer);
        let to = format!("host={} dbname=guestbook user=guestbook {options}", ground::VIP);
        command.args(["--to", &to, "--log"]).arg(&log);
        command.arg("--password-file").arg(ground::password_file(cluster.folder(), "guestbook"));
        cluster.place("app1", "writers", command.stdin(Stdio::piped()))?;
        Ok(Self { process: Process::spawn("the writers", &mut command)?, log })
    }

    /// Waits until so many rows more were acknowledged.
    ///
    /// # Errors
    /// They are not in time.
    pub fn written(&self, more: usize, deadline: Duration) -> Result<()> {
        let before = self.so_far()?.rows.len();
        eventually(deadline, "rows are written", || Ok(self.so_far()?.rows.len() >= before + more))
    }

    /// Waits until another server than the one at `address` has acknowledged a row after `at`; the time that it took.
    ///
    /// # Errors
    /// None does in time.
    pub fn taken_over(&self, at: i64, address: &str, deadline: Duration) -> Result<i64> {
        obtained(deadline, "another server takes writes", || Ok(self.so_far()?.recovered_ms(at, address)))
    }

    /// What was acknowledged until now.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn so_far(&self) -> Result<Acknowledged> {
        Acknowledged::read(&self.log)
    }

    /// Ends them; what was acknowledged.
    ///
    /// # Errors
    /// They do not end.
    pub fn end(mut self) -> Result<Acknowledged> {
        self.process.signal(Signal::SIGKILL)?;
        self.process.wait(Duration::from_secs(10))?;
        let log = self.so_far()?;
        ensure!(!log.rows.is_empty(), "nothing was acknowledged: {:?}", log.faults.last());
        Ok(log)
    }
}
