//! Log files of children, bounded: two files of at most about 16 MiB each a process.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Size from which a log file is turned over, in bytes.
const TURN_OVER_BYTES: u64 = 16 * 1024 * 1024;
/// How much of a log's end is read for its last line, in bytes.
const TAIL_BYTES: u64 = 4096;

/// Opens a log for appending, after turning it over when it is large.
pub(super) fn open(path: &Path) -> Result<File> {
    turn_over(path);
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o640)
        .open(path)
        .with_context(|| format!("cannot open the log {}", path.display()))
}

/// Copies a large log aside and empties it; its writer appends, so it goes on at the start.
///
/// Lines written between the copy and the truncation are lost: the price of a log that no process has to reopen.
pub(super) fn turn_over(path: &Path) {
    if !fs::metadata(path).is_ok_and(|about| about.len() > TURN_OVER_BYTES) {
        return;
    }
    let result = fs::copy(path, old(path)).and_then(|_| OpenOptions::new().write(true).open(path)?.set_len(0));
    if let Err(error) = result {
        tracing::warn!(log = %path.display(), %error, "cannot turn the log over");
    }
}

fn old(path: &Path) -> PathBuf {
    path.with_extension("log.1")
}

/// Size of a log now, to tell later what a run wrote.
pub(super) fn size(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |about| about.len())
}

/// Last line that was written after `from`, for a message about what ended.
pub(super) fn last_line(path: &Path, from: u64) -> Option<String> {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        if length <= from {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        file.seek(SeekFrom::Start(from.max(length.saturating_sub(TAIL_BYTES))))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().ok()?.lines().rev().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned)
}
