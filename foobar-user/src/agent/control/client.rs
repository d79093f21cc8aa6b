//! The other end of the control socket: how commands of the binary ask an agent.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::Command;
use crate::agent::folders::control_path;

/// Time in which an agent answers; a reload waits for processes that restart, a promotion for the longest of leases.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(90);

/// Asks the agent of a server for one value.
///
/// # Errors
/// No agent is running, or what it answered.
pub async fn ask<T: DeserializeOwned>(run_dir: &Path, server: &str, command: &Command) -> Result<T> {
    let mut conversation = Conversation::begin(run_dir, server, command).await?;
    let answer = timeout(ANSWER_TIMEOUT, conversation.end(|_| Ok(())))
        .await
        .with_context(|| format!("the agent of `{server}` does not answer: its log may tell why"))??;
    Ok(serde_json::from_value(answer)?)
}

/// Asks for a stream: `item` takes each of its items; the value at the end is returned, if the agent ends it.
///
/// # Errors
/// As [`ask`], and what `item` fails with.
pub async fn stream<T: DeserializeOwned>(
    run_dir: &Path,
    server: &str,
    command: &Command,
    item: impl FnMut(Value) -> Result<()>,
) -> Result<T> {
    let mut conversation = Conversation::begin(run_dir, server, command).await?;
    Ok(serde_json::from_value(conversation.end(item).await?)?)
}

struct Conversation {
    lines: Lines<BufReader<tokio::net::unix::OwnedReadHalf>>,
    /// Kept open: an agent takes a client that closes for one that has gone.
    _write: tokio::net::unix::OwnedWriteHalf,
}

impl Conversation {
    async fn begin(run_dir: &Path, server: &str, command: &Command) -> Result<Self> {
        let path = control_path(run_dir, server);
        let stream = UnixStream::connect(&path).await.with_context(|| {
            format!(
                "no agent of `{server}` answers at {}: is it running, and is this its --run-dir? The firewall it put in \
                 force stays in force without it",
                path.display()
            )
        })?;
        let (read, mut write) = stream.into_split();
        write.write_all(format!("{}\n", serde_json::to_string(command)?).as_bytes()).await?;
        Ok(Self { lines: BufReader::new(read).lines(), _write: write })
    }

    async fn end(&mut self, mut item: impl FnMut(Value) -> Result<()>) -> Result<Value> {
        while let Some(line) = self.lines.next_line().await? {
            let mut answer: Value = serde_json::from_str(&line).context("the agent answers what is no JSON")?;
            if let Some(error) = answer["error"].as_str() {
                bail!("{error}");
            }
            if let Some(value) = answer.get_mut("ok") {
                return Ok(value.take());
            }
            item(answer["item"].take())?;
        }
        bail!("the agent has ended")
    }
}
