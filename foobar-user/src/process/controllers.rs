//! Where this machine keeps the cgroup controllers that limit processes: in the v2 tree, or in v1 hierarchies beside it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::plan::Limits;

/// A cgroup controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Controller {
    /// Weight and quota.
    Cpu,
    /// Memory and swap.
    Memory,
    /// Number of processes and threads.
    Pids,
}

impl Controller {
    pub(super) const ALL: [Self; 3] = [Self::Cpu, Self::Memory, Self::Pids];

    /// Its name in both versions.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Pids => "pids",
        }
    }

    /// Whether any of the limits is its.
    pub(super) const fn serves(self, limits: &Limits) -> bool {
        match self {
            Self::Cpu => limits.cpu_weight.is_some() || limits.cpu_milli.is_some(),
            Self::Memory => limits.memory_bytes.is_some(),
            Self::Pids => limits.processes.is_some(),
        }
    }
}

/// Where a controller is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Home {
    /// In the v2 tree.
    Unified,
    /// In a v1 hierarchy; the folder of the agent's own group in it.
    Legacy(PathBuf),
}

/// Where this machine has a controller, looked at from a folder of its v2 tree.
pub(super) fn home(controller: Controller, v2_root: &Path) -> Option<Home> {
    let listed = fs::read_to_string(v2_root.join("cgroup.controllers")).unwrap_or_default();
    if listed.split_ascii_whitespace().any(|name| name == controller.name()) {
        return Some(Home::Unified);
    }
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    legacy(controller.name(), &mounts, &own).map(Home::Legacy)
}

/// The folder of the own group in a v1 hierarchy: limits there hold beside those that the agent itself is under.
fn legacy(controller: &str, mounts: &str, own: &str) -> Option<PathBuf> {
    let has = |list: &str| list.split(',').any(|name| name == controller);
    let mount = mounts.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        matches!(fields[..], [_, _, "cgroup", options, ..] if has(options)).then(|| PathBuf::from(fields[1]))
    })?;
    let group = own.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        has(fields.next()?).then(|| fields.next())?
    });
    let within = mount.join(group.unwrap_or("/").trim_start_matches('/'));
    // A namespace may show another root than its own.
    Some(if within.is_dir() { within } else { mount })
}

/// The top of the v2 tree that a folder is in.
pub(super) fn v2_root(folder: &Path) -> PathBuf {
    let is_group = |path: &&Path| path.join("cgroup.procs").exists();
    folder.ancestors().take_while(is_group).last().unwrap_or(folder).to_owned()
}

/// Controllers that limits need and that this machine does not have.
#[must_use]
pub fn missing_controllers(limits: &Limits) -> Vec<&'static str> {
    let root = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(Path::new);
    let root = root.into_iter().find(|root| root.join("cgroup.controllers").exists()).unwrap_or(root[0]);
    let needed = Controller::ALL.into_iter().filter(|controller| controller.serves(limits));
    needed.filter(|controller| home(*controller, root).is_none()).map(Controller::name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v1_hierarchies_are_found_by_their_controller() {
        let place = tempfile::tempdir().unwrap();
        let mount = place.path().display();
        let mounts = format!(
            "cgroup2 /unified cgroup2 rw 0 0\ncgroup {mount}/a cgroup rw,cpu,cpuacct 0 0\ncgroup {mount}/b cgroup rw,memory 0 0\n"
        );
        let own = "4:memory:/box/1\n1:cpu,cpuacct:/gone\n0::/\n";
        fs::create_dir_all(place.path().join("b/box/1")).unwrap();
        assert_eq!(legacy("memory", &mounts, own), Some(place.path().join("b/box/1")));
        assert_eq!(legacy("cpu", &mounts, own), Some(place.path().join("a")), "a group that is not seen here");
        assert_eq!(legacy("pids", &mounts, own), None);
    }
}
