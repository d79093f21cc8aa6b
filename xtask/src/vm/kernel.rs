//! Debian's kernels: the newest package of a series that apt lists, downloaded and unpacked once.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail, ensure};

use crate::{command, workspace};

/// The kernels that must pass: the oldest supported one and the newest that Debian 12 offers.
pub(crate) const SERIES: [&str; 2] = ["6.1", "6.12"];

/// An unpacked kernel package.
pub(super) struct Kernel {
    /// The package's name.
    pub(super) package: String,
    /// What `uname -r` says.
    pub(super) release: String,
    /// The folder with `boot` and `lib/modules`.
    pub(super) folder: PathBuf,
}

impl Kernel {
    /// The compressed kernel.
    pub(super) fn image(&self) -> PathBuf {
        self.folder.join("boot").join(format!("vmlinuz-{}", self.release))
    }

    /// The folder of its modules.
    pub(super) fn modules(&self) -> PathBuf {
        self.folder.join("lib/modules").join(&self.release)
    }
}

/// The newest kernel of the series, from the cache when it is there.
pub(super) fn newest(series: &str) -> Result<Kernel> {
    ensure!(cfg!(target_arch = "x86_64"), "kernels in virtual machines are tested on x86_64 only");
    // apt has one lock, and gives up where it is taken.
    static APT: Mutex<()> = Mutex::new(());
    let _apt = APT.lock().unwrap_or_else(PoisonError::into_inner);
    let cache = workspace::target().join("kernels");
    std::fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
    let mut listed = listed(series)?;
    if listed.is_none() {
        update()?;
        listed = self::listed(series)?;
    }
    let Some(package) = listed else {
        bail!("apt lists no linux-image-{series}*-cloud-amd64: are Debian 12's main and security in its sources?")
    };
    let release = package.trim_start_matches("linux-image-").to_owned();
    let kernel = Kernel { folder: cache.join(&package), package, release };
    if !kernel.modules().join("modules.dep").is_file() {
        fetch(&kernel, &cache)?;
    }
    Ok(kernel)
}

fn listed(series: &str) -> Result<Option<String>> {
    let names = command::output(command::command("apt-cache").args(["pkgnames", &format!("linux-image-{series}.")]))?;
    Ok(newest_of(names.lines()))
}

/// The name with the highest version among the signed images for clouds.
fn newest_of<'a>(names: impl Iterator<Item = &'a str>) -> Option<String> {
    names.filter(|name| name.ends_with("-cloud-amd64")).max_by_key(|name| numbers(name)).map(str::to_owned)
}

/// Every number in the name, in order: 6, 12, 115, 12, 64 of `linux-image-6.12.115+deb12-cloud-amd64`.
fn numbers(name: &str) -> Vec<u32> {
    name.split(|character: char| !character.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

fn update() -> Result<()> {
    command::step("apt-get update", command::command("apt-get").args(["--quiet", "update"]))
}

/// Downloads, unpacks and indexes in a folder of its own, then renames: the cache never holds half a kernel.
fn fetch(kernel: &Kernel, cache: &Path) -> Result<()> {
    let partial = cache.join(format!("{}.{}", kernel.package, std::process::id()));
    let done = unpack(kernel, &partial);
    if done.is_err() || kernel.folder.exists() {
        let half = if done.is_err() { &partial } else { &kernel.folder };
        std::fs::remove_dir_all(half).with_context(|| format!("cannot remove {}", half.display()))?;
    }
    done?;
    std::fs::rename(&partial, &kernel.folder).with_context(|| format!("cannot rename {}", partial.display()))
}

fn unpack(kernel: &Kernel, partial: &Path) -> Result<()> {
    std::fs::create_dir_all(partial).with_context(|| format!("cannot make {}", partial.display()))?;
    let download = || {
        let mut apt = command::command("apt-get");
        // Root's folder is closed to apt's own user; its sandbox would only make it complain.
        apt.args(["-o", "APT::Sandbox::User=root", "download", &kernel.package]).current_dir(partial);
        command::step(&format!("apt-get download {}", kernel.package), &mut apt)
    };
    if download().is_err() {
        // Lists older than the archive name files that are gone.
        update()?;
        download()?;
    }
    let package = std::fs::read_dir(partial)?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .context("apt-get download left no package")?;
    command::run(command::command("dpkg").arg("-x").args([&package, partial]))?;
    let depmod = command::find("depmod").context("no depmod: run `cargo xtask setup`")?;
    command::run(command::command(depmod).arg("-b").arg(partial).arg(&kernel.release))?;
    std::fs::remove_file(&package).with_context(|| format!("cannot remove {}", package.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_signed_image_wins_by_number_not_by_letter() {
        let names = [
            "linux-image-6.12.99+deb12-cloud-amd64",
            "linux-image-6.12.115+deb12-cloud-amd64",
            "linux-image-6.12.117+deb12-cloud-amd64-unsigned",
            "linux-image-6.12.117+deb12-cloud-amd64-dbg",
        ];
        assert_eq!(newest_of(names.into_iter()).as_deref(), Some("linux-image-6.12.115+deb12-cloud-amd64"));
        assert_eq!(newest_of(["linux-image-6.1.0-9-amd64"].into_iter()), None);
    }
}
