//! `cargo xtask setup`: finds out what is missing and installs it; nothing is started, nothing else is touched.

mod apt;
mod fuzzer;
pub(crate) mod linker;
mod packages;

use anyhow::{Result, bail};
pub(crate) use packages::Group;

use crate::bpf::{Toolchain, World, detect};

/// Installs everything for every task, and says which toolchain will be used.
pub(crate) fn everything() -> Result<()> {
    groups(&Group::ALL)?;
    if let Some(Toolchain { world, rustc, .. }) = detect()? {
        let from = match world {
            World::Override => "named by FOOBAR_BPF_RUSTC",
            World::Nightly => "rustup's nightly with rust-src",
            World::Debian => "Debian's rustc-web",
        };
        eprintln!("setup: complete; eBPF is compiled by {} ({from})", rustc.display());
    }
    Ok(())
}

/// Installs what these groups lack. Looks at files only when nothing is missing, so it costs milliseconds.
pub(crate) fn groups(groups: &[Group]) -> Result<()> {
    let toolchain = detect()?;
    let missing = packages::missing(groups, toolchain.as_ref());
    if !missing.is_empty() {
        apt::install(&missing)?;
    }
    if groups.contains(&Group::Fuzz) {
        fuzzer::ensure()?;
    }
    if !groups.contains(&Group::Compile) {
        return Ok(());
    }
    let Some(toolchain) = detect()? else {
        bail!(
            "apt installed a rustc-web that is older than 1.95 or has no BPF `core`: apt's sources must contain \
             bookworm-security (then run `cargo xtask setup` again), or add rust-src to a rustup nightly"
        );
    };
    linker::ensure(&toolchain)
}
