//! What a run leaves behind: finding it, by the run's id alone, and removing it.
//!
//! Processes are found by cgroup, by namespace (the inode that the name is bound to) and by the run's folder on their command
//! line, never by a recorded number, which somebody else may bear by now.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::eventually::eventually;
use crate::process::feed;
use crate::run::{self, PREFIX};
use crate::{bpffs, cgroup, namespace};

/// Everything of the run `id` that still exists, in words.
pub fn left_behind(id: &str) -> Vec<String> {
    let name = format!("{PREFIX}{id}");
    let mut found = Vec::new();
    found.extend(processes(id).into_iter().map(|pid| format!("process {pid} ({})", command_line(pid))));
    found.extend(namespaces(id).into_iter().map(|name| format!("network namespace {name}")));
    found.extend(links(id).into_iter().map(|link| format!("network interface {link}")));
    let folders = [Path::new(bpffs::MOUNT).join(&name), Path::new(run::HOME).join(id)];
    let cgroup = cgroup::mount().map(|mount| mount.join(&name)).ok();
    let twins = cgroup.iter().flat_map(|cgroup| cgroup::twins(cgroup)).collect::<Vec<_>>();
    let existing = folders.into_iter().chain(cgroup).chain(twins).filter(|path| path.exists());
    found.extend(existing.map(|path| format!("folder {}", path.display())));
    found
}

/// Removes what crashed runs left behind; returns their ids. Living runs are not touched.
pub fn sweep() -> Result<Vec<String>> {
    let _registry = run::registry()?;
    let mut swept = Vec::new();
    for id in known_ids() {
        if !run::is_alive(&id)? {
            remove(&id).with_context(|| format!("cannot sweep the run {id}"))?;
            swept.push(id);
        }
    }
    Ok(swept)
}

/// Removes everything of the run `id`: processes first, then what they held.
///
/// Goes on after a failure, so that as little as possible stays, and reports the first.
pub fn remove(id: &str) -> Result<()> {
    let name = format!("{PREFIX}{id}");
    let group = cgroup::mount().map(|mount| mount.join(&name));
    let steps: [Result<()>; 5] = [
        group.as_ref().map_or(Ok(()), |group| cgroup::kill(group)),
        kill_processes(id),
        bpffs::remove(&name),
        remove_namespaces(id),
        group.as_ref().map_or(Ok(()), |group| cgroup::remove(group)),
    ];
    steps.into_iter().collect::<Result<()>>()?;
    // Last, since the lock in it is what tells a living run from a dead one.
    let folder = Path::new(run::HOME).join(id);
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    Ok(())
}

/// Processes of the run `id`, without the caller and without those that have ended and only wait for their parent.
pub fn processes(id: &str) -> BTreeSet<i32> {
    let inodes: Vec<u64> = namespaces(id)
        .iter()
        .filter_map(|name| fs::metadata(Path::new(namespace::FOLDER).join(name)).ok())
        .map(|metadata| metadata.ino())
        .collect();
    let folder = format!("{}/{id}/", run::HOME);
    let group = format!("/{PREFIX}{id}");
    let own = std::process::id().cast_signed();
    entries(Path::new("/proc"))
        .filter_map(|entry| entry.parse::<i32>().ok())
        .filter(|pid| *pid != own)
        .filter(|pid| {
            let proc = PathBuf::from(format!("/proc/{pid}"));
            if is_zombie(&proc) {
                return false;
            }
            let inside = fs::metadata(proc.join("ns/net")).is_ok_and(|net| inodes.contains(&net.ino()));
            inside || command_line(*pid).contains(&folder) || in_group(&proc, &group)
        })
        .collect()
}

fn is_zombie(proc: &Path) -> bool {
    let stat = fs::read_to_string(proc.join("stat")).unwrap_or_default();
    // The name before it is in parentheses and may hold anything.
    stat.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with(['Z', 'X']))
}

fn in_group(proc: &Path, group: &str) -> bool {
    let groups = fs::read_to_string(proc.join("cgroup")).unwrap_or_default();
    groups
        .lines()
        .filter_map(|line| line.strip_prefix("0::")?.strip_prefix(group))
        .any(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn kill_processes(id: &str) -> Result<()> {
    eventually(KILL_TIMEOUT, "the end of the run's processes", || {
        let left = processes(id);
        for pid in &left {
            match kill(Pid::from_raw(*pid), Signal::SIGKILL) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => return Err(error).with_context(|| format!("cannot kill process {pid}")),
            }
        }
        Ok(left.is_empty())
    })
}

fn remove_namespaces(id: &str) -> Result<()> {
    let names = namespaces(id);
    if names.is_empty() {
        return Ok(());
    }
    let script: String = names.iter().map(|name| format!("netns delete {name}\n")).collect();
    // `-force`: a name whose namespace was never bound must not keep the others.
    feed(Command::new("ip").args(["-force", "-batch", "-"]), &script)
}

/// Ids of every run, living or dead, of which there is a trace.
fn known_ids() -> BTreeSet<String> {
    let mut ids: BTreeSet<String> = entries(Path::new(run::HOME)).filter(|name| run::is_id(name)).collect();
    let mut places = vec![PathBuf::from(namespace::FOLDER), PathBuf::from(bpffs::MOUNT)];
    places.extend(cgroup::mount());
    for place in places {
        ids.extend(entries(&place).filter_map(|name| {
            let id = name.strip_prefix(PREFIX)?.split('-').next()?.to_owned();
            run::is_id(&id).then_some(id)
        }));
    }
    ids
}

fn namespaces(id: &str) -> Vec<String> {
    let beginning = format!("{PREFIX}{id}-");
    entries(Path::new(namespace::FOLDER)).filter(|name| name.starts_with(&beginning)).collect()
}

fn links(id: &str) -> Vec<String> {
    entries(Path::new("/sys/class/net")).filter(|name| name.contains(id)).collect()
}

fn command_line(pid: i32) -> String {
    let raw = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&raw).replace('\0', " ").trim_end().to_owned()
}

fn entries(folder: &Path) -> impl Iterator<Item = String> {
    fs::read_dir(folder).into_iter().flatten().flatten().filter_map(|entry| entry.file_name().into_string().ok())
}

const KILL_TIMEOUT: Duration = Duration::from_secs(10);
