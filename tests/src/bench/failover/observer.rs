//! Who looks when a replica becomes writable: a log-in of its own over the unix socket, the same for every contestant.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::runtime::Runtime;
use tokio::time::{sleep, timeout};
use tokio_postgres::{Client, NoTls};

use crate::failover::now_us;
use crate::progress::{Progress, check};

/// An open log-in.
#[derive(Debug)]
pub(super) struct Observer {
    socket: PathBuf,
    runtime: Runtime,
    client: Option<Client>,
}

impl Observer {
    /// Logs in.
    pub(super) fn at(socket: &Path) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let client = Some(runtime.block_on(log_in(socket))?);
        Ok(Self { socket: socket.to_owned(), runtime, client })
    }

    /// Waits until PostgreSQL is in recovery no more; when it was first seen so, in microseconds of the boot-time clock.
    pub(super) fn writable(&mut self, progress: &dyn Progress, deadline: Duration) -> Result<i64> {
        let (socket, client) = (&self.socket, &mut self.client);
        self.runtime.block_on(async {
            let began = Instant::now();
            while began.elapsed() < deadline {
                check(progress)?;
                // Whatever goes wrong, it logs in anew and goes on looking.
                match timeout(LOOK, is_replica(socket, client)).await {
                    Ok(Ok(false)) => return Ok(now_us()),
                    Ok(Ok(true)) => {}
                    Ok(Err(_)) | Err(_) => *client = None,
                }
                sleep(BREATH).await;
            }
            bail!("PostgreSQL at {} was not promoted within {} s", socket.display(), deadline.as_secs())
        })
    }
}

async fn is_replica(socket: &Path, client: &mut Option<Client>) -> Result<bool> {
    if client.is_none() {
        *client = Some(log_in(socket).await?);
    }
    let client = client.as_ref().context("no log-in")?;
    Ok(client.query_one("select pg_is_in_recovery()", &[]).await?.try_get(0)?)
}

async fn log_in(socket: &Path) -> Result<Client> {
    let mut config = tokio_postgres::Config::new();
    config.host_path(socket).user("postgres").dbname("postgres");
    let (client, connection) = config.connect(NoTls).await.context("the observer cannot log in")?;
    // Ends with the client; its error is the client's error too.
    tokio::spawn(async move { drop(connection.await) });
    Ok(client)
}

const LOOK: Duration = Duration::from_secs(1);
/// Time between two looks: how exactly the moment is known.
const BREATH: Duration = Duration::from_millis(5);
