//! Child commands: a clean environment, progress for people, and the whole output of whatever fails.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::workspace;

/// A command that starts in the workspace's root without what `cargo run` put into our environment.
pub(crate) fn command(program: impl AsRef<Path>) -> Command {
    let mut command = Command::new(program.as_ref());
    command.current_dir(workspace::root());
    // Build scripts watch some of these: left in, every build through xtask would spoil a plain `cargo build`'s.
    for (name, _) in std::env::vars_os() {
        let of_this_crate = name.to_str().is_some_and(|name| {
            name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") || name == "LD_LIBRARY_PATH"
        });
        if of_this_crate {
            command.env_remove(name);
        }
    }
    command
}

/// The cargo that started us.
pub(crate) fn cargo() -> Command {
    command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()).as_os_str())
}

/// The command as a person would type it.
pub(crate) fn shown(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    line
}

/// Runs with our own terminal; fails when it does.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start `{}`", shown(command)))?;
    if !status.success() {
        bail!("`{}` failed ({status})", shown(command));
    }
    Ok(())
}

/// Returns the standard output of a quick command; standard error is part of the error when it fails.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start `{}`", shown(command)))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` failed ({}): {}", shown(command), output.status, errors.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a long step: says what it does and how long it took, keeps its output back unless it fails.
pub(crate) fn step(what: &str, command: &mut Command) -> Result<()> {
    eprint!("setup: {what} … ");
    std::io::stderr().flush()?;
    let started = Instant::now();
    let (mut reader, writer) = std::io::pipe().context("cannot make a pipe")?;
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let child = command.spawn();
    // The command holds the pipe's writing ends: closed here, or the reader would never see the end.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = child.with_context(|| format!("cannot start `{}`", shown(command)))?;
    let mut output = Vec::new();
    reader.read_to_end(&mut output)?;
    let status = child.wait()?;
    if status.success() {
        eprintln!("done in {:.0} s", started.elapsed().as_secs_f64());
        return Ok(());
    }
    eprintln!("failed after {:.0} s; its output:", started.elapsed().as_secs_f64());
    std::io::stderr().write_all(&output)?;
    bail!("`{}` failed ({status})", shown(command))
}

/// Finds a program in PATH, in the folders of system programs, and in cargo's own.
pub(crate) fn find(program: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(std::path::PathBuf::from);
    std::env::split_paths(&path)
        .chain(system)
        .chain([cargo_home().join("bin")])
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
}

/// Cargo's home: `CARGO_HOME`, else `~/.cargo`.
pub(crate) fn cargo_home() -> std::path::PathBuf {
    home_folder("CARGO_HOME", ".cargo")
}

/// Rustup's home: `RUSTUP_HOME`, else `~/.rustup`.
pub(crate) fn rustup_home() -> std::path::PathBuf {
    home_folder("RUSTUP_HOME", ".rustup")
}

fn home_folder(variable: &str, default: &str) -> std::path::PathBuf {
    match std::env::var_os(variable) {
        Some(folder) => folder.into(),
        None => std::path::PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(default),
    }
}
