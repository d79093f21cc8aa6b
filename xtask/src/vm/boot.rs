//! Booting: the emulator with its console as our pipe, a deadline, and the program's exit code from the console.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::kernel::Kernel;
use crate::command;

/// Printed by `init` before the program starts; what comes earlier is the kernel's own.
pub(super) const START_MARK: &str = "foobar-vm-start";
/// Printed by `init` with the program's exit code.
pub(super) const EXIT_MARK: &str = "foobar-vm-exit";

/// From start to power-off; seconds when nothing is wrong, but emulation shares the machine with compilers.
const DEADLINE_MS: u64 = 600_000;
const MEMORY_MIB: &str = "1024";

/// What a program did in its machine.
pub(crate) struct Outcome {
    /// Its exit code.
    pub(crate) exit_code: i32,
    /// Its output, standard output and error together.
    pub(crate) lines: Vec<String>,
}

/// Boots and waits for the end, whatever happens no emulator is left behind.
pub(super) fn boot(series: &str, kernel: &Kernel, image: &Path) -> Result<Outcome> {
    let mut machine = Machine(emulator(kernel, image)?.spawn().context("cannot start qemu-system-x86_64")?);
    let console = machine.0.stdout.take().context("the emulator has no console")?;
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(console).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    follow(series, &receiver, Instant::now() + Duration::from_millis(DEADLINE_MS))
}

/// The emulator, killed and waited for when it goes out of scope.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        // Already over in the good case: both calls then only collect it.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn emulator(kernel: &Kernel, image: &Path) -> Result<Command> {
    let qemu = command::find("qemu-system-x86_64").context("no qemu-system-x86_64: run `cargo xtask setup`")?;
    // setpriv: the emulator dies with us, even when we are killed.
    let mut command = command::command("setpriv");
    command
        .args(["--pdeathsig", "KILL"])
        .arg(qemu)
        // Never kvm: it hangs on hosts where /dev/kvm exists and nested virtualisation does not work.
        .args([
            "-accel",
            "tcg",
            "-cpu",
            "max",
            "-m",
            MEMORY_MIB,
            "-smp",
            "1",
            "-nographic",
            "-no-reboot",
            "-nic",
            "none",
        ])
        .arg("-kernel")
        .arg(kernel.image())
        .arg("-initrd")
        .arg(image)
        .args(["-append", "console=ttyS0 quiet panic=-1"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    Ok(command)
}

/// Reads the console until it closes: shows the program's lines, each with the kernel's series, since other machines may run
/// beside; remembers its exit code.
fn follow(series: &str, console: &Receiver<String>, deadline: Instant) -> Result<Outcome> {
    let (mut boot, mut lines, mut started, mut exit_code) = (Vec::new(), Vec::new(), false, None);
    loop {
        match console.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) if !started => {
                started = line.ends_with(START_MARK);
                boot.push(line);
            }
            Ok(line) => match line.strip_prefix(EXIT_MARK) {
                Some(code) => exit_code = Some(code.trim().parse().context("the exit code is no number")?),
                None if exit_code.is_none() => {
                    println!("{series:<5} {line}");
                    lines.push(line);
                }
                None => {}
            },
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                bail!("not over after {} s; its last lines:\n{}", DEADLINE_MS / 1000, tail(&boot, &lines));
            }
        }
    }
    match exit_code {
        Some(exit_code) => Ok(Outcome { exit_code, lines }),
        None => {
            bail!("the machine ended without an exit code (a kernel panic?); its last lines:\n{}", tail(&boot, &lines))
        }
    }
}

/// The last lines of the console.
fn tail(boot: &[String], lines: &[String]) -> String {
    const SHOWN: usize = 30;
    let all: Vec<&str> = boot.iter().chain(lines).map(String::as_str).collect();
    all[all.len().saturating_sub(SHOWN)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(console: &[&str]) -> Result<Outcome> {
        let (sender, receiver) = mpsc::channel();
        for line in console {
            sender.send((*line).to_owned()).expect("the receiver lives");
        }
        drop(sender);
        follow("6.1", &receiver, Instant::now() + Duration::from_secs(10))
    }

    #[test]
    fn the_exit_code_and_the_programs_own_lines_are_taken() {
        let outcome =
            outcome(&["SeaBIOS", "\u{1b}cfoobar-vm-start", "hello", "foobar-vm-exit 3", "reboot"]).expect("it ended");
        assert_eq!((outcome.exit_code, outcome.lines), (3, vec!["hello".to_owned()]));
    }

    #[test]
    fn a_panic_is_an_error_that_shows_the_console() {
        let Err(error) = outcome(&["foobar-vm-start", "Kernel panic - not syncing"]) else { panic!("it passed") };
        assert!(error.to_string().contains("Kernel panic"), "{error}");
    }
}
