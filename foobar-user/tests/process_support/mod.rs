//! A place for one test's processes: folders, a cgroup, a deadline for every wait; all of it is removed at the end.

#![expect(dead_code, reason = "each test file uses a part of it")]

use std::collections::BTreeMap;
use std::fs;
use std::future::Future;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use foobar_user::plan::{Limits, ProcessKind, ProcessPlan};
use foobar_user::process::{Folders, ProcessState, ProcessStatus, Supervisor};
use tempfile::TempDir;

/// Longest wait for anything.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Folders and a cgroup of one test.
pub(crate) struct Place {
    folder: TempDir,
    cgroup: PathBuf,
}

impl Place {
    /// Makes a place; `None`, said aloud, where this cannot be tested.
    pub(crate) fn new() -> Option<Self> {
        let mount = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
            .into_iter()
            .map(Path::new)
            .find(|mount| mount.join("cgroup.procs").exists() && mount.join("cgroup.controllers").exists());
        let (Some(mount), true) = (mount, nix::unistd::geteuid().is_root()) else {
            eprintln!("SKIPPED: needs root and a cgroup v2 mount");
            return None;
        };
        let folder = tempfile::Builder::new().prefix("fb-").tempdir_in("/tmp").expect("a folder in /tmp");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("the folder is ours");
        let name = folder.path().file_name().expect("a name").to_string_lossy().into_owned();
        let cgroup = mount.join(format!("foobar-test-{}-{name}", std::process::id()));
        fs::create_dir(&cgroup).expect("a cgroup of the test");
        Some(Self { folder, cgroup })
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn folders(&self, server: &str) -> Folders {
        let root = self.path().join(server);
        let folders = Folders {
            state: root.join("state"),
            run: root.join("run"),
            logs: root.join("logs"),
            cgroup: self.cgroup.join(server),
        };
        fs::create_dir_all(&folders.cgroup).expect("a cgroup of the server");
        folders
    }

    /// Where cgroup v2 is mounted.
    pub(crate) fn mount(&self) -> &Path {
        self.cgroup.parent().expect("a mount")
    }

    /// Name of the test's cgroup below the mount.
    pub(crate) fn mount_name(&self) -> &std::ffi::OsStr {
        self.cgroup.file_name().expect("a name")
    }

    /// The cgroup of a server.
    pub(crate) fn group(&self, server: &str) -> PathBuf {
        self.cgroup.join(server)
    }

    /// Processes of one process of a server.
    pub(crate) fn group_population(&self, server: &str, process: &str) -> Vec<i32> {
        let text = fs::read_to_string(self.group(server).join(process).join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// Processes that are left in the test's cgroup.
    pub(crate) fn population(&self) -> Vec<i32> {
        fn walk(folder: &Path, found: &mut Vec<i32>) {
            let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
            found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    walk(&entry.path(), found);
                }
            }
        }
        let mut found = Vec::new();
        walk(&self.cgroup, &mut found);
        found
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder in the place");
        fs::write(&path, text).expect("a file in the place");
        path
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::write(self.cgroup.join("cgroup.kill"), "1");
        let events = self.cgroup.join("cgroup.events");
        let begun = std::time::Instant::now();
        while fs::read_to_string(&events).is_ok_and(|text| text.contains("populated 1")) && begun.elapsed() < DEADLINE {
            std::thread::yield_now();
        }
        remove_cgroup(&self.cgroup);
        let name = self.cgroup.file_name().expect("a name");
        own_groups().iter().for_each(|own| remove_cgroup(&own.join(name)));
    }
}

/// Folders of this process's groups in v1 hierarchies: limits are below them on a machine that has such.
pub(crate) fn own_groups() -> Vec<PathBuf> {
    let text = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let of = |line: &str| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        let name = controllers.split(',').next().filter(|name| !name.is_empty())?;
        Some(Path::new("/sys/fs/cgroup").join(name).join(path.trim_start_matches('/')))
    };
    text.lines().filter_map(of).filter(|folder| folder.is_dir()).collect()
}

fn remove_cgroup(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&entry.path());
        }
    }
    let _ = fs::remove_dir(folder);
}

/// A shell script as a process of the plan.
pub(crate) fn script(name: &str, text: &str) -> ProcessPlan {
    ProcessPlan {
        name: name.into(),
        kind: ProcessKind::Command {
            command: vec!["/bin/sh".into(), "-c".into(), text.into()],
            environment: BTreeMap::new(),
            folder: None,
            files: Vec::new(),
            reload_signal: None,
        },
        user: None,
        stop_signal: None,
        stop_timeout_ms: 2_000,
        after: Vec::new(),
        ready: None,
        limits: Limits::default(),
    }
}

/// Waits until the process's status is as wanted; panics with the last one seen.
pub(crate) async fn until(
    supervisor: &Supervisor,
    name: &str,
    mut wanted: impl FnMut(&ProcessStatus) -> bool,
) -> ProcessStatus {
    let mut board = supervisor.watch();
    let mut found = None;
    let waited = tokio::time::timeout(
        DEADLINE,
        board.wait_for(|all| {
            found = all.iter().find(|status| status.name == name).cloned();
            found.as_ref().is_some_and(&mut wanted)
        }),
    )
    .await
    .is_ok();
    assert!(waited, "not within {DEADLINE:?}; last seen: {:?}", supervisor.status());
    found.expect("it was found")
}

pub(crate) async fn until_running(supervisor: &Supervisor, name: &str) -> ProcessStatus {
    until(supervisor, name, |status| status.state == ProcessState::Running).await
}

/// Tries again and again until the answer is there or the deadline has passed.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut attempt: impl FnMut() -> F) -> T {
    let begun = std::time::Instant::now();
    loop {
        if let Some(found) = attempt().await {
            return found;
        }
        assert!(begun.elapsed() < DEADLINE, "not within {DEADLINE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
