//! PostgreSQL check: a log-in succeeds and the server tells its role; the connection is kept.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, NoTls};

use super::{DatabaseRole, probe};

/// Role, position in the log, and lag as a replica knows it: who has replayed all it received is not late, however old its
/// last transaction.
const QUESTION: &str = "select pg_is_in_recovery(), \
     coalesce(pg_wal_lsn_diff(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()), 0)::bigint, \
     case when pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() then 0 \
     else coalesce(extract(epoch from clock_timestamp() - pg_last_xact_replay_timestamp()), 0) end::float8, \
     coalesce(pg_wal_lsn_diff(case when pg_is_in_recovery() then pg_last_wal_replay_lsn() \
     else pg_current_wal_lsn() end, '0/0'), 0)::bigint";

/// What a database server said.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Said {
    /// Its role, with its lag as far as it knows itself.
    pub(super) role: DatabaseRole,
    /// Where its log ends, or up to where it has replayed its primary's; in bytes.
    pub(super) position: i64,
}

/// Checks one address by logging in to PostgreSQL.
pub(super) struct PostgresProbe {
    address: SocketAddr,
    database: String,
    user: String,
    password_file: PathBuf,
    session: Option<Session>,
}

struct Session {
    client: Client,
    connection: JoinHandle<()>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl PostgresProbe {
    pub(super) fn new(address: SocketAddr, database: &str, user: &str, password_file: &Path) -> Self {
        Self {
            address,
            database: database.to_owned(),
            user: user.to_owned(),
            password_file: password_file.to_owned(),
            session: None,
        }
    }

    pub(super) fn forget(&mut self) {
        self.session = None;
    }

    pub(super) async fn ask(&mut self) -> Result<Said> {
        let session = match &mut self.session {
            Some(session) => session,
            None => {
                let session = self.log_in().await?;
                self.session.insert(session)
            }
        };
        let row = match session.client.query_one(QUESTION, &[]).await {
            Ok(row) => row,
            Err(error) => return Err(told(&error).context(format!("{} does not tell its role", self.address))),
        };
        let (lag_bytes, lag_seconds): (i64, f64) = (row.get(1), row.get(2));
        let role = match row.get(0) {
            true => DatabaseRole::Replica { lag_bytes: lag_bytes.max(0), lag_seconds: lag_seconds.max(0.0) },
            false => DatabaseRole::Primary,
        };
        Ok(Said { role, position: row.get(3) })
    }

    async fn log_in(&self) -> Result<Session> {
        let password = std::fs::read_to_string(&self.password_file)
            .with_context(|| format!("cannot read the password file {}", self.password_file.display()))?;
        let mut config = Config::new();
        config
            .user(&self.user)
            .dbname(&self.database)
            .password(password.lines().next().unwrap_or_default())
            .application_name("foobar-check");
        let stream = probe::connect(self.address).await?;
        let (client, connection) = config
            .connect_raw(stream, NoTls)
            .await
            .map_err(|error| told(&error).context(format!("cannot log in to {}", self.address)))?;
        // Its error is the client's error too.
        let connection = tokio::spawn(async move { drop(connection.await) });
        Ok(Session { client, connection })
    }
}

/// The server's own words, which the driver's error keeps to itself.
fn told(error: &tokio_postgres::Error) -> anyhow::Error {
    match error.as_db_error() {
        Some(said) => anyhow!("{}: {}", said.code().code(), said.message()),
        None => anyhow!("{error}"),
    }
}
