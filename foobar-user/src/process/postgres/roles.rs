//! Roles and database of the site on a primary: made when missing, passwords set from their files.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use tokio_postgres::Client;

use super::REPLICATOR;
use crate::plan::PostgresPlan;

/// What a replica needs to rewind: to read the leader's files, and to have it write a checkpoint first.
const REWIND_RIGHTS: &str = "\
    grant execute on function pg_ls_dir(text, boolean, boolean), pg_stat_file(text, boolean), \
      pg_read_binary_file(text), pg_read_binary_file(text, bigint, bigint, boolean) to replicator; \
    grant pg_checkpoint to replicator";

/// Makes what is missing; may be repeated.
pub(super) async fn ensure(client: &Client, plan: &PostgresPlan) -> Result<()> {
    let password = read_password(&plan.password_file)?;
    let replication = read_password(&plan.replication_password_file)?;
    // A failing statement is logged with its text, and these bear passwords. Replicas, who may be waited for, need them to come.
    client
        .batch_execute("set log_min_error_statement = panic; set log_statement = none; set synchronous_commit = local")
        .await?;
    ensure_role(client, &plan.user, "login", &password).await?;
    ensure_role(client, REPLICATOR, "login replication", &replication).await?;
    client.batch_execute(REWIND_RIGHTS).await.context("cannot let replicas rewind")?;
    let known = client.query_opt("select 1 from pg_database where datname = $1", &[&plan.database]).await?;
    if known.is_none() {
        let statement = format!("create database {} owner {}", identifier(&plan.database), identifier(&plan.user));
        client
            .batch_execute(&statement)
            .await
            .with_context(|| format!("cannot make the database {}", plan.database))?;
    }
    Ok(())
}

async fn ensure_role(client: &Client, name: &str, rights: &str, password: &str) -> Result<()> {
    let known = client.query_opt("select 1 from pg_roles where rolname = $1", &[&name]).await?;
    let verb = if known.is_some() { "alter" } else { "create" };
    let statement = format!("{verb} role {} {rights} password {}", identifier(name), literal(password));
    client.batch_execute(&statement).await.with_context(|| format!("cannot {verb} the role {name}"))
}

/// Reads a password: the file's first line.
pub(super) fn read_password(path: &Path) -> Result<String> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read the password file {}", path.display()))?;
    match text.lines().next() {
        Some(line) if !line.is_empty() && !line.contains('\0') => Ok(line.to_owned()),
        _ => bail!("the password file {} has no password in its first line", path.display()),
    }
}

fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn literal(text: &str) -> String {
    // E'' so that backslashes mean the same whatever standard_conforming_strings is.
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_passwords_cannot_leave_their_quotes() {
        assert_eq!(identifier("a\"b"), "\"a\"\"b\"");
        assert_eq!(literal("a'b\\c"), "E'a''b\\\\c'");
    }
}
