//! A small HTTP client over hyper and rustls: one connection at a time, every step with a deadline.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::namespace::Namespace;

/// Where requests go.
#[derive(Clone, Debug)]
pub struct Target {
    /// Address that is connected to.
    pub address: SocketAddr,
    /// `Host` of the requests, and the name that a certificate must bear.
    pub host: String,
    /// TLS, and what it trusts; `None`: plain HTTP.
    pub tls: Option<Arc<ClientConfig>>,
}

/// An answer, read to its end.
#[derive(Clone, Debug)]
pub struct Response {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Response {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The header `name` as text; empty when it is absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// An open connection that takes one request after the other.
#[derive(Debug)]
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    host: String,
}

impl Connection {
    /// Connects to `target`; with TLS also shakes hands.
    pub async fn open(target: &Target) -> Result<Self> {
        let address = target.address;
        let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect(address))
            .await
            .with_context(|| format!("no answer from {address} within {CONNECT_TIMEOUT:?}"))?
            .with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true).context("cannot switch Nagle's algorithm off")?;
        let Some(tls) = &target.tls else {
            return Self::over(stream, target).await;
        };
        let name = ServerName::try_from(target.host.clone()).context("the host is no server name")?;
        let handshake = TlsConnector::from(Arc::clone(tls)).connect(name, stream);
        let stream = timeout(CONNECT_TIMEOUT, handshake)
            .await
            .with_context(|| format!("no TLS handshake with {address} within {CONNECT_TIMEOUT:?}"))?
            .with_context(|| format!("the TLS handshake with {address} failed"))?;
        Self::over(stream, target).await
    }

    /// Sends `method path` with `body` and reads the answer.
    pub async fn send(&mut self, method: Method, path: &str, body: Body<'_>) -> Result<Response> {
        let request = Request::builder().method(method).uri(path).header("host", &self.host);
        let request = match body {
            Body::Empty => request.body(Full::default()),
            Body::Form(fields) => {
                request.header("content-type", "application/x-www-form-urlencoded").body(Full::from(form(fields)))
            }
        }
        .context("the request is malformed")?;
        let answer = async {
            self.sender.ready().await.context("the connection is closed")?;
            let response = self.sender.send_request(request).await.context("the request failed")?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, MAX_BODY_BYTES).collect().await;
            match body {
                Ok(body) => Ok(Response { status: head.status, headers: head.headers, body: body.to_bytes() }),
                Err(error) => bail!("the answer's body broke off: {error}"),
            }
        };
        timeout(REQUEST_TIMEOUT, answer).await.with_context(|| format!("no answer within {REQUEST_TIMEOUT:?}"))?
    }

    /// Sends `GET path`.
    pub async fn get(&mut self, path: &str) -> Result<Response> {
        self.send(Method::GET, path, Body::Empty).await
    }

    async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, target: &Target) -> Result<Self> {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.context("no HTTP connection")?;
        // Its errors reach the sender, too.
        tokio::spawn(async move { drop(connection.await) });
        Ok(Self { sender, host: target.host.clone() })
    }
}

/// Body of a request.
#[derive(Clone, Copy, Debug)]
pub enum Body<'a> {
    /// None.
    Empty,
    /// A form's fields.
    Form(&'a [(&'a str, &'a str)]),
}

/// `GET path` over a new connection, from `namespace`.
pub fn get(namespace: &Namespace, target: &Target, path: &str) -> Result<Response> {
    request(namespace, target, Method::GET, path, Body::Empty)
}

/// One request over a new connection, from `namespace`.
pub fn request(namespace: &Namespace, target: &Target, method: Method, path: &str, body: Body<'_>) -> Result<Response> {
    namespace.block_on(|| async { Connection::open(target).await?.send(method, path, body).await })?
}

/// TLS that trusts the CA in `folder/ca.pem` alone; with `identity`, shows that server's certificate.
pub fn tls(folder: &Path, identity: Option<&str>) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    let ca = folder.join("ca.pem");
    for certificate in CertificateDer::pem_file_iter(&ca).with_context(|| format!("cannot read {}", ca.display()))? {
        roots.add(certificate?).with_context(|| format!("{} holds no CA", ca.display()))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("no TLS version is enabled")?
        .with_root_certificates(roots);
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some(server) => {
            let chain =
                CertificateDer::pem_file_iter(folder.join(format!("{server}.pem")))?.collect::<Result<_, _>>()?;
            let key = PrivateKeyDer::from_pem_file(folder.join(format!("{server}.key")))?;
            builder.with_client_auth_cert(chain, key).with_context(|| format!("{server}'s key does not fit"))?
        }
    };
    Ok(Arc::new(config))
}

/// Fields in the form `application/x-www-form-urlencoded`.
pub fn form(fields: &[(&str, &str)]) -> String {
    let pairs: Vec<String> =
        fields.iter().map(|(key, value)| format!("{}={}", percent_encoded(key), percent_encoded(value))).collect();
    pairs.join("&")
}

fn percent_encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
        encoded
    })
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_BODY_BYTES: usize = 16 << 20;
