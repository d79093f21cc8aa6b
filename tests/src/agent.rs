//! The agents of the bed: started in their servers' namespaces, asked for their status, killed and started again.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde_json::Value;

use crate::cgroup;
use crate::eventually::eventually;
use crate::host::Host;
use crate::network::Network;
use crate::process::{self, Process};

/// One server's agent.
#[derive(Debug)]
pub struct Agent {
    host: &'static Host,
    foobar: PathBuf,
    folder: PathBuf,
    process: Option<Process>,
}

impl Agent {
    /// The agent of `host`, not yet started.
    pub(crate) fn new(host: &'static Host, foobar: &Path, folder: &Path) -> Self {
        Self { host, foobar: foobar.to_owned(), folder: folder.to_owned(), process: None }
    }

    /// Starts it.
    pub(crate) fn start(&mut self, network: &Network) -> Result<()> {
        ensure!(self.process.is_none(), "the agent of {} is running", self.host.name);
        let mut command = Command::new(&self.foobar);
        command.arg("agent").arg("--site").arg(self.folder.join("site/site.toml")).args(["--server", self.host.server]);
        command.arg("--run-dir").arg(self.run_folder()).arg("--state-dir").arg(self.folder.join("state"));
        command.arg("--bpffs").arg(network.bpffs()).arg("--cgroup").arg(network.cgroup(self.host.name));
        let log = self.open_log()?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // A leaf of its own: on a unified machine a cgroup with controllers cannot hold processes itself.
        network.place(self.host.name, "agent", &mut command)?;
        self.process = Some(Process::spawn(&format!("the agent of {}", self.host.name), &mut command)?);
        Ok(())
    }

    /// Its process id.
    pub fn pid(&self) -> Result<Pid> {
        let process = self.process.as_ref();
        Ok(process.with_context(|| format!("the agent of {} is not running", self.host.name))?.pid())
    }

    /// Sends `signal` to it.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        match &mut self.process {
            Some(process) => process.signal(signal),
            None => bail!("the agent of {} is not running", self.host.name),
        }
    }

    /// Kills it alone, as a crash would: its children and pins stay.
    pub fn kill(&mut self) -> Result<()> {
        self.signal(Signal::SIGKILL)?;
        self.reap(REAP_TIMEOUT)
    }

    /// Waits for its end.
    pub fn reap(&mut self, deadline: Duration) -> Result<()> {
        if let Some(mut process) = self.process.take()
            && let Err(error) = process.wait(deadline)
        {
            self.process = Some(process);
            return Err(error).with_context(|| self.tail());
        }
        Ok(())
    }

    /// Whether it is running.
    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| matches!(process.ended(), Ok(None)))
    }

    /// Fails with the end of its log when it has ended.
    pub fn check(&mut self) -> Result<()> {
        match self.process.as_mut().map(Process::ended).transpose()?.flatten() {
            Some(status) => bail!("the agent of {} ended with {status}\n{}", self.host.name, self.tail()),
            None => Ok(()),
        }
    }

    /// What `foobar status --json` says.
    pub fn status(&self) -> Result<Value> {
        let output = self.ask("status", &["--json"])?;
        if !output.status.success() {
            bail!("foobar status: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        serde_json::from_slice(&output.stdout).context("foobar status wrote no JSON")
    }

    /// Runs `foobar <what> --server <server>` against this agent; `what` may be several words.
    pub fn ask(&self, what: &str, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new(&self.foobar);
        command
            .args(what.split(' '))
            .args(["--server", self.host.server])
            .arg("--run-dir")
            .arg(self.run_folder())
            .args(arguments);
        process::output(&mut command)
    }

    /// The last output of one of its processes, as `foobar logs` shows it.
    pub fn logs(&self, process: &str) -> Result<String> {
        let mut command = Command::new(&self.foobar);
        command.args(["logs", process, "-n", "1000", "--server", self.host.server]);
        process::run(command.arg("--state-dir").arg(self.folder.join("state")))
    }

    /// Where its control socket is.
    pub fn run_folder(&self) -> PathBuf {
        self.folder.join("run")
    }

    /// Its log file.
    pub fn log(&self) -> PathBuf {
        self.folder.join("logs").join(format!("{}.log", self.host.name))
    }

    /// The last lines of its log, for messages.
    pub fn tail(&self) -> String {
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let last = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n  ");
        format!("the log of {}'s agent ends with:\n  {last}", self.host.name)
    }

    fn open_log(&self) -> Result<File> {
        let path = self.log();
        let open = OpenOptions::new().create(true).append(true).open(&path);
        open.with_context(|| format!("cannot open the log {}", path.display()))
    }
}

/// Kills the process group of the child called `name` below `cgroup`, all at once, and waits until it is gone.
pub(crate) fn kill_child(cgroup: &Path, name: &str) -> Result<()> {
    let folder = cgroup.join(name);
    let before = cgroup::processes(&folder);
    ensure!(!before.is_empty(), "no process in {}", folder.display());
    fs::write(folder.join("cgroup.kill"), "1").with_context(|| format!("cannot kill {}", folder.display()))?;
    eventually(REAP_TIMEOUT, "the end of the killed processes", || {
        let now = cgroup::processes(&folder);
        Ok(before.iter().all(|pid| !now.contains(pid)))
    })
}

const REAP_TIMEOUT: Duration = Duration::from_secs(5);
const TAIL_LINES: usize = 15;
