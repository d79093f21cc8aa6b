//! A run of the bed: its id, its folder, and the lock that says that it is alive.
//!
//! The lock is an `flock` of the living process: it goes with the process, however that ends, so a run whose lock is free
//! is dead and may be swept. One registry lock makes "make the folder and lock it" and "look and sweep" exclusive.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// Folder with one folder a run. Not below `/tmp`: nobody else may prepare names here.
pub const HOME: &str = "/var/lib/foobar-bed";

/// What every name of the bed begins with.
pub const PREFIX: &str = "foobar-";

/// A living run.
#[derive(Debug)]
pub struct Run {
    id: String,
    folder: PathBuf,
    _lock: Flock<File>,
}

impl Run {
    /// Makes the folder of a new run and locks it for the life of this value.
    pub fn create() -> Result<Self> {
        let _registry = registry()?;
        let id = fresh_id()?;
        let folder = Path::new(HOME).join(&id);
        fs::DirBuilder::new()
            .mode(0o755)
            .create(&folder)
            .with_context(|| format!("cannot make the run's folder {}", folder.display()))?;
        // The processes of a run are nobody, www-data and postgres: each must be able to walk to its files.
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))?;
        let lock = lock(&folder.join("lock"), FlockArg::LockExclusiveNonblock)?
            .with_context(|| format!("somebody else holds the lock of the new run {id}"))?;
        Ok(Self { id, folder, _lock: lock })
    }

    /// The run's id: a few hexadecimal digits.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The run's folder: site, states, logs.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// `foobar-<id>`: name of the run's cgroup and bpffs folder, beginning of its namespaces' names.
    pub fn name(&self) -> String {
        format!("{PREFIX}{}", self.id)
    }
}

/// Takes the registry's lock: held while a run is made and while dead runs are swept.
pub(crate) fn registry() -> Result<Flock<File>> {
    if !nix::unistd::geteuid().is_root() {
        bail!("the test bed makes network namespaces and loads BPF programs: run it as root");
    }
    fs::create_dir_all(HOME).with_context(|| format!("cannot make {HOME}"))?;
    fs::set_permissions(HOME, fs::Permissions::from_mode(0o755))?;
    lock(&Path::new(HOME).join(".lock"), FlockArg::LockExclusive)?.context("the registry's lock is held")
}

/// Whether the run `id` is alive: its process holds the lock.
pub(crate) fn is_alive(id: &str) -> Result<bool> {
    let path = Path::new(HOME).join(id).join("lock");
    if !path.exists() {
        return Ok(false);
    }
    Ok(lock(&path, FlockArg::LockExclusiveNonblock)?.is_none())
}

/// Whether `id` has the form of a run's id.
pub(crate) fn is_id(id: &str) -> bool {
    id.len() == ID_DIGITS && id.bytes().all(|byte| byte.is_ascii_hexdigit() && !byte.is_ascii_uppercase())
}

fn lock(path: &Path, how: FlockArg) -> Result<Option<Flock<File>>> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .with_context(|| format!("cannot open the lock {}", path.display()))?;
    match Flock::lock(file, how) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, error)) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
    }
}

fn fresh_id() -> Result<String> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
    let mixed = (since.as_nanos() as u64 ^ u64::from(std::process::id()) << 20).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    Ok(format!("{:06x}", mixed >> 40))
}

const ID_DIGITS: usize = 6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_recognised() {
        assert!(is_id(&fresh_id().expect("an id")));
        for wrong in ["", "12345", "1234567", "12345G", "12345A", "../../"] {
            assert!(!is_id(wrong), "{wrong:?}");
        }
    }
}
