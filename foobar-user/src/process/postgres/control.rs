//! What the control file of a data folder says, as `pg_controldata` tells it.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::binary;

/// What it says.
#[derive(Debug)]
pub(super) struct Control(String);

impl Control {
    /// Reads it.
    ///
    /// # Errors
    /// It cannot be read, or is broken.
    pub(super) async fn read(data: &Path) -> Result<Self> {
        let mut command = tokio::process::Command::new(binary("pg_controldata")?);
        command.env("LC_ALL", "C").kill_on_drop(true).arg("-D").arg(data);
        let output = command.output().await.context("cannot run pg_controldata")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        // What is broken is told all the same, behind a warning.
        ensure!(!text.starts_with("WARNING"), "the control file of {} is broken", data.display());
        Ok(Self(text))
    }

    /// The value of this name, which ends with a colon.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.0.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
    }

    /// The timeline of the data.
    pub(super) fn timeline(&self) -> Option<u32> {
        let of = |name| self.value(name).and_then(|value| value.parse().ok());
        of("Latest checkpoint's TimeLineID:").max(of("Min recovery ending loc's timeline:"))
    }

    /// Where the record of the last checkpoint begins in the log.
    pub(super) fn checkpoint(&self) -> Option<u64> {
        position(self.value("Latest checkpoint location:")?)
    }
}

/// A position in the log as PostgreSQL writes it: two halves in hexadecimal digits.
pub(super) fn position(text: &str) -> Option<u64> {
    let (high, low) = text.split_once('/')?;
    Some(u64::from_str_radix(high, 16).ok()? << 32 | u64::from_str_radix(low, 16).ok()?)
}
