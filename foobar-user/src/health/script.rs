//! Script check: a program of the site's own says whether a backend is fit, by its exit code.

use std::net::SocketAddr;
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use nix::unistd::{Uid, User, geteuid};
use tokio::process::Command;

/// The account that it runs as: it needs no more than to ask.
const ACCOUNT: &str = "nobody";
/// Longest part of what it says that is told.
const SAID_MAX: usize = 200;

/// Runs a program once for each check.
pub(super) struct ScriptProbe {
    command: Vec<String>,
    server: String,
    address: SocketAddr,
}

impl ScriptProbe {
    pub(super) fn new(command: &[String], server: &str, address: SocketAddr) -> Self {
        Self { command: command.to_owned(), server: server.to_owned(), address }
    }

    /// Success is exit code 0; a program that is given up is killed.
    pub(super) async fn ask(&self) -> Result<()> {
        let (program, arguments) = self.command.split_first().context("the check has no program")?;
        let mut command = Command::new(program);
        command.args(arguments).env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin");
        command.env("FOOBAR_SERVER", &self.server).env("FOOBAR_ADDRESS", self.address.ip().to_string());
        command.env("FOOBAR_PORT", self.address.port().to_string());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        if let Some(uid) = account()? {
            command.uid(uid.as_raw());
        }
        let output = command.output().await.with_context(|| format!("cannot run {program}"))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let last: String = said.lines().last().unwrap_or_default().chars().take(SAID_MAX).collect();
            bail!("{program} ended with {}{}{last}", output.status, if last.is_empty() { "" } else { ": " });
        }
        Ok(())
    }
}

/// Who runs it; `None`: who is no superuser cannot choose.
fn account() -> Result<Option<Uid>> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    let user = User::from_name(ACCOUNT).context("cannot look up accounts")?;
    Ok(Some(user.with_context(|| format!("there is no account `{ACCOUNT}` to run checks"))?.uid))
}
