//! `cargo xtask build`: the eBPF object first, because user space embeds it.

use anyhow::Result;

use crate::cli::BuildOptions;
use crate::setup::{self, Group};
use crate::{bpf, command};

/// Sets up the compilers, then builds everything.
pub(crate) fn run(options: &BuildOptions) -> Result<()> {
    setup::groups(&[Group::Compile])?;
    everything(options)
}

/// Builds the object and the programs of user space; expects a machine that is set up.
pub(crate) fn everything(options: &BuildOptions) -> Result<()> {
    bpf::build()?;
    let mut cargo = command::cargo();
    cargo.args(["build", "--package", "foobar-user", "--package", "foobar-tests"]);
    if options.release {
        cargo.arg("--release");
    }
    command::run(&mut cargo)
}
