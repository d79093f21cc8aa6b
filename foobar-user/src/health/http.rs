//! HTTP check: `GET path` on a new connection is answered as it should be; with certificates, over mTLS.

use std::net::SocketAddr;
use std::pin::pin;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper::rt::{Read, Write};
use hyper_util::rt::TokioIo;

use super::probe;
use super::tls::TlsProbe;
use crate::plan::HttpCheck;

/// Longest body in which a text is looked for.
const BODY_BYTES_MAX: usize = 64 << 10;

/// Checks one address by HTTP.
pub(super) struct HttpProbe {
    address: SocketAddr,
    check: HttpCheck,
    tls: Option<TlsProbe>,
}

impl HttpProbe {
    pub(super) fn new(address: SocketAddr, server: &str, check: &HttpCheck) -> Self {
        let tls = check.tls.as_ref().map(|files| TlsProbe::new(address, server, files));
        Self { address, check: check.clone(), tls }
    }

    pub(super) fn forget(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.forget();
        }
    }

    pub(super) async fn ask(&mut self) -> Result<()> {
        match &mut self.tls {
            Some(tls) => {
                let stream = tls.ask().await?;
                self.get(TokioIo::new(stream)).await
            }
            None => self.get(TokioIo::new(probe::connect(self.address).await?)).await,
        }
    }

    async fn get(&self, io: impl Read + Write + Unpin + Send) -> Result<()> {
        let (mut sender, connection) = http1::handshake(io).await.context("cannot speak HTTP")?;
        let request = http::Request::get(&self.check.path)
            .header(http::header::HOST, &self.check.host)
            .header(http::header::USER_AGENT, "foobar-check")
            .header(http::header::CONNECTION, "close")
            .body(Empty::<Bytes>::new())
            .context("the check's path or host is not valid in HTTP")?;
        // Both in this task: a check that is given up takes its connection with it.
        let mut answer = pin!(sender.send_request(request));
        let mut connection = pin!(connection);
        let mut ended = false;
        let response = tokio::select! {
            biased;
            response = &mut answer => response,
            // The same step may bring the answer and the end of the connection.
            result = &mut connection => {
                result.context("the connection broke before an answer")?;
                ended = true;
                answer.await
            }
        };
        let response = response.context("no answer")?;
        let status = response.status();
        if !self.check.status.contains(&status.as_u16()) {
            bail!("answered {status} to GET {}", self.check.path);
        }
        let Some(wanted) = &self.check.body else { return Ok(()) };
        let mut body = pin!(Limited::new(response.into_body(), BODY_BYTES_MAX).collect());
        let body = tokio::select! {
            biased;
            body = &mut body => body,
            // The connection's end may be the body's.
            _ = &mut connection, if !ended => body.await,
        };
        let body = body.map_err(|error| anyhow::anyhow!("the answer's body broke off: {error}"))?.to_bytes();
        let found = body.windows(wanted.len()).any(|window| window == wanted.as_bytes());
        if !found {
            bail!("the answer to GET {} lacks `{wanted}`", self.check.path);
        }
        Ok(())
    }
}
