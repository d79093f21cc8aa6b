//! What the bed tells while it is set up, and how it is told to stop.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Listens to the set-up of a bed.
pub trait Progress: Sync {
    /// `what` was done and took this long.
    fn done(&self, what: &str, took: Duration);
    /// Something worth a line.
    fn note(&self, text: &str);
    /// Whether to give up: the user pressed Ctrl-C.
    fn cancelled(&self) -> bool {
        false
    }
}

/// Does `work` as one step of the set-up.
pub fn step<T>(progress: &dyn Progress, what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    check(progress)?;
    let start = Instant::now();
    let value = work()?;
    progress.done(what, start.elapsed());
    Ok(value)
}

/// Fails when the user wants to stop.
pub fn check(progress: &dyn Progress) -> Result<()> {
    if progress.cancelled() {
        bail!("stopped on request");
    }
    Ok(())
}

/// Tells nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn done(&self, _: &str, _: Duration) {}
    fn note(&self, _: &str) {}
}

/// Tells on standard error, a line a step.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lines;

impl Progress for Lines {
    fn done(&self, what: &str, took: Duration) {
        eprintln!("✓ {what} ({:.1} s)", took.as_secs_f32());
    }
    fn note(&self, text: &str) {
        eprintln!("  {text}");
    }
}
