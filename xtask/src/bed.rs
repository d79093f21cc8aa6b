//! `cargo xtask run` and `bench`: sets up, builds, and becomes the bed.

use std::os::unix::process::CommandExt;

use anyhow::{Result, anyhow};

use crate::cli::BuildOptions;
use crate::setup::{self, Group};
use crate::{build, command, root, workspace};

/// Replaces this process by `foobar-bed <what> <arguments>`; returns only when that failed.
///
/// Replaced, not spawned: `cargo run` does the same with us, so Ctrl-C, signals and the exit code are the bed's own.
pub(crate) fn exec(what: &str, arguments: &[String]) -> Result<()> {
    root::require(what, "it makes network namespaces and loads programs into the kernel")?;
    setup::groups(&[Group::Compile, Group::Site, Group::Bench])?;
    build::everything(&BuildOptions { release: true })?;
    let bed = workspace::target().join("release/foobar-bed");
    let error = command::command(&bed).arg(what).args(arguments).exec();
    Err(anyhow!("cannot start {}: {error}; `cargo xtask build --release` makes it", bed.display()))
}
