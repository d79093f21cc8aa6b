//! PostgreSQL in single-user mode: one session on a data folder that nothing runs on, reached by nobody, by no network.

use anyhow::Result;

use super::super::launch;
use super::leader::helper;
use super::rewind::Here;

/// Log that is kept, in MiB: all. What a checkpoint of such a session removes, a rewind may need.
const KEEP_LOG: &str = "wal_keep_size=1000000000";
/// What the site may have set for its clients, and what must not end or forbid anything here; those of databases and roles do not count.
const UNBOUND: [&str; 3] = ["statement_timeout=0", "lock_timeout=0", "default_transaction_read_only=off"];

/// Runs statements, one after the other, also after one that fails, and stops in order; returns what PostgreSQL told.
///
/// # Errors
/// It cannot start on the data, or does not end in order.
pub(super) async fn session(here: &Here<'_>, database: &str, statements: &[&str]) -> Result<String> {
    let mut single = helper("postgres", here.account, here.around)?;
    let configuration = here.folder.join("postgresql.conf");
    single.args(["--single", "-F", "-D"]).arg(here.data);
    single.arg("-c").arg(format!("config_file={}", configuration.display()));
    single.args(["-c", KEEP_LOG, "-c", "log_min_error_statement=panic"]);
    single.args(UNBOUND.iter().flat_map(|setting| ["-c", setting])).arg(database);
    // A statement ends with its line.
    let lines: String = statements.iter().map(|statement| statement.replace('\n', " ") + "\n").collect();
    launch::fed(single, lines).await
}
