//! A connection to one member, kept from one question to the next.

use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use super::wire;
use crate::certificates;
use crate::plan::{Endpoint, TlsFiles};

/// Longest answer: a state and the words of all servers are far below it.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// The connection; it is closed when it is dropped.
#[derive(Debug)]
pub(super) struct Line {
    authority: String,
    sender: SendRequest<Full<Bytes>>,
    task: JoinHandle<()>,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Line {
    /// Connects. Certificates are read anew: they may have been renewed.
    pub(super) async fn connect(endpoint: &Endpoint, files: &TlsFiles) -> Result<Self> {
        let stream = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await.context("cannot connect")?;
        stream.set_nodelay(true)?;
        if !endpoint.tls {
            return Self::converse(endpoint, stream).await;
        }
        let name = ServerName::try_from(endpoint.host.clone())?;
        let connector = TlsConnector::from(certificates::client(files, rustls::DEFAULT_VERSIONS)?);
        let stream = connector.connect(name, stream).await.context("no TLS with it")?;
        Self::converse(endpoint, stream).await
    }

    async fn converse(
        endpoint: &Endpoint,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    ) -> Result<Self> {
        let (sender, connection) = handshake(TokioIo::new(stream)).await.context("it speaks no HTTP")?;
        let task = tokio::spawn(async move {
            // The question that meets an error tells it; an idle connection that ends is none.
            let _ = connection.await;
        });
        Ok(Self { authority: endpoint.authority(), sender, task })
    }

    /// Asks, and waits for the whole answer.
    pub(super) async fn ask(&mut self, path: &str, question: Bytes) -> Result<Bytes> {
        let request = http::Request::post(path)
            .header(HOST, &self.authority)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(question))?;
        // Else one that the other end has closed looks as if it could be used.
        self.sender.ready().await.context("the connection has ended")?;
        let response = self.sender.send_request(request).await.context("it closed the connection")?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| anyhow!("its answer broke off: {error}"))?.to_bytes();
        if status.is_success() {
            return Ok(body);
        }
        bail!("it answers {}: {}", status.as_u16(), wire::refusal(&body))
    }
}
