//! cargo-fuzz: found in PATH or cargo's folder, else built.

use anyhow::{Context, Result};

use crate::command;

const VERSION: &str = "0.13.2";

/// Builds cargo-fuzz when there is none; half a minute.
pub(super) fn ensure() -> Result<()> {
    if command::find("cargo-fuzz").is_some() {
        return Ok(());
    }
    command::step(
        &format!("cargo install cargo-fuzz {VERSION} (about half a minute)"),
        command::cargo()
            .args(["install", "cargo-fuzz", "--version", VERSION, "--locked"])
            // Ours would fill the workspace's target folder with its dependencies.
            .env_remove("CARGO_TARGET_DIR"),
    )?;
    command::find("cargo-fuzz")
        .map(|_| ())
        .context("cargo installed cargo-fuzz and it is neither in PATH nor in cargo's bin folder")
}
