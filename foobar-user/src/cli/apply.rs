//! `foobar apply`, `foobar reload`, `foobar confirm`, `foobar revert`.

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use foobar_user::agent::control::{Admin, Applied, Apply, Command};
use foobar_user::sets::ttl;

use super::{ServerArguments, ssh};

#[derive(Debug, Args)]
pub(super) struct ReloadArguments {
    #[command(flatten)]
    server: ServerArguments,
    #[command(flatten)]
    force: Force,
}

#[derive(Debug, Args)]
pub(super) struct ApplyArguments {
    #[command(flatten)]
    server: ServerArguments,
    /// Take the change back after this time (30s, 10m) unless `foobar confirm` keeps it. The kernel takes the rules back by
    /// itself, also when the agent is dead; the agent takes back the rest, and restarts what it had restarted.
    #[arg(long, value_parser = ttl::parse, value_name = "TIME")]
    confirm: Option<Duration>,
    #[command(flatten)]
    force: Force,
}

#[derive(Debug, Args)]
pub(super) struct Force {
    /// Apply it even when it cuts the ssh connection by which you are here.
    #[arg(long)]
    force: bool,
}

impl Force {
    /// Who asks.
    pub(super) fn admin(&self) -> Admin {
        Admin { connection: ssh::connection(), force: self.force }
    }
}

pub(super) fn reload(arguments: &ReloadArguments) -> Result<()> {
    put(&arguments.server, &arguments.force, None)
}

pub(super) fn apply(arguments: &ApplyArguments) -> Result<()> {
    put(&arguments.server, &arguments.force, arguments.confirm)
}

fn put(server: &ServerArguments, force: &Force, confirm: Option<Duration>) -> Result<()> {
    let confirm_ms = confirm.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    let applied: Applied = server.ask(&Command::Apply(Apply { confirm_ms, admin: force.admin() }))?;
    let (name, generation) = (&server.server, applied.generation);
    println!("{name}: the site file is in force as generation {generation}");
    if let Some(left) = applied.left() {
        println!(
            "It is taken back in {} unless you run `foobar confirm --server {name}`: try first whether you still get in.",
            ttl::format(left)
        );
    }
    Ok(())
}

pub(super) fn confirm(server: &ServerArguments) -> Result<()> {
    let applied: Applied = server.ask(&Command::Confirm)?;
    println!("{}: generation {} stays in force", server.server, applied.generation);
    Ok(())
}

pub(super) fn revert(server: &ServerArguments) -> Result<()> {
    let generation: u32 = server.ask(&Command::Revert)?;
    println!("{}: taken back; the site as it was before is in force as generation {generation}", server.server);
    Ok(())
}
