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
    run_in(socket, "guestbook", statement)
}

/// The same in another database.
///
/// # Errors
/// What PostgreSQL says.
pub(crate) fn run_in(socket: &Path, database: &str, statement: &str) -> Result<String> {
    let mut psql = Command::new("/usr/lib/postgresql/15/bin/psql");
    psql.args(["-qAtX", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", database, "-h"]).arg(socket);
    process::run(psql.args(["-c", statement]))
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
