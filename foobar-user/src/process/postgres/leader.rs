//! How a replica reaches its leader.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tokio::process::Command;

use super::super::account::Account;
use super::super::kind::Surroundings;
use super::super::{files, launch};
use super::{REPLICATOR, binary, folder, roles, tls};
use crate::plan::PostgresPlan;

/// A leader, with everything that is needed to log in to it as a replica.
#[derive(Debug)]
pub(super) struct Leader {
    /// Its server's name.
    pub(super) name: String,
    /// This server's name.
    server: String,
    /// What libpq is told, without a database.
    pub(super) connection: String,
    /// This server's slot there.
    pub(super) slot: String,
}

impl Leader {
    pub(super) fn new(
        name: &str,
        address: IpAddr,
        plan: &PostgresPlan,
        account: &Account,
        around: &Surroundings,
    ) -> Result<Self> {
        let folder = folder(&around.folders);
        let passfile = write_passfile(plan, &folder, account)?;
        let mut connection = format!(
            "host={address} port={} user={REPLICATOR} passfile={} connect_timeout=3",
            plan.port,
            quote(utf8(&passfile)?)
        );
        if plan.tls.is_some() {
            let paths = tls::Paths::of(&folder);
            for (key, path) in [("sslrootcert", paths.ca), ("sslcert", paths.certificate), ("sslkey", paths.key)] {
                connection.push_str(&format!(" {key}={}", quote(utf8(&path)?)));
            }
            connection.push_str(" sslmode=verify-full");
        }
        Ok(Self { name: name.to_owned(), server: plan.server.clone(), connection, slot: slot(&plan.server) })
    }

    /// What a replica is told: by this name its leader waits for it. Tools that copy do not bear it, whose log is no replica's.
    pub(super) fn named(&self) -> String {
        format!("{} application_name={}", self.connection, quote(&self.server))
    }

    /// Takes this server's slot: from now on the leader keeps what a copy will lack. Fails at once while it is not there.
    pub(super) async fn reserve(&self, account: &Account, around: &Surroundings) -> Result<()> {
        let mut reserve = helper("pg_receivewal", account, around)?;
        let options = ["--create-slot", "--if-not-exists", "--no-password", "--slot", &self.slot, "-d"];
        reserve.args(options).arg(&self.connection);
        launch::run(reserve).await
    }

    /// Whether it has thrown away what its slot was to keep.
    pub(super) async fn has_lost_log(&self, account: &Account, around: &Surroundings) -> Result<bool> {
        let question = format!("select wal_status from pg_replication_slots where slot_name = '{}'", self.slot);
        let mut psql = helper("psql", account, around)?;
        psql.args(["--no-psqlrc", "-qAt", "--no-password", "-c", &question, "-d"]).arg(self.database());
        let output = psql.output().await.context("cannot run psql")?;
        anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(String::from_utf8_lossy(&output.stdout).trim() == "lost")
    }

    /// Gives the slot up.
    pub(super) async fn release(&self, account: &Account, around: &Surroundings) -> Result<()> {
        self.run(&format!("select pg_drop_replication_slot('{}')", self.slot), account, around).await
    }

    /// Runs a statement there.
    pub(super) async fn run(&self, statement: &str, account: &Account, around: &Surroundings) -> Result<()> {
        let mut psql = helper("psql", account, around)?;
        psql.args(["--no-psqlrc", "--quiet", "--no-password", "-c", statement, "-d"]).arg(self.database());
        launch::run(psql).await
    }

    /// Whether it is there, and answers.
    pub(super) async fn answers(&self, account: &Account, around: &Surroundings) -> bool {
        self.run("select 1", account, around).await.is_ok()
    }

    /// What libpq is told for the database `postgres`.
    pub(super) fn database(&self) -> String {
        format!("{} dbname=postgres", self.connection)
    }
}

/// A program of PostgreSQL's, run to its end.
pub(super) fn helper(program: &str, account: &Account, around: &Surroundings) -> Result<Command> {
    launch::helper(&binary(program)?, Some(account), &around.cgroup)
}

/// The password for libpq, readable to the account alone: replication reads it again at every connection.
fn write_passfile(plan: &PostgresPlan, folder: &Path, account: &Account) -> Result<PathBuf> {
    let password = roles::read_password(&plan.replication_password_file)?;
    let path = folder.join("replication.pass");
    let escaped = password.replace('\\', "\\\\").replace(':', "\\:");
    files::write_if_changed(&path, &format!("*:*:*:{REPLICATOR}:{escaped}\n"), 0o600, Some(account))?;
    Ok(path)
}

fn utf8(path: &Path) -> Result<&str> {
    path.to_str().context("the state folder's path is not UTF-8: choose another --state-dir")
}

fn quote(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// What the names of all slots of the site's servers begin with: others are somebody else's.
pub(crate) const SLOTS: &str = "foobar_";

/// A slot's name for a server: letters, digits and underscores.
#[must_use]
pub(crate) fn slot(server: &str) -> String {
    let word = |letter: char| if letter.is_ascii_alphanumeric() { letter.to_ascii_lowercase() } else { '_' };
    SLOTS.chars().chain(server.chars().map(word)).collect()
}

#[cfg(test)]
mod tests {
    use super::slot;

    #[test]
    fn slots_are_named_after_servers() {
        assert_eq!(slot("db-2.Rack"), "foobar_db_2_rack");
    }
}
