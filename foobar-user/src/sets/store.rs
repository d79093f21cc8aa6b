//! The file in which entries of the run time survive: one a line, the prefix and the millisecond since 1970 at which it goes.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use ipnet::IpNet;
use tracing::{info, warn};

use super::{Additions, Now, Until};

/// How the files' names end.
const EXTENSION: &str = "entries";
/// In place of a time: the entry stays.
const STAYS: &str = "-";

/// A set's file.
pub(super) fn path(folder: &Path, set: &str) -> PathBuf {
    folder.join(format!("{set}.{EXTENSION}"))
}

/// The files of the sets that a plan names.
#[derive(Clone, Debug)]
pub struct Files {
    folder: PathBuf,
    sets: BTreeSet<String>,
}

impl Files {
    pub(super) fn new<'a>(folder: &Path, sets: impl Iterator<Item = &'a str>) -> Self {
        Self { folder: folder.to_owned(), sets: sets.map(str::to_owned).collect() }
    }

    /// Drops the entries of every other set; for a plan that is in force for good.
    ///
    /// # Errors
    /// They cannot be removed.
    pub fn drop_others(&self) -> Result<()> {
        let files = match fs::read_dir(&self.folder) {
            Ok(files) => files,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error).with_context(|| format!("cannot list {}", self.folder.display())),
        };
        for file in files {
            let path = file.with_context(|| format!("cannot list {}", self.folder.display()))?.path();
            let set = path.file_stem().and_then(OsStr::to_str).unwrap_or_default();
            if path.extension() == Some(OsStr::new(EXTENSION)) && !self.sets.contains(set) {
                fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
                info!(set, "no rule names it any more: its entries of the run time are dropped");
            }
        }
        Ok(())
    }
}

/// Reads a set's entries, without those whose time has passed meanwhile. A line that is damaged is told and left out.
pub(super) fn read(path: &Path, now: Now) -> Result<Additions> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Additions::default()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let mut additions = Additions::default();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
        match entry(line, now) {
            Some((prefix, Life::Until(until))) => drop(additions.put(prefix, Some(until))),
            Some((prefix, Life::Stays)) => drop(additions.put(prefix, None)),
            Some((_, Life::Over)) => {}
            None => warn!("{}:{}: not an entry of a set, left out: {line}", path.display(), index + 1),
        }
    }
    Ok(additions)
}

enum Life {
    Stays,
    Until(Until),
    Over,
}

fn entry(line: &str, now: Now) -> Option<(IpNet, Life)> {
    let (prefix, end) = line.split_once(' ')?;
    let prefix: IpNet = prefix.parse().ok()?;
    if end == STAYS {
        return Some((prefix, Life::Stays));
    }
    let left = end.parse::<u64>().ok()?.saturating_sub(now.wall_ms);
    let life = if left == 0 { Life::Over } else { Life::Until(now.after(Duration::from_millis(left))) };
    Some((prefix, life))
}

/// Writes a set's entries, whole or not at all, and onto the disk.
pub(super) fn write(path: &Path, set: &str, additions: &Additions) -> Result<()> {
    let mut text = format!("# Entries that `foobar set add` has put into `{set}`; the agent writes this file.\n");
    for (prefix, until) in additions.iter() {
        let end = until.map_or_else(|| STAYS.to_owned(), |until| until.wall_ms.to_string());
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{prefix} {end}");
    }
    replace(path, text.as_bytes()).with_context(|| format!("cannot save the entries of `{set}` in {}", path.display()))
}

/// Replaces a file at one instant; after a crash it is the old or the new one.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().context("a file without a folder")?;
    fs::create_dir_all(folder)?;
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    Ok(File::open(folder)?.sync_all()?)
}
