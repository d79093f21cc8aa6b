//! Any program of the site: its files written, then started as the plan says.

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use super::account::Account;
use super::launch::Launch;
use super::spec::signal_named;
use super::templates;
use crate::plan::{ProcessKind, ProcessPlan};

/// Account of commands for which the plan names none.
const ACCOUNT: &str = "nobody";

/// The account that a command runs as.
pub(super) fn account(plan: &ProcessPlan) -> Result<Account> {
    Account::named(plan.user.as_deref().unwrap_or(ACCOUNT))
}

/// Writes the command's files and says how to start it.
pub(super) fn configure(plan: &ProcessPlan) -> Result<Launch> {
    let ProcessKind::Command { command, environment, folder, files, reload_signal } = &plan.kind else {
        bail!("{} is no command: this is a bug", plan.name);
    };
    let (program, arguments) = command.split_first().context("the command is empty: name a program")?;
    let account = account(plan)?;
    if let Some(folder) = folder {
        if !folder.is_dir() {
            bail!("its folder {} does not exist: make it or correct `folder`", folder.display());
        }
        account.can_reach(folder)?;
    }
    let reload_signal = reload_signal.as_deref().map(signal_named).transpose()?;
    let configuration = templates::write(files, &account)?;
    Ok(Launch {
        program: program.into(),
        arguments: arguments.iter().map(Into::into).collect(),
        environment: environment.clone(),
        folder: folder.clone(),
        account: Some(account),
        stop_signal: Signal::SIGTERM,
        reload_signal,
        configuration,
        identity: String::new(),
    })
}
