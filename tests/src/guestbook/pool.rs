//! A bounded pool of connections to one VIP. A connection is used by one request at a time; one that failed is not used again,
//! so the next request connects anew, and the kernel chooses a server that is alive. None lives long: the kernel chooses at
//! connect, and only new connections follow when servers come or change their roles.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;
use tokio_postgres::{Client, Config, NoTls};

/// Why the database gave nothing.
#[derive(Debug)]
pub(super) enum Away {
    /// No connection within the time.
    Timeout,
    /// All connections are in use.
    Busy,
    /// PostgreSQL's own error.
    Database(tokio_postgres::Error),
}

impl std::fmt::Display for Away {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Timeout => formatter.write_str("no answer in time"),
            Self::Busy => formatter.write_str("all connections are in use"),
            Self::Database(error) => match std::error::Error::source(error) {
                Some(source) => write!(formatter, "{error}: {source}"),
                None => write!(formatter, "{error}"),
            },
        }
    }
}

impl From<tokio_postgres::Error> for Away {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Database(error)
    }
}

/// The pool.
#[derive(Debug)]
pub(super) struct Pool {
    config: Config,
    idle: Mutex<Vec<Idle>>,
    permits: Semaphore,
}

#[derive(Debug)]
struct Idle {
    client: Client,
    born: Instant,
}

/// A connection, borrowed. It goes back only by [`Lease::put_back`].
#[derive(Debug)]
pub(super) struct Lease<'a> {
    pub(super) client: Client,
    born: Instant,
    pool: &'a Pool,
    _permit: SemaphorePermit<'a>,
}

impl Pool {
    pub(super) fn new(config: Config) -> Arc<Self> {
        Arc::new(Self { config, idle: Mutex::default(), permits: Semaphore::new(MAX_CONNECTIONS) })
    }

    /// A connection: an idle one, else a new one.
    pub(super) async fn lease(&self) -> Result<Lease<'_>, Away> {
        let permit = timeout(WAIT_TIMEOUT, self.permits.acquire()).await.map_err(|_| Away::Busy)?;
        let permit = permit.map_err(|_| Away::Busy)?;
        if let Some(Idle { client, born }) = self.take_idle() {
            return Ok(Lease { client, born, pool: self, _permit: permit });
        }
        let (client, connection) =
            timeout(CONNECT_TIMEOUT, self.config.connect(NoTls)).await.map_err(|_| Away::Timeout)??;
        // Its errors reach the client, which then counts as closed.
        tokio::spawn(async move { drop(connection.await) });
        Ok(Lease { client, born: Instant::now(), pool: self, _permit: permit })
    }

    /// Forgets idle connections: after a failure the others of the same server are likely dead, too.
    pub(super) fn forget(&self) {
        self.idle().clear();
    }

    fn take_idle(&self) -> Option<Idle> {
        let mut idle = self.idle();
        idle.retain(|idle| !idle.client.is_closed() && idle.born.elapsed() < MAX_LIFE);
        idle.pop()
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease<'_> {
    /// Gives the connection back after its work has succeeded.
    pub(super) fn put_back(self) {
        if !self.client.is_closed() {
            self.pool.idle().push(Idle { client: self.client, born: self.born });
        }
    }
}

const MAX_CONNECTIONS: usize = 8;
const WAIT_TIMEOUT: Duration = Duration::from_secs(1);
const CONNECT_TIMEOUT: Duration = Duration::from_millis(1500);
const MAX_LIFE: Duration = Duration::from_secs(10);
