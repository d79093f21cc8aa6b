//! This server's own PostgreSQL, looked at several times a second over its unix socket, and what it is told.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_postgres::{Client, NoTls};

use super::state::Role;
use super::sync::Standby;

/// Time between two looks.
const INTERVAL: Duration = Duration::from_millis(100);
/// Time that a look may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// Time between two looks at what changes seldom and costs more.
const SELDOM: Duration = Duration::from_secs(2);
/// Who has answered this lately is not silent.
const LATELY: Duration = Duration::from_millis(500);

const QUESTION: &str = "\
    select pg_is_in_recovery(), \
      (select system_identifier from pg_control_system()), \
      (select timeline_id from pg_control_checkpoint()), \
      (case when pg_is_in_recovery() \
        then greatest(coalesce(pg_last_wal_receive_lsn(), '0/0'), coalesce(pg_last_wal_replay_lsn(), '0/0')) \
        else pg_current_wal_flush_lsn() end - '0/0')::bigint, \
      (coalesce(pg_last_wal_replay_lsn(), '0/0') - '0/0')::bigint, \
      (select sender_host from pg_stat_wal_receiver where status = 'streaming'), \
      current_setting('synchronous_standby_names'), \
      (extract(epoch from pg_postmaster_start_time()) * 1000000)::bigint, \
      (select coalesce(array_agg(application_name order by pid), '{}') from pg_stat_replication where state = 'streaming'), \
      (select coalesce(array_agg((coalesce(flush_lsn, '0/0') - '0/0')::bigint order by pid), '{}') \
        from pg_stat_replication where state = 'streaming')";

/// Settings that were changed and are not in force.
const PENDING: &str = "select coalesce(array_agg(name order by name), '{}') from pg_settings where pending_restart";

/// Where PostgreSQL's unix socket is; root may log in there as `postgres`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socket {
    /// Its folder.
    pub folder: PathBuf,
    /// The port in its name.
    pub port: u16,
}

impl Socket {
    /// Logs in.
    ///
    /// # Errors
    /// PostgreSQL does not let us in, or is not there.
    pub async fn connect(&self) -> Result<Client, tokio_postgres::Error> {
        let mut config = tokio_postgres::Config::new();
        config.host_path(&self.folder).port(self.port).user("postgres").dbname("postgres").application_name("foobar");
        let (client, connection) = config.connect(NoTls).await?;
        // Ends with the client; its error is the client's error too.
        tokio::spawn(async move { drop(connection.await) });
        Ok(client)
    }

    /// Runs one statement on a connection of its own.
    ///
    /// # Errors
    /// What PostgreSQL said, or that it said nothing for as long as that.
    pub async fn run(&self, statement: &str, patience: Duration) -> Result<()> {
        let run = async {
            let client = self.connect().await?;
            // What does not wait for us must not wait for a replica either.
            client.batch_execute("set synchronous_commit = local").await?;
            client.batch_execute(statement).await
        };
        let what = || format!("PostgreSQL, asked for `{statement}`");
        timeout(patience, run).await.with_context(what)?.with_context(what)
    }
}

/// What PostgreSQL has said last.
#[derive(Clone, Debug)]
pub(super) struct Look {
    /// When.
    pub at: Instant,
    /// What it is: replica or primary.
    pub role: Role,
    /// Identifier of its cluster.
    pub cluster: u64,
    /// Timeline of its last checkpoint.
    pub timeline: u32,
    /// Where its log ends; in bytes.
    pub position: u64,
    /// How far a replica has replayed it; in bytes.
    pub replayed: u64,
    /// From where it receives the log; `None`: from nowhere.
    pub source: Option<IpAddr>,
    /// `synchronous_standby_names` in force.
    pub names: String,
    /// When it was started, in microseconds of Unix time.
    pub started: i64,
    /// Who streams from it.
    pub standbys: Vec<Standby>,
    /// Settings that take effect at its next start.
    pub pending: Vec<String>,
}

/// The looks of a task that goes on by itself until it is dropped.
#[derive(Debug)]
pub(super) struct Watcher {
    looks: watch::Receiver<Option<Arc<Look>>>,
    /// When it began: until a first answer, silence counts from here.
    began: Instant,
    task: JoinHandle<()>,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watcher {
    pub(super) fn start(socket: Socket) -> Self {
        let (sender, looks) = watch::channel(None);
        let task = tokio::spawn(watch(socket, sender));
        Self { looks, began: Instant::now(), task }
    }

    /// The last answer, while it is not old.
    pub(super) fn look(&self) -> Option<Arc<Look>> {
        self.looks.borrow().clone().filter(|look| look.at.elapsed() < LATELY)
    }

    /// The last answer, however old.
    pub(super) fn last(&self) -> Option<Arc<Look>> {
        self.looks.borrow().clone()
    }

    /// For how long it has not answered.
    pub(super) fn silent(&self) -> Duration {
        let since = self.last().map_or(self.began, |look| look.at).elapsed();
        if since < LATELY { Duration::ZERO } else { since }
    }

    /// Wakes when it has answered.
    pub(super) async fn answered(&mut self) {
        if self.looks.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// A connection, with what was asked on it seldom.
struct Asked {
    client: Client,
    pending: Vec<String>,
    /// When.
    at: Option<Instant>,
}

async fn watch(socket: Socket, sender: watch::Sender<Option<Arc<Look>>>) {
    let mut kept: Option<Asked> = None;
    loop {
        let asked = async {
            let mut asked = match kept.take() {
                Some(asked) => asked,
                None => Asked { client: socket.connect().await?, pending: Vec::new(), at: None },
            };
            ask(&mut asked).await.map(|look| (asked, look))
        };
        if let Ok(Ok((asked, look))) = timeout(PATIENCE, asked).await {
            kept = Some(asked);
            sender.send_replace(Some(Arc::new(look)));
        }
        sleep(INTERVAL).await;
    }
}

async fn ask(asked: &mut Asked) -> Result<Look, tokio_postgres::Error> {
    let at = Instant::now();
    let client = &asked.client;
    if asked.at.is_none_or(|at| at.elapsed() >= SELDOM) {
        asked.pending = client.query_one(PENDING, &[]).await?.try_get(0)?;
        asked.at = Some(at);
    }
    let row = client.query_one(QUESTION, &[]).await?;
    let unsigned = |number: i64| u64::try_from(number).unwrap_or_default();
    let (names, flushed): (Vec<String>, Vec<i64>) = (row.try_get(8)?, row.try_get(9)?);
    let standbys = names.into_iter().zip(flushed).map(|(name, flushed)| Standby { name, flushed: unsigned(flushed) });
    let source: Option<&str> = row.try_get(5)?;
    Ok(Look {
        at,
        role: if row.try_get(0)? { Role::Replica } else { Role::Primary },
        // The identifier is a 64-bit number without a sign, which SQL has not.
        cluster: row.try_get::<_, i64>(1)?.cast_unsigned(),
        timeline: u32::try_from(row.try_get::<_, i32>(2)?).unwrap_or_default(),
        position: unsigned(row.try_get(3)?),
        replayed: unsigned(row.try_get(4)?),
        source: source.and_then(|host| host.parse().ok()),
        names: row.try_get(6)?,
        started: row.try_get(7)?,
        standbys: standbys.collect(),
        pending: asked.pending.clone(),
    })
}
