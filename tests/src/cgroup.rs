//! cgroup v2 folders: what puts an agent and all its children under one name, and ends them together.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::eventually::eventually;

/// Where cgroup v2 is mounted: `/sys/fs/cgroup` on a unified machine, `/sys/fs/cgroup/unified` on a hybrid one.
pub fn mount() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?;
    mounts
        .lines()
        .map(|line| line.split_ascii_whitespace().collect::<Vec<_>>())
        .find(|fields| fields.get(2) == Some(&"cgroup2"))
        .and_then(|fields| fields.get(1).map(PathBuf::from))
        .context("no cgroup v2 is mounted; try `mount -t cgroup2 none /sys/fs/cgroup/unified`")
}

/// Makes the folder `path` and those above it.
pub fn create(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("cannot make the cgroup {}", path.display()))
}

/// Makes `command` start inside the cgroup `path`.
pub fn attach(path: &Path, command: &mut Command) -> Result<()> {
    let procs = path.join("cgroup.procs");
    let file: File =
        OpenOptions::new().write(true).open(&procs).with_context(|| format!("cannot open {}", procs.display()))?;
    // SAFETY: between fork and exec only `write` is called, on a descriptor that the closure keeps open; "0" is the caller.
    unsafe {
        command.pre_exec(move || match libc::write(file.as_raw_fd(), b"0".as_ptr().cast(), 1) {
            1 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        });
    }
    Ok(())
}

/// Processes in `path` and below.
pub fn processes(path: &Path) -> Vec<i32> {
    let mut found = Vec::new();
    for folder in tree(path) {
        let listed = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
        found.extend(listed.lines().filter_map(|line| line.parse::<i32>().ok()));
    }
    found
}

/// Kills everything in `path` and below, at once, and waits until it is gone.
pub fn kill(path: &Path) -> Result<()> {
    if !path.exists() {
        return Ok(());
    }
    fs::write(path.join("cgroup.kill"), "1").with_context(|| format!("cannot kill the cgroup {}", path.display()))?;
    eventually(KILL_TIMEOUT, &format!("no process left in {}", path.display()), || Ok(processes(path).is_empty()))
}

/// Groups of the same name in v1 hierarchies, where an agent limits its children on a machine that has such.
pub(crate) fn twins(path: &Path) -> Vec<PathBuf> {
    let Some(within) = mount().ok().and_then(|mount| path.strip_prefix(mount).ok().map(Path::to_owned)) else {
        return Vec::new();
    };
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let of = |line: &str| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, group) = (fields.next()?, fields.next()?);
        let hierarchy = Path::new("/sys/fs/cgroup").join(controllers);
        (!controllers.is_empty()).then(|| hierarchy.join(group.trim_start_matches('/')).join(&within))
    };
    own.lines().filter_map(of).filter(|twin| twin.is_dir()).collect()
}

/// Removes `path` and the cgroups below it; they must be empty.
pub fn remove(path: &Path) -> Result<()> {
    for folder in twins(path).iter().flat_map(|twin| tree(twin)).chain(tree(path)) {
        // Busy for a while after its last process has left the list.
        eventually(KILL_TIMEOUT, &format!("{} is removed", folder.display()), || match fs::remove_dir(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(true),
        })?;
    }
    Ok(())
}

/// The folder and those below it, children first.
fn tree(path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(tree(&entry.path()));
        }
    }
    if path.exists() {
        found.push(path.to_owned());
    }
    found
}

const KILL_TIMEOUT: Duration = Duration::from_secs(10);
