//! The asking end: the member that answered last is asked first, and the next one when it does not.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::line::Line;
use super::wire::{self, Keys};
use crate::database::state::{Member, State};
use crate::database::store::{Snapshot, Store};
use crate::plan::{Endpoint, TlsFiles};

/// Time that one question may take, with everything: a part of a lease.
const PATIENCE: Duration = Duration::from_millis(400);
/// Members that are asked in that time, each for its share; the others have their turn at the next question.
const TRIES_MAX: usize = 3;

/// A database server's way to an etcd cluster.
#[derive(Debug)]
pub struct Client {
    endpoints: Vec<Endpoint>,
    keys: Keys,
    files: TlsFiles,
    way: Mutex<Way>,
}

#[derive(Debug, Default)]
struct Way {
    /// Which member is asked first.
    first: usize,
    /// The connection to it.
    kept: Option<Line>,
}

impl Client {
    /// A client that is not connected yet, of a site whose keys begin with `prefix`, which ends with a slash.
    #[must_use]
    pub fn new(endpoints: Vec<Endpoint>, prefix: String, files: TlsFiles) -> Self {
        Self { endpoints, keys: Keys::new(prefix), files, way: Mutex::default() }
    }

    /// Asks one member after the other. What is asked twice does no harm: a swap that was done fails when it is done again,
    /// and words are the same.
    async fn ask(&self, path: &str, question: Bytes) -> Result<Bytes> {
        // What is asked while the answer to an earlier question is still awaited waits as long as that.
        let mut way = self.way.lock().await;
        let began = Instant::now();
        let tries = self.endpoints.len().min(TRIES_MAX);
        let mut faults = Vec::new();
        for left in (1..=u32::try_from(tries)?).rev() {
            let endpoint = &self.endpoints[way.first % self.endpoints.len()];
            let share = PATIENCE.saturating_sub(began.elapsed()) / left;
            let asked = timeout(share, self.ask_one(endpoint, way.kept.take(), path, question.clone()));
            match asked.await.context("no answer in time").and_then(|answered| answered) {
                Ok((line, answer)) => {
                    way.kept = Some(line);
                    return Ok(answer);
                }
                Err(fault) => {
                    faults.push(format!("{endpoint}: {fault:#}"));
                    way.first = (way.first + 1) % self.endpoints.len();
                }
            }
        }
        bail!("etcd does not answer ({})", faults.join("; "))
    }

    async fn ask_one(
        &self,
        endpoint: &Endpoint,
        kept: Option<Line>,
        path: &str,
        question: Bytes,
    ) -> Result<(Line, Bytes)> {
        // The member may have been started anew since it was asked last.
        if let Some(mut line) = kept
            && let Ok(answer) = line.ask(path, question.clone()).await
        {
            return Ok((line, answer));
        }
        let mut line = Line::connect(endpoint, &self.files).await?;
        let answer = line.ask(path, question).await?;
        Ok((line, answer))
    }
}

impl Store for Client {
    async fn read(&self) -> Result<Snapshot> {
        self.keys.snapshot(&self.ask("/v3/kv/range", self.keys.read()).await?).context("etcd")
    }

    async fn swap(&self, (cluster, revision): (u64, u64), state: &State) -> Result<Option<(u64, u64)>> {
        let answer = self.ask("/v3/kv/txn", self.keys.swap(revision, state)?).await?;
        wire::swapped(cluster, &answer).context("etcd")
    }

    async fn tell(&self, server: &str, member: &Member) -> Result<()> {
        self.ask("/v3/kv/put", self.keys.tell(server, member)?).await.map(drop)
    }
}
