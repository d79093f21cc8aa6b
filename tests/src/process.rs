//! Child processes of the bed: each in a process group of its own, killed when its guard is dropped.

use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::eventually::obtained;

/// A running child. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
}

impl Process {
    /// Starts `command`; `name` is for messages.
    pub fn spawn(name: &str, command: &mut Command) -> Result<Self> {
        let child = detached(command).spawn().with_context(|| not_started(name, command))?;
        Ok(Self { name: name.to_owned(), child })
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// Its exit status, when it has ended.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("cannot wait for {}", self.name))
    }

    /// Sends `signal` to it, unless it has ended.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.ended()?.is_some() {
            return Ok(());
        }
        kill(self.pid(), signal).with_context(|| format!("cannot send {signal} to {}", self.name))
    }

    /// Waits until it has ended, at most for `deadline`.
    pub fn wait(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let what = format!("the end of {}", self.name);
        obtained(deadline, &what, || self.ended())
    }

    /// What it wrote to a piped standard output, read to the end.
    pub fn output(&mut self) -> Result<String> {
        let mut text = String::new();
        if let Some(mut stdout) = self.child.stdout.take() {
            stdout.read_to_string(&mut text).with_context(|| format!("cannot read what {} writes", self.name))?;
        }
        Ok(text)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // Both fail only for a child that has ended meanwhile.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Raises this process's limit of open files: thousands of connections are more than a shell's usual limit.
pub fn raise_file_limit() -> Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).context("cannot raise the limit of open files")
}

/// Runs `command` to its end; fails with its standard error when it fails.
pub fn run(command: &mut Command) -> Result<String> {
    let output = output(command)?;
    if !output.status.success() {
        bail!("{command:?} failed with {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("{command:?} wrote what is no text"))
}

/// Runs `command` to its end and returns what it wrote.
pub fn output(command: &mut Command) -> Result<Output> {
    let name = command.get_program().to_string_lossy().into_owned();
    detached(command.stdin(Stdio::null())).output().with_context(|| not_started(&name, command))
}

/// Runs `command` with `input` as its standard input.
pub fn feed(command: &mut Command, input: &str) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = detached(command).spawn().with_context(|| not_started(&name, command))?;
    if let Some(mut stdin) = child.stdin.take() {
        match io::Write::write_all(&mut stdin, input.as_bytes()) {
            // A program that fails early closes its input: its own message is the better one.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error.into()),
            _ => {}
        }
    }
    let output = child.wait_with_output().with_context(|| format!("cannot wait for {name}"))?;
    if !output.status.success() {
        bail!("{command:?} failed with {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// In a process group of its own: Ctrl-C in the terminal reaches the bed alone, which then stops things in order.
fn detached(command: &mut Command) -> &mut Command {
    command.process_group(0)
}

fn not_started(name: &str, command: &Command) -> String {
    format!(
        "cannot start {name} ({}): is it installed? `cargo xtask setup` installs it",
        command.get_program().display()
    )
}
