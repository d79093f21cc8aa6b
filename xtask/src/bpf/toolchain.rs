//! Detection of a compiler for the BPF target: an override, rustup's nightly with rust-src, or Debian's packages.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::command;
use crate::workspace::BPF_TRIPLE;

/// Names the compiler to use in place of what is found.
pub(crate) const OVERRIDE: &str = "FOOBAR_BPF_RUSTC";

/// Debian's compiler; its package is `rustc-web`.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// The oldest minor version (of 1.x) that compiles the workspace: `rust-version` of the workspace.
const MINOR_MIN: u32 = 95;

/// Where a toolchain comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum World {
    /// `FOOBAR_BPF_RUSTC`.
    Override,
    /// Rustup's nightly with rust-src.
    Nightly,
    /// Debian's rustc with a prebuilt BPF `core`.
    Debian,
}

/// A compiler that can build for the BPF target.
#[derive(Clone, Debug)]
pub(crate) struct Toolchain {
    /// Where it comes from.
    pub(crate) world: World,
    /// The compiler.
    pub(crate) rustc: PathBuf,
    /// Whether `core` must be built from rust-src, because no prebuilt one is there.
    pub(crate) build_std: bool,
}

impl Toolchain {
    /// The folder of the compiler and of the tools that belong to it.
    pub(crate) fn programs(&self) -> &Path {
        self.rustc.parent().unwrap_or(Path::new("/usr/bin"))
    }
}

/// Finds a toolchain, in order: the override, nightly with rust-src, Debian's. `None`: one must be installed.
///
/// # Errors
/// The override names something that cannot build for the BPF target.
pub(crate) fn detect() -> Result<Option<Toolchain>> {
    if let Some(rustc) = std::env::var_os(OVERRIDE) {
        return overridden(PathBuf::from(rustc)).map(Some);
    }
    if let Some(nightly) = nightly(&command::rustup_home()) {
        return Ok(Some(nightly));
    }
    debian()
}

fn overridden(rustc: PathBuf) -> Result<Toolchain> {
    let sysroot = command::output(command::command(&rustc).args(["--print", "sysroot"]))
        .with_context(|| format!("{OVERRIDE} names {}", rustc.display()))?;
    let sysroot = Path::new(sysroot.trim());
    let build_std = !has_core(sysroot);
    if build_std && !has_source(sysroot) {
        bail!(
            "{OVERRIDE} names {}, which has neither a `core` for {BPF_TRIPLE} nor rust-src in {}: name another compiler, or unset it",
            rustc.display(),
            sysroot.display()
        );
    }
    Ok(Toolchain { world: World::Override, rustc, build_std })
}

/// Looks at files only: starting rustup costs more than the whole of a quick `setup` may.
fn nightly(rustup_home: &Path) -> Option<Toolchain> {
    let toolchains = std::fs::read_dir(rustup_home.join("toolchains")).ok()?;
    let mut folders: Vec<PathBuf> = toolchains
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("nightly-"))
        .map(|entry| entry.path())
        .filter(|folder| has_source(folder) && folder.join("bin/rustc").is_file())
        .collect();
    // `nightly-<host>`, the one that rustup keeps new, sorts behind every dated one.
    folders.sort();
    let rustc = folders.pop()?.join("bin/rustc");
    Some(Toolchain { world: World::Nightly, rustc, build_std: true })
}

fn debian() -> Result<Option<Toolchain>> {
    if !Path::new(DEBIAN_RUSTC).is_file() || !has_core(Path::new("/usr")) {
        return Ok(None);
    }
    let version = command::output(command::command(DEBIAN_RUSTC).arg("--version"))?;
    let new_enough = minor_version(&version).is_some_and(|minor| minor >= MINOR_MIN);
    let toolchain = Toolchain { world: World::Debian, rustc: DEBIAN_RUSTC.into(), build_std: false };
    Ok(new_enough.then_some(toolchain))
}

fn has_core(sysroot: &Path) -> bool {
    let folder = sysroot.join("lib/rustlib").join(BPF_TRIPLE).join("lib");
    std::fs::read_dir(folder).is_ok_and(|entries| {
        entries.filter_map(Result::ok).any(|entry| entry.file_name().to_string_lossy().starts_with("libcore-"))
    })
}

fn has_source(sysroot: &Path) -> bool {
    sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml").is_file()
}

/// 96 of `rustc 1.96.0 (…)`.
fn minor_version(version: &str) -> Option<u32> {
    version.strip_prefix("rustc 1.")?.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minor_versions_are_read() {
        let table = [
            ("rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)", Some(96)),
            ("rustc 1.98.0-nightly (abc 2026-11-01)", Some(98)),
            ("rustc 2.0.0", None),
            ("", None),
        ];
        for (version, expected) in table {
            assert_eq!(minor_version(version), expected, "{version:?}");
        }
    }
}
