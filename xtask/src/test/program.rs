//! Running a test program: its output is shown as it comes and read for its summary.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use super::libtest;
use super::report::Counts;
use crate::command;

/// Time after which a test program hangs.
pub(super) const DEADLINE: Duration = Duration::from_secs(600);
/// The same for the long forms.
pub(super) const LONG_DEADLINE: Duration = Duration::from_secs(3600);

/// Runs a test program to its end, or to its deadline: a test that hangs has failed.
pub(super) fn run(command: &mut Command, within: Duration) -> Result<Counts> {
    let (reader, writer) = std::io::pipe().context("cannot make a pipe")?;
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let child = command.spawn();
    // The command holds the pipe's writing ends: closed here, or the reader would never see the end.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = child.with_context(|| format!("cannot start `{}`", command::shown(command)))?;
    let pid = child.id().to_string();
    let (ended, deadline) = mpsc::channel::<()>();
    let guard = thread::spawn(move || {
        if deadline.recv_timeout(within) == Err(RecvTimeoutError::Timeout) {
            println!("it has run for {} s and is ended", within.as_secs());
            // SIGTERM, so that guards clean up. What it leaves, the next run of the bed removes.
            Command::new("kill").arg(&pid).status().ok();
        }
    });
    let mut lines = Vec::new();
    for line in BufReader::new(reader).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        println!("{line}");
        lines.push(line);
    }
    drop(ended);
    guard.join().ok();
    let status = child.wait()?;
    if !status.success() {
        println!("`{}` ended with {status}", command::shown(command));
    }
    Ok(libtest::counts(&lines, status.success()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_of_both_kinds_and_the_exit_code_are_taken() {
        let line = "test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out";
        let script = format!("echo '{line}' >&2; exit 7");
        let counts = run(Command::new("sh").args(["-c", &script]), DEADLINE).expect("sh starts");
        assert_eq!(counts, Counts { passed: 2, failed: 1, skipped: 1 });
    }
}
