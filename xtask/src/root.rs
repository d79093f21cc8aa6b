//! Whether this process is root, and what to say when it must be and is not.

use std::os::unix::fs::MetadataExt;

use anyhow::{Result, bail};

/// Whether the effective user is root. `/proc/self` belongs to it, so no system call of our own is needed.
pub(crate) fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// Fails with one clear message when not root.
pub(crate) fn require(task: &str, why: &str) -> Result<()> {
    if is_root() {
        return Ok(());
    }
    bail!("`cargo xtask {task}` must run as root: {why}. Try `sudo -E env \"PATH=$PATH\" cargo xtask {task}`")
}
