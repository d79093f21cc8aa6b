//! Metrics of PostgreSQL, asked over its unix socket on a connection that is kept between scrapes.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls};

use super::unix::{self, SOURCE_DEADLINE_MS};
use super::{encode, names};

/// Where PostgreSQL listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Folder of its unix socket.
    pub socket_dir: PathBuf,
    /// Its port, which is in the socket's name.
    pub port: u16,
}

/// PostgreSQL's own numbers; `None`: it does not answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Postgres(pub Option<Status>);

/// One reading of PostgreSQL.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Status {
    /// It is a replica.
    pub in_recovery: bool,
    /// On a replica: it streams from its primary.
    pub receiving: bool,
    /// On a replica: age of the last replayed transaction while received log waits.
    pub lag_seconds: f64,
    /// The most connections it accepts.
    pub connections_limit: u64,
    /// Settings that were changed and take effect at its next start.
    pub pending_restart: u64,
    /// Clients' connections by state.
    pub connections: Vec<(String, u64)>,
    /// Committed and rolled back transactions.
    pub transactions: [u64; 2],
    /// Rows returned, fetched, inserted, updated and deleted.
    pub tuples: [u64; 5],
    /// Size of each database in bytes.
    pub databases: Vec<(String, u64)>,
    /// On the primary: bytes of log that each replica has yet to replay.
    pub replicas: Vec<(String, u64)>,
}

const RESULTS: [&str; 2] = ["commit", "rollback"];
const OPERATIONS: [&str; 5] = ["returned", "fetched", "inserted", "updated", "deleted"];

const SERVER: &str = "\
    SELECT pg_is_in_recovery(), \
      EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming'), \
      CASE WHEN pg_is_in_recovery() AND pg_last_wal_receive_lsn() IS DISTINCT FROM pg_last_wal_replay_lsn() \
        THEN coalesce(greatest(extract(epoch FROM now() - pg_last_xact_replay_timestamp()), 0), 0) \
        ELSE 0 END::float8, \
      current_setting('max_connections')::bigint, \
      (SELECT count(*) FROM pg_settings WHERE pending_restart), \
      sum(xact_commit)::bigint, sum(xact_rollback)::bigint, sum(tup_returned)::bigint, sum(tup_fetched)::bigint, \
      sum(tup_inserted)::bigint, sum(tup_updated)::bigint, sum(tup_deleted)::bigint \
    FROM pg_stat_database";

/// States are a closed set: what the server may add later is `other`.
const CONNECTIONS: &str = "\
    SELECT wanted.state, count(activity.pid) \
    FROM (VALUES ('active'), ('idle'), ('idle_in_transaction'), ('other')) AS wanted (state) \
    LEFT JOIN (SELECT pid, CASE WHEN state IN ('active', 'idle') THEN state \
                 WHEN state LIKE 'idle in transaction%' THEN 'idle_in_transaction' ELSE 'other' END AS state \
               FROM pg_stat_activity WHERE backend_type = 'client backend') AS activity USING (state) \
    GROUP BY 1";

const DATABASES: &str = "\
    SELECT datname::text, pg_database_size(oid) FROM pg_database WHERE NOT datistemplate ORDER BY oid LIMIT 16";

/// `max`: a replica that reconnects may for a moment be there twice.
const REPLICAS: &str = "\
    SELECT application_name, greatest(max(pg_wal_lsn_diff( \
      CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn() ELSE pg_current_wal_lsn() END, replay_lsn)), 0)::bigint \
    FROM pg_stat_replication WHERE replay_lsn IS NOT NULL GROUP BY 1 ORDER BY 1 LIMIT 16";

/// Reads one PostgreSQL, and keeps the connection.
#[derive(Debug)]
pub struct Exporter {
    target: Target,
    connection: Mutex<Option<Connection>>,
}

