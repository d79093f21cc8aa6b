//! Running a test program: its output is shown as it comes and read for its summary.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::libtest;
use super::report::Counts;
use crate::command;

/// Runs a test program to its end.
pub(super) fn run(command: &mut Command) -> Result<Counts> {
    let (reader, writer) = std::io::pipe().context("cannot make a pipe")?;
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let child = command.spawn();
    // The command holds the pipe's writing ends: closed here, or the reader would never see the end.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = child.with_context(|| format!("cannot start `{}`", command::shown(command)))?;
    let mut lines = Vec::new();
    for line in BufReader::new(reader).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        println!("{line}");
        lines.push(line);
    }
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
        let counts = run(Command::new("sh").args(["-c", &script])).expect("sh starts");
        assert_eq!(counts, Counts { passed: 2, failed: 1, skipped: 1 });
    }
}
