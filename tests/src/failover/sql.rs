//! PostgreSQL of the bed, asked over its unix socket as its owner; and what writers write into.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::process;

/// Makes the table of the writers.
pub(crate) const TABLE: &str = "create table acknowledged (writer bigint, number bigint, primary key (writer, number))";

/// Runs a statement on the PostgreSQL whose socket is in this folder.
///
/// # Errors
/// What PostgreSQL says.
pub(crate) fn run(socket: &Path, statement: &str) -> Result<String> {
    process::run(&mut session(socket, &[statement]))
}

/// The same in another database.
///
/// # Errors
/// What PostgreSQL says.
pub(crate) fn run_in(socket: &Path, database: &str, statement: &str) -> Result<String> {
    process::run(&mut session_in(socket, database, &[statement]))
}

/// A session that runs these statements, one after the other.
pub(crate) fn session(socket: &Path, statements: &[&str]) -> Command {
    session_in(socket, "guestbook", statements)
}

fn session_in(socket: &Path, database: &str, statements: &[&str]) -> Command {
    let mut psql = Command::new("/usr/lib/postgresql/15/bin/psql");
    psql.args(["-qAtX", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", database, "-h"]).arg(socket);
    psql.args(statements.iter().flat_map(|statement| ["-c", statement]));
    psql
}

/// Rows of the writers that are there.
///
/// # Errors
/// It cannot be asked.
pub(crate) fn present(socket: &Path) -> Result<BTreeSet<(i64, i64)>> {
    let text = run(socket, "select writer, number from acknowledged")?;
    let row = |line: &str| {
        let (writer, number) = line.split_once('|').context("no row")?;
        Ok((writer.parse()?, number.parse()?))
    };
    text.lines().map(row).collect()
}
