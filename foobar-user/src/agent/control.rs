//! The control socket: one request a connection, a JSON line each way. Only root can reach it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::Status;
use super::folders::control_path;

/// Longest request, in bytes.
const REQUEST_MAX_BYTES: u64 = 4096;
/// Time in which a request must be there.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
/// Time in which an agent answers; a reload waits for processes that restart.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// What can be asked of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "command")]
pub enum Command {
    /// What it is doing.
    Status,
    /// To read the site file again.
    Reload,
}

/// A request on its way to the agent's loop.
#[derive(Debug)]
pub enum Request {
    /// See [`Command::Status`].
    Status(oneshot::Sender<Arc<Status>>),
    /// See [`Command::Reload`]; answered with the generation in force.
    Reload(oneshot::Sender<Result<u32>>),
}

/// The listening socket; gone when it is dropped.
#[derive(Debug)]
pub struct Control {
    path: PathBuf,
    task: AbortHandle,
}

impl Drop for Control {
    fn drop(&mut self) {
        self.task.abort();
        fs::remove_file(&self.path).ok();
    }
}

impl Control {
    /// Listens at `path`; the caller holds the server's lock, so a socket that is there is dead.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn listen(path: &Path, requests: mpsc::Sender<Request>) -> Result<Self> {
        fs::remove_file(path).ok();
        let listener =
            UnixListener::bind(path).with_context(|| format!("cannot make the control socket {}", path.display()))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))
            .with_context(|| format!("cannot close {} to others", path.display()))?;
        let task = tokio::spawn(accept(listener, requests)).abort_handle();
        Ok(Self { path: path.to_owned(), task })
    }
}

async fn accept(listener: UnixListener, requests: mpsc::Sender<Request>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(answer(stream, requests.clone()))),
            // Out of descriptors: others must end first.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn answer(stream: UnixStream, requests: mpsc::Sender<Request>) {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    let mut reader = BufReader::new(read.take(REQUEST_MAX_BYTES));
    let Ok(Ok(_)) = timeout(REQUEST_TIMEOUT, reader.read_line(&mut line)).await else { return };
    let answer = match handle(&line, &requests).await {
        Ok(value) => serde_json::json!({ "ok": value }),
        Err(error) => serde_json::json!({ "error": format!("{error:#}") }),
    };
    // A client that went away gets no answer.
    let _ = write.write_all(format!("{answer}\n").as_bytes()).await;
}

async fn handle(line: &str, requests: &mpsc::Sender<Request>) -> Result<Value> {
    let gone = || anyhow!("the agent is stopping");
    match serde_json::from_str(line).context("a request that this agent does not know")? {
        Command::Status => {
            let (reply, answer) = oneshot::channel();
            requests.send(Request::Status(reply)).await.map_err(|_| gone())?;
            Ok(serde_json::to_value(&*answer.await.map_err(|_| gone())?)?)
        }
        Command::Reload => {
            let (reply, answer) = oneshot::channel();
            requests.send(Request::Reload(reply)).await.map_err(|_| gone())?;
            Ok(answer.await.map_err(|_| gone())??.into())
        }
    }
}

/// Asks the agent of a server.
///
/// # Errors
/// No agent is running, or what it answered.
pub async fn ask<T: DeserializeOwned>(run_dir: &Path, server: &str, command: Command) -> Result<T> {
    let path = control_path(run_dir, server);
    let mut stream = UnixStream::connect(&path).await.with_context(|| {
        format!(
            "no agent of `{server}` answers at {}: is it running, and is this its --run-dir? The firewall it put in \
             force stays in force without it",
            path.display()
        )
    })?;
    stream.write_all(format!("{}\n", serde_json::to_string(&command)?).as_bytes()).await?;
    let mut text = String::new();
    timeout(ANSWER_TIMEOUT, stream.read_to_string(&mut text))
        .await
        .with_context(|| format!("the agent of `{server}` does not answer: its log may tell why"))??;
    let mut answer: Value = serde_json::from_str(&text).context("the agent went away before it answered")?;
    if let Some(error) = answer["error"].as_str() {
        bail!("{error}");
    }
    Ok(serde_json::from_value(answer["ok"].take())?)
}
