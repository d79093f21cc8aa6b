//! What the host must have before the agent changes anything on it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

/// The oldest kernel that is tested.
const KERNEL_MIN: (u32, u32) = (6, 1);
/// Where machines mount cgroup v2: unified ones, then hybrid ones.
const CGROUP_MOUNTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// Checks user and kernel.
///
/// # Errors
/// What is missing, and what to do.
pub fn check() -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "the agent loads programs into the kernel and starts processes as other users: run it as root"
    );
    let uname = nix::sys::utsname::uname().context("cannot ask for the kernel's version")?;
    let release = uname.release().to_string_lossy();
    ensure!(
        version(&release).is_none_or(|version| version >= KERNEL_MIN),
        "this kernel is {release}, but foobar needs {}.{} or newer: boot a newer kernel",
        KERNEL_MIN.0,
        KERNEL_MIN.1
    );
    Ok(())
}

/// Major and minor version of a release such as `6.1.0-50-cloud-amd64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// The mount point of cgroup v2.
///
/// # Errors
/// There is none.
pub fn cgroup_mount() -> Result<PathBuf> {
    let is_v2 = |path: &str| statfs(Path::new(path)).is_ok_and(|fs| fs.filesystem_type() == CGROUP2_SUPER_MAGIC);
    CGROUP_MOUNTS.iter().find(|path| is_v2(path)).map(PathBuf::from).with_context(|| {
        format!(
            "cgroup v2 is mounted at none of {}: mount it, or name a folder with --cgroup",
            CGROUP_MOUNTS.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_versions_are_compared_as_numbers() {
        assert_eq!(version("6.18.44-fc-v657"), Some((6, 18)));
        assert!(version("6.1.0-50-cloud-amd64").unwrap() >= KERNEL_MIN);
        assert!(version("5.10.0").unwrap() < KERNEL_MIN);
        assert_eq!(version("unknown"), None);
    }
}
