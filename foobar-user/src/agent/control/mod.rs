//! The control socket: one request a connection, a JSON line each way, or a line an item. Only root can reach it.

mod client;
mod command;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, BufWriter};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::timeout;

pub use self::client::{ask, stream};
pub use self::command::{
    Admin, Applied, Apply, BackendOrder, Command, FlowQuery, OrderChange, ProcessOrder, Reply, Request, SetChange,
};

use super::window::Window;

/// Longest request, in bytes: a set's entries come by the thousand, as many as a command line holds.
const REQUEST_MAX_BYTES: u64 = 4 << 20;
/// Time in which a request must be there.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

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
    pub(super) fn listen(path: &Path, requests: mpsc::Sender<Request>, window: Arc<Window>) -> Result<Self> {
        fs::remove_file(path).ok();
        let listener =
            UnixListener::bind(path).with_context(|| format!("cannot make the control socket {}", path.display()))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))
            .with_context(|| format!("cannot close {} to others", path.display()))?;
        let task = tokio::spawn(accept(listener, Desk { requests, window })).abort_handle();
        Ok(Self { path: path.to_owned(), task })
    }
}

/// Where requests go.
#[derive(Clone)]
struct Desk {
    requests: mpsc::Sender<Request>,
    window: Arc<Window>,
}

async fn accept(listener: UnixListener, desk: Desk) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(answer(stream, desk.clone()))),
            // Out of descriptors: others must end first.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn answer(stream: UnixStream, desk: Desk) {
    let (read, write) = stream.into_split();
    let mut line = String::new();
    let mut reader = BufReader::new(read.take(REQUEST_MAX_BYTES));
    let Ok(Ok(_)) = timeout(REQUEST_TIMEOUT, reader.read_line(&mut line)).await else { return };
    let mut client = Client { read: reader.into_inner().into_inner(), write: BufWriter::new(write) };
    let handled = tokio::select! {
        handled = desk.handle(&line) => handled,
        () = gone(&mut client.read) => return,
    };
    let told = match handled {
        Ok(reply) => client.tell(reply).await,
        Err(error) => client.line(&json!({ "error": format!("{error:#}") })).await,
    };
    // A client that went away gets no answer.
    if told.is_ok() {
        let _ = client.write.flush().await;
    }
}

impl Desk {
    async fn handle(&self, line: &str) -> Result<Reply> {
        let command = serde_json::from_str(line).context("a request that this agent does not know")?;
        if command == Command::Confirm {
            // Not by way of the loop, which may be busy with the restart of processes while the time runs.
            return Reply::value(&self.window.confirm()?);
        }
        let gone = || anyhow!("the agent is stopping");
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request { command, reply }).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

struct Client {
    read: OwnedReadHalf,
    write: BufWriter<OwnedWriteHalf>,
}

impl Client {
    async fn tell(&mut self, reply: Reply) -> Result<()> {
        match reply {
            Reply::Value(value) => self.line(&json!({ "ok": value })).await,
            Reply::Listing(listing, now, limit) => {
                for row in listing.rows(now).take(limit.unwrap_or(usize::MAX)) {
                    self.item(&row).await?;
                }
                self.line(&json!({ "ok": listing.summary() })).await
            }
            Reply::Events(mut events) => loop {
                // Not buffered: somebody is watching.
                self.write.flush().await?;
                tokio::select! {
                    event = events.next() => match event {
                        Some(event) => self.item(&event).await?,
                        None => return Ok(()),
                    },
                    () = gone(&mut self.read) => return Ok(()),
                }
            },
        }
    }

    async fn item(&mut self, item: &impl Serialize) -> Result<()> {
        self.line(&json!({ "item": item })).await
    }

    async fn line(&mut self, line: &Value) -> Result<()> {
        Ok(self.write.write_all(format!("{line}\n").as_bytes()).await?)
    }
}

/// Waits until a client, who says nothing more, has gone.
async fn gone(read: &mut OwnedReadHalf) {
    let _ = read.read(&mut [0]).await;
}
