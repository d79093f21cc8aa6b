//! Any program of the site: started as the plan says.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use super::account::Account;
use super::launch::Launch;

/// Account of commands for which the plan names none.
const ACCOUNT: &str = "nobody";

/// Says how to start the command.
pub(super) fn configure(
    user: Option<&str>,
    command: &[String],
    environment: BTreeMap<String, String>,
) -> Result<Launch> {
    let (program, arguments) = command.split_first().context("the command is empty: name a program")?;
    Ok(Launch {
        program: program.into(),
        arguments: arguments.iter().map(Into::into).collect(),
        environment,
        account: Some(Account::named(user.unwrap_or(ACCOUNT))?),
        stop_signal: Signal::SIGTERM,
        reload_signal: None,
        configuration: String::new(),
        identity: String::new(),
    })
}
