//! How a child is started: own session, own account, own cgroup, clean environment, output to a log file.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, anyhow};
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid, getegid, geteuid, setgid, setgroups, setsid, setuid, write};
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};

use super::account::Account;
use super::cgroup::Cgroup;
use super::files;

/// Where programs are looked for by children.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Everything needed to start a program, and to tell whether a running one is still the right one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Launch {
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<OsString>,
    pub(super) environment: BTreeMap<String, String>,
    /// Folder it runs in; `None`: `/`.
    pub(super) folder: Option<PathBuf>,
    pub(super) account: Option<Account>,
    /// Signal that asks it to stop, unless the plan names another.
    pub(super) stop_signal: Signal,
    /// Signal that makes it read its configuration again; `None`: it must be restarted.
    pub(super) reload_signal: Option<Signal>,
    /// Content of what it reads: when only this changes, a reload is enough.
    pub(super) configuration: String,
    /// What else needs a restart when it changes.
    pub(super) identity: String,
}

impl Launch {
    /// Tells runs apart that need a restart.
    pub(super) fn fingerprint(&self) -> String {
        let name = self.account.as_ref().map_or("", |account| &account.name);
        let mut text = format!("{:?} {:?} {:?} {name}", self.program, self.arguments, self.environment);
        // Not told apart where there is none, so that a new agent knows what older ones started.
        self.folder.iter().for_each(|folder| text.push_str(&format!(" {folder:?}")));
        files::fingerprint([text.as_bytes(), self.identity.as_bytes()])
    }

    /// Starts the program in `cgroup` with its output in `log`.
    pub(super) fn spawn(&self, cgroup: &Cgroup, log: &File) -> Result<Child> {
        let mut command = command(&self.program, self.account.as_ref(), cgroup)?;
        command.args(&self.arguments).envs(&self.environment);
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        command.stdout(clone(log)?).stderr(clone(log)?);
        command.spawn().map_err(|error| explain(&self.program, &error))
    }
}

fn clone(log: &File) -> Result<Stdio> {
    Ok(Stdio::from(log.try_clone().context("cannot duplicate the log's descriptor")?))
}

fn explain(program: &Path, error: &std::io::Error) -> anyhow::Error {
    let hint = match error.kind() {
        ErrorKind::NotFound => ": no such program; install it or correct the path",
        ErrorKind::PermissionDenied => ": is it executable, and may its account reach it?",
        _ => "",
    };
    anyhow!("cannot start {}: {error}{hint}", program.display())
}

/// A command for a helper program that runs to its end beside the process, in its group, and dies with the caller.
pub(super) fn helper(program: &Path, account: Option<&Account>, cgroup: &Cgroup) -> Result<Command> {
    let mut command = command(program, account, cgroup)?;
    command.kill_on_drop(true);
    Ok(command)
}

/// Runs a helper to its end; fails with what it printed.
pub(super) async fn run(command: Command) -> Result<()> {
    said(command).await.map(drop)
}

/// The same, with what it told beside its output.
pub(super) async fn said(command: Command) -> Result<String> {
    fed(command, String::new()).await
}

/// The same, with a text as its input.
pub(super) async fn fed(mut command: Command, input: String) -> Result<String> {
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let program = PathBuf::from(command.as_std().get_program());
    let mut child = command.spawn().map_err(|error| explain(&program, &error))?;
    let stdin = child.stdin.take();
    let feed = async {
        if let Some(mut stdin) = stdin {
            // Who ends before it has read all tells why.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
    };
    let ((), output) = tokio::join!(feed, child.wait_with_output());
    let output = output.with_context(|| format!("cannot await {}", program.display()))?;
    let text = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let said = lines.join("; ");
    if output.status.success() {
        return Ok(said);
    }
    Err(anyhow!("{}: {}: {said}", program.display(), output.status))
}

fn command(program: &Path, account: Option<&Account>, cgroup: &Cgroup) -> Result<Command> {
    let doors = cgroup.doors()?;
    let become_account = account.map(|account| (account.groups.clone(), account.gid, account.uid));
    let mut command = Command::new(program);
    command.env_clear().env("PATH", PATH).current_dir("/").stdin(Stdio::null());
    // SAFETY: between fork and exec only async-signal-safe calls are made: setsid, write, setgroups, setgid and setuid
    // are plain system calls on memory prepared before the fork; nothing allocates, locks or looks an account up.
    unsafe {
        command.pre_exec(move || {
            setsid()?;
            for door in &doors {
                write(door, b"0")?;
            }
            if let Some((groups, gid, uid)) = &become_account {
                enter_account(groups, *gid, *uid)?;
            }
            Ok(())
        });
    }
    Ok(command)
}

/// Drops to the account; nothing to do for an agent that is the account already.
fn enter_account(groups: &[Gid], gid: Gid, uid: Uid) -> nix::Result<()> {
    if geteuid() == uid && getegid() == gid {
        return Ok(());
    }
    setgroups(groups)?;
    setgid(gid)?;
    setuid(uid)
}
