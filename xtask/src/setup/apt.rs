//! Installing Debian packages: as root by `install.sh`, else by telling the person the exact command.

use anyhow::{Context, Result, bail};

use super::packages::Package;
use crate::command::{self, find};
use crate::root;

/// Keeps services from starting and PostgreSQL from making a cluster; restores what it touched, also on Ctrl-C.
const INSTALL: &str = include_str!("install.sh");

/// Installs the packages.
pub(crate) fn install(packages: &[Package]) -> Result<()> {
    let names: Vec<&str> = packages.iter().map(|package| package.name).collect();
    let list = names.join(" ");
    if find("apt-get").is_none() {
        bail!("missing: {list} (Debian's names). This system has no apt-get: install their like, then try again");
    }
    if !root::is_root() {
        bail!(
            "missing: {list}. Run as root `cargo xtask setup`, or\n  \
             sudo sh -c 'apt-get update && apt-get install --no-install-recommends {list}'"
        );
    }
    // Not fatal: a foreign source may be down, and the installation tells whether what is needed is there.
    if let Err(error) = command::step("apt-get update", command::command("apt-get").args(["--quiet", "update"])) {
        eprintln!("setup: going on with apt's old lists: {error:#}");
    }
    let services: Vec<&str> = packages.iter().filter_map(|package| package.service).collect();
    command::step(
        &format!("apt-get install {list}"),
        command::command("sh").args(["-c", INSTALL, "install.sh"]).arg(services.join(" ")).args(&names),
    )
    .with_context(|| {
        format!("cannot install {list}; to see it by hand: apt-get install --no-install-recommends {list}")
    })
}
