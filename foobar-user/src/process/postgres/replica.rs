//! The first start of a replica: wait for the primary, take a slot there, copy it.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::process::Command;
use tokio::time::sleep;

use super::super::account::Account;
use super::super::board::ProcessState;
use super::super::kind::Surroundings;
use super::super::{files, launch};
use super::{REPLICATOR, binary, folder, roles};
use crate::plan::PostgresPlan;

/// Time between two tries to copy the primary, in milliseconds.
const RETRY_MS: u64 = 500;

/// Copies the primary to `new`; waits for it as long as it takes.
pub(super) async fn copy_primary(
    plan: &PostgresPlan,
    new: &Path,
    account: &Account,
    around: &Surroundings,
) -> Result<()> {
    let primary = format!("{} ({}:{})", plan.primary, plan.primary_address, plan.port);
    loop {
        let Err(error) = try_copy(plan, new, account, around).await else { return Ok(()) };
        let message = format!("waiting for the primary {primary}: {error:#}");
        around.reporter.state(ProcessState::Waiting, Some(message));
        sleep(Duration::from_millis(RETRY_MS)).await;
    }
}

async fn try_copy(plan: &PostgresPlan, new: &Path, account: &Account, around: &Surroundings) -> Result<()> {
    super::cluster::discard(new)?;
    let passfile = write_passfile(plan, account, around)?;
    let slot = slot(&plan.server);
    let connection = connection(plan, &passfile)?;

    // The slot first: from now on the primary keeps what the copy will lack. Fails at once while it is not there.
    let mut reserve = helper("pg_receivewal", account, around)?;
    reserve.args(["--create-slot", "--if-not-exists", "--no-password", "--slot", &slot, "-d", &connection]);
    launch::run(reserve).await?;

    around.reporter.state(ProcessState::Starting, Some(format!("copying the primary {}", plan.primary)));
    let mut copy = helper("pg_basebackup", account, around)?;
    copy.args(["--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast", "--no-password"]);
    copy.args(["--slot", &slot, "-d", &connection, "-D"]).arg(new);
    launch::run(copy).await
}

fn helper(program: &str, account: &Account, around: &Surroundings) -> Result<Command> {
    launch::helper(&binary(program)?, Some(account), &around.cgroup)
}

/// The password for libpq, readable to the account alone: replication reads it again at every connection.
fn write_passfile(plan: &PostgresPlan, account: &Account, around: &Surroundings) -> Result<std::path::PathBuf> {
    let password = roles::read_password(&plan.replication_password_file)?;
    let path = folder(&around.folders).join("replication.pass");
    let escaped = password.replace('\\', "\\\\").replace(':', "\\:");
    files::write_if_changed(&path, &format!("*:*:*:{REPLICATOR}:{escaped}\n"), 0o600, Some(account))?;
    Ok(path)
}

/// What libpq is told; `pg_basebackup` copies it to the replica's `primary_conninfo`.
fn connection(plan: &PostgresPlan, passfile: &Path) -> Result<String> {
    let passfile = passfile.to_str().context("the state folder's path is not UTF-8: choose another --state-dir")?;
    let quote = |value: &str| format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"));
    Ok(format!(
        "host={} port={} user={REPLICATOR} application_name={} passfile={} connect_timeout=5",
        plan.primary_address,
        plan.port,
        quote(&plan.server),
        quote(passfile)
    ))
}

/// A slot's name for a server: letters, digits and underscores.
fn slot(server: &str) -> String {
    server
        .chars()
        .map(|letter| if letter.is_ascii_alphanumeric() { letter.to_ascii_lowercase() } else { '_' })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::slot;

    #[test]
    fn slots_are_named_after_servers() {
        assert_eq!(slot("db-2.Rack"), "db_2_rack");
    }
}
