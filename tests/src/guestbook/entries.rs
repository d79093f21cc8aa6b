//! The entries in the database: the table, reading and writing.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::time::timeout;
use tokio_postgres::{Client, Config};

use super::pool::{Away, Pool};

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Entry {
    pub(super) id: i64,
    pub(super) author: String,
    pub(super) message: String,
    /// When it was written, UTC, ISO 8601.
    pub(super) written: String,
}

/// The newest entries, and who answered.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Listing {
    /// Address of the database server that answered.
    pub(super) database: String,
    /// Number of all entries.
    pub(super) total: i64,
    /// The newest, newest first.
    pub(super) entries: Vec<Entry>,
}

/// The two ways to the database.
#[derive(Debug)]
pub(super) struct Entries {
    write: Arc<Pool>,
    read: Arc<Pool>,
}

impl Entries {
    pub(super) fn new(write: Config, read: Config) -> Self {
        Self { write: Pool::new(write), read: Pool::new(read) }
    }

    /// The newest entries. Reading twice harms nobody, so a failure is tried once more, over a new connection.
    pub(super) async fn list(&self) -> Result<Listing, Away> {
        match self.read_once().await {
            Err(Away::Database(_) | Away::Timeout) => {
                self.read.forget();
                self.read_once().await
            }
            other => other,
        }
    }

    /// Writes an entry. Never tried twice: a lost answer may stand for a commit.
    pub(super) async fn add(&self, author: &str, message: &str) -> Result<(), Away> {
        let lease = self.write.lease().await?;
        match in_time(lease.client.execute(INSERT, &[&author, &message])).await {
            Ok(_) => {
                lease.put_back();
                Ok(())
            }
            Err(error) => {
                self.write.forget();
                Err(error)
            }
        }
    }

    /// Makes the table, unless it exists.
    pub(super) async fn create_table(&self) -> Result<(), Away> {
        let lease = self.write.lease().await?;
        in_time(lease.client.batch_execute(TABLE)).await?;
        lease.put_back();
        Ok(())
    }

    async fn read_once(&self) -> Result<Listing, Away> {
        let lease = self.read.lease().await?;
        let listing = in_time(select(&lease.client)).await?;
        lease.put_back();
        Ok(listing)
    }
}

async fn select(client: &Client) -> Result<Listing, tokio_postgres::Error> {
    let about = client.query_one(ABOUT, &[]).await?;
    let newest = client.query(NEWEST, &[]).await?;
    let entries = newest.iter().map(|row| {
        Ok(Entry { id: row.try_get(0)?, author: row.try_get(1)?, message: row.try_get(2)?, written: row.try_get(3)? })
    });
    Ok(Listing { database: about.try_get(0)?, total: about.try_get(1)?, entries: entries.collect::<Result<_, _>>()? })
}

async fn in_time<T>(work: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T, Away> {
    Ok(timeout(QUERY_TIMEOUT, work).await.map_err(|_| Away::Timeout)??)
}

const TABLE: &str = "
    CREATE TABLE IF NOT EXISTS guestbook (
        id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        author  text NOT NULL,
        message text NOT NULL,
        written timestamptz NOT NULL DEFAULT now()
    )";
const INSERT: &str = "INSERT INTO guestbook (author, message) VALUES ($1, $2)";
const ABOUT: &str = "SELECT coalesce(host(inet_server_addr()), 'local'), (SELECT count(*) FROM guestbook)";
const NEWEST: &str = "
    SELECT id, author, message, to_char(written AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')
    FROM guestbook ORDER BY id DESC LIMIT 50";
const QUERY_TIMEOUT: Duration = Duration::from_millis(2500);
