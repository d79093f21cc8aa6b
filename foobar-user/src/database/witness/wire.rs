//! What goes over the wire: one line a request, one line an answer.

use anyhow::{Context, Result, ensure};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::database::state::{Member, State};
use crate::database::store::Snapshot;

/// Bytes of a line at the most.
const LINE_MAX: u64 = 64 << 10;

/// What a database server asks.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Request {
    /// Everything.
    Read,
    /// To swap.
    Swap {
        /// The version that it must have.
        version: (u64, u64),
        /// The state.
        state: State,
    },
    /// To keep the asker's word.
    Tell(Member),
}

/// What it is answered.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer {
    /// Everything.
    Snapshot(Snapshot),
    /// The new version; `None`: it had another one.
    Swapped(Option<(u64, u64)>),
    /// Kept.
    Told,
    /// Refused.
    Refused(String),
}

/// Sends one line.
pub(super) async fn send(stream: &mut (impl AsyncWrite + Unpin), message: &impl Serialize) -> Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    stream.flush().await?;
    Ok(())
}

/// Receives one line; `None` at an orderly end.
pub(super) async fn receive<T: DeserializeOwned>(stream: &mut (impl AsyncBufRead + Unpin)) -> Result<Option<T>> {
    let mut line = Vec::new();
    stream.take(LINE_MAX).read_until(b'\n', &mut line).await?;
    if line.is_empty() {
        return Ok(None);
    }
    ensure!(line.ends_with(b"\n"), "a line that does not end, or is longer than {LINE_MAX} bytes");
    serde_json::from_slice(&line).map(Some).context("a line that is no message")
}