#[derive(Debug)]
struct Connection {
    client: Client,
    task: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Exporter {
    /// An exporter that is not connected yet.
    pub fn new(target: Target) -> Self {
        Self { target, connection: Mutex::default() }
    }

    /// Where it connects to.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Asks PostgreSQL; a failure is `up 0`, never a failed scrape.
    pub async fn read(&self) -> Postgres {
        let mut kept = self.connection.lock().await;
        // Taken out, so that a connection that failed or was late is dropped and the next scrape makes a new one.
        let previous = kept.take().filter(|connection| !connection.client.is_closed());
        let answer = async {
            let connection = match previous {
                Some(connection) => connection,
                None => self.connect().await?,
            };
            let status = query(&connection.client).await?;
            Ok((connection, status))
        };
        match unix::in_time(answer).await {
            Ok((connection, status)) => {
                *kept = Some(connection);
                Postgres(Some(status))
            }
            Err(error) => {
                let folder = self.target.socket_dir.display();
                tracing::debug!("metrics: PostgreSQL at {folder} does not tell its status: {error:#}");
                Postgres(None)
            }
        }
    }

    async fn connect(&self) -> anyhow::Result<Connection> {
        let (client, connection) = tokio_postgres::Config::new()
            .host_path(&self.target.socket_dir)
            .port(self.target.port)
            .user("postgres")
            .dbname("postgres")
            .application_name("foobar metrics")
            // The server, too, gives up: a late answer must not go on using it.
            .options(format!("-c statement_timeout={SOURCE_DEADLINE_MS}"))
            .connect_timeout(Duration::from_millis(SOURCE_DEADLINE_MS))
            .connect(NoTls)
            .await?;
        let task = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!("metrics: the connection to PostgreSQL ended: {error}");
            }
        });
        Ok(Connection { client, task })
    }
}

async fn query(client: &Client) -> anyhow::Result<Status> {
    // On one connection the four are pipelined.
    let (server, connections, databases, replicas) = tokio::try_join!(
        client.query_typed(SERVER, &[]),
        client.query_typed(CONNECTIONS, &[]),
        client.query_typed(DATABASES, &[]),
        client.query_typed(REPLICAS, &[]),
    )?;
    let row = server.first().ok_or_else(|| anyhow::anyhow!("pg_stat_database is empty"))?;
    let counter =
        |column: usize| row.try_get::<_, Option<i64>>(column).map(|value| unsigned(value.unwrap_or_default()));
    let mut status = Status {
        in_recovery: row.try_get(0)?,
        receiving: row.try_get(1)?,
        lag_seconds: row.try_get(2)?,
        connections_limit: counter(3)?,
        pending_restart: counter(4)?,
        connections: pairs(&connections)?,
        databases: pairs(&databases)?,
        replicas: pairs(&replicas)?,
        ..Status::default()
    };
    for (column, value) in status.transactions.iter_mut().chain(&mut status.tuples).enumerate() {
        *value = counter(5 + column)?;
    }
    Ok(status)
}

fn pairs(rows: &[tokio_postgres::Row]) -> anyhow::Result<Vec<(String, u64)>> {
    rows.iter().map(|row| Ok((row.try_get(0)?, unsigned(row.try_get(1)?)))).collect()
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or_default()
}

impl Collector for Postgres {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        encode::gauge(encoder, &names::POSTGRES_UP, [([], u64::from(self.0.is_some()))])?;
        let Some(status) = &self.0 else { return Ok(()) };
        encode::gauge(encoder, &names::POSTGRES_IN_RECOVERY, [([], u64::from(status.in_recovery))])?;
        encode::gauge(encoder, &names::POSTGRES_CONNECTIONS_LIMIT, [([], status.connections_limit)])?;
        encode::gauge(encoder, &names::POSTGRES_PENDING_RESTART, [([], status.pending_restart)])?;
        let connections = status.connections.iter().map(|(state, n)| ([state.as_str()], *n));
        encode::gauge(encoder, &names::POSTGRES_CONNECTIONS, connections)?;
        let transactions = RESULTS.iter().zip(status.transactions).map(|(result, n)| ([*result], n));
        encode::counter(encoder, &names::POSTGRES_TRANSACTIONS, transactions)?;
        let tuples = OPERATIONS.iter().zip(status.tuples).map(|(operation, n)| ([*operation], n));
        encode::counter(encoder, &names::POSTGRES_TUPLES, tuples)?;
        let databases = status.databases.iter().map(|(database, bytes)| ([database.as_str()], *bytes));
        encode::gauge(encoder, &names::POSTGRES_DATABASE_SIZE, databases)?;
        if status.in_recovery {
            encode::gauge(encoder, &names::POSTGRES_LAG_SECONDS, [([], status.lag_seconds)])?;
            encode::gauge(encoder, &names::POSTGRES_RECEIVING, [([], u64::from(status.receiving))])
        } else {
            let replicas = status.replicas.iter().map(|(replica, bytes)| ([replica.as_str()], *bytes));
            encode::gauge(encoder, &names::POSTGRES_LAG_BYTES, replicas)
        }
    }
}
