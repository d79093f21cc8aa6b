//! One agent a server: a lock that the kernel frees when its holder dies in any way.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};

/// The lock, held until it is dropped.
#[derive(Debug)]
pub(super) struct Lock(#[expect(dead_code, reason = "holding it is its use")] Flock<File>);

impl Lock {
    /// Takes a server's lock.
    ///
    /// # Errors
    /// Another process holds it.
    pub(super) fn take(path: &Path, server: &str) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("cannot make {}", path.display()))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Self(lock)),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
                bail!("an agent of `{server}` is running: `foobar status --server {server}` tells about it")
            }
            Err((_, error)) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
        }
    }
}
