//! HTTP check: `GET path` on a new connection is answered with 2xx or 3xx; with certificates, over mTLS.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper::rt::{Read, Write};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;

use super::{probe, tls};
use crate::plan::TlsFiles;

/// Checks one address by HTTP.
pub(super) struct HttpProbe {
    address: SocketAddr,
    server: String,
    path: String,
    host: String,
    tls: Option<TlsFiles>,
    /// Kept for session resumption; read again after a failure, for certificates are renewed.
    config: Option<Arc<ClientConfig>>,
}

impl HttpProbe {
    pub(super) fn new(address: SocketAddr, server: &str, path: &str, host: &str, tls: Option<TlsFiles>) -> Self {
        Self { address, server: server.to_owned(), path: path.to_owned(), host: host.to_owned(), tls, config: None }
    }

    pub(super) fn forget(&mut self) {
        self.config = None;
    }

    pub(super) async fn ask(&mut self) -> Result<()> {
        let config = match (&self.tls, &self.config) {
            (None, _) => None,
            (Some(_), Some(config)) => Some(Arc::clone(config)),
            (Some(files), None) => {
                let config = tls::client(files)?;
                self.config = Some(Arc::clone(&config));
                Some(config)
            }
        };
        let stream = probe::connect(self.address).await?;
        let Some(config) = config else { return self.get(TokioIo::new(stream)).await };
        let name = ServerName::try_from(self.server.clone())
            .with_context(|| format!("{} cannot be a certificate's name", self.server))?;
        let stream = TlsConnector::from(config)
            .connect(name, stream)
            .await
            .with_context(|| format!("TLS with {} at {} failed", self.server, self.address))?;
        self.get(TokioIo::new(stream)).await
    }

    async fn get(&self, io: impl Read + Write + Unpin + Send) -> Result<()> {
        let (mut sender, connection) = http1::handshake(io).await.context("cannot speak HTTP")?;
        let request = http::Request::get(&self.path)
            .header(http::header::HOST, &self.host)
            .header(http::header::USER_AGENT, "foobar-check")
            .header(http::header::CONNECTION, "close")
            .body(Empty::<Bytes>::new())
            .context("the check's path or host is not valid in HTTP")?;
        // Both in this task: a check that is given up takes its connection with it.
        let mut answer = pin!(sender.send_request(request));
        let mut connection = pin!(connection);
        let response = tokio::select! {
            biased;
            response = &mut answer => response,
            // The same step may bring the answer and the end of the connection.
            result = &mut connection => {
                result.context("the connection broke before an answer")?;
                answer.await
            }
        };
        let response = response.context("no answer")?;
        let status = response.status();
        if !(status.is_success() || status.is_redirection()) {
            bail!("answered {status} to GET {}", self.path);
        }
        Ok(())
    }
}
