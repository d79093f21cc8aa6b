//! bpf-linker: found in PATH or cargo's folder, else built against Debian's LLVM.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::bpf::Toolchain;
use crate::command;

const VERSION: &str = "0.13.0";

/// The LLVM that bpf-linker is built with; it must not be older than the compiler's.
const LLVM_MAJOR: u32 = 22;
const LLVM_PREFIX: &str = "/usr/lib/llvm-22";

/// The linker, if there is one.
pub(crate) fn find() -> Option<PathBuf> {
    command::find("bpf-linker")
}

/// Builds the linker when there is none; a minute.
pub(crate) fn ensure(toolchain: &Toolchain) -> Result<()> {
    if find().is_some() {
        return Ok(());
    }
    let about = command::output(command::command(&toolchain.rustc).arg("-vV"))?;
    if let Some(major) = llvm_major(&about).filter(|major| *major > LLVM_MAJOR) {
        bail!(
            "{} emits LLVM {major}, newer than Debian's LLVM {LLVM_MAJOR}: install a matching linker by hand, with \
             `cargo install bpf-linker --no-default-features --features llvm-{major}` and LLVM {major}'s development files",
            toolchain.rustc.display()
        );
    }
    if !Path::new(LLVM_PREFIX).is_dir() {
        bail!(
            "{LLVM_PREFIX} is missing although llvm-{LLVM_MAJOR}-dev was to be installed: see `dpkg -L llvm-{LLVM_MAJOR}-dev`"
        );
    }
    let features = format!("llvm-{LLVM_MAJOR}");
    command::step(
        &format!("cargo install bpf-linker {VERSION} (about a minute)"),
        command::cargo()
            .args(["install", "bpf-linker", "--version", VERSION, "--locked"])
            .args(["--no-default-features", "--features", &features])
            .env("LLVM_PREFIX", LLVM_PREFIX)
            // Ours would fill the workspace's target folder with the linker's own dependencies.
            .env_remove("CARGO_TARGET_DIR"),
    )?;
    find().map(|_| ()).context("cargo installed bpf-linker and it is neither in PATH nor in cargo's bin folder")
}

/// 22 of `LLVM version: 22.1.8`.
fn llvm_major(about: &str) -> Option<u32> {
    let version = about.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
    version.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_of_llvm_is_read() {
        assert_eq!(llvm_major("rustc 1.96.0\nhost: x\nLLVM version: 22.1.8\n"), Some(22));
        assert_eq!(llvm_major("rustc 1.96.0\n"), None);
    }
}
