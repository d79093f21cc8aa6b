//! `cargo xtask lint`: formatting, clippy of host and eBPF crates, documentation; every warning is an error.

use anyhow::{Context, Result};

use crate::setup::{self, Group};
use crate::{bpf, command};

/// Runs every lint, stops at the first that fails.
pub(crate) fn run() -> Result<()> {
    setup::groups(&[Group::Compile, Group::Lint])?;
    eprintln!("lint: formatting");
    command::run(command::cargo().args(["fmt", "--all", "--check"])).context("`cargo fmt` puts it right")?;
    for folder in crate::fuzz::folders() {
        let manifest = format!("{folder}/Cargo.toml");
        command::run(command::cargo().args(["fmt", "--check", "--manifest-path", &manifest]))?;
    }
    eprintln!("lint: clippy, host");
    command::run(command::cargo().args(["clippy", "--workspace", "--all-targets", "--", "-Dwarnings"]))?;
    eprintln!("lint: clippy, eBPF");
    if !bpf::clippy()? {
        eprintln!("lint: SKIPPED clippy of the eBPF crate: the compiler for the BPF target has no clippy beside it");
    }
    eprintln!("lint: documentation");
    command::run(command::cargo().args(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-Dwarnings"))?;
    eprintln!("lint: clean");
    Ok(())
}
