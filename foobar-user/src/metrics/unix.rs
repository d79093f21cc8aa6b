//! Asking a local program over its unix socket, with a deadline and a limit on the answer.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;

/// The longest that a source may take in a scrape.
pub(super) const SOURCE_DEADLINE_MS: u64 = 500;

/// Runs `answer` with the deadline of a source.
pub(super) async fn in_time<T>(answer: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let deadline = Duration::from_millis(SOURCE_DEADLINE_MS);
    tokio::time::timeout(deadline, answer)
        .await
        .unwrap_or_else(|_elapsed| bail!("no answer within {SOURCE_DEADLINE_MS} ms"))
}

/// The body of `GET path` over HTTP/1.1.
pub(super) async fn http_get(socket: &Path, path: &str, limit_bytes: usize) -> anyhow::Result<String> {
    let stream = connect(socket).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = http::Request::get(path).header(http::header::HOST, "localhost").body(Empty::<Bytes>::new())?;
    let exchange = async move {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), limit_bytes).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!("the answer cannot be read: {error}"))?.to_bytes();
        if status != http::StatusCode::OK {
            bail!("GET {path} over {} was answered with {status}", socket.display());
        }
        String::from_utf8(body.to_vec()).context("the answer is not UTF-8")
    };
    // The connection is polled beside the exchange instead of in a task, so that nothing outlives the deadline.
    let connection = async {
        let _ended = connection.await;
        std::future::pending().await
    };
    tokio::select! {
        answer = exchange => answer,
        never = connection => never,
    }
}

/// Everything that the program writes until it closes the connection.
pub(super) async fn read_all(socket: &Path, limit_bytes: u64) -> anyhow::Result<String> {
    let stream = connect(socket).await?;
    let mut text = String::new();
    stream.take(limit_bytes + 1).read_to_string(&mut text).await.context("the answer cannot be read")?;
    if text.len() as u64 > limit_bytes {
        bail!("the answer is longer than {limit_bytes} bytes");
    }
    Ok(text)
}

async fn connect(socket: &Path) -> anyhow::Result<UnixStream> {
    UnixStream::connect(socket).await.with_context(|| format!("cannot connect to {}", socket.display()))
}
