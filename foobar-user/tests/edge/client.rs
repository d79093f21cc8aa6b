//! Clients: hyper over TLS with HTTP/1.1 or HTTP/2, and raw bytes over TLS.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use crate::backend::certificates;
use crate::bed::{Bed, DOMAIN};

pub(crate) type Body = Full<Bytes>;

const DEADLINE: Duration = Duration::from_secs(20);

/// A TLS connection that offers this protocol.
pub(crate) async fn tls(bed: &Bed, alpn: &str) -> TlsStream<TcpStream> {
    let mut roots = rustls::RootCertStore::empty();
    for root in certificates(&bed.ca_file()) {
        roots.add(root).expect("root");
    }
    let mut config =
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    let stream = TcpStream::connect(bed.address()).await.expect("connect");
    let name = ServerName::try_from(DOMAIN).expect("name");
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("handshake")
}

pub(crate) async fn h1(bed: &Bed) -> http1::SendRequest<Body> {
    let (sender, connection) = http1::handshake(TokioIo::new(tls(bed, "http/1.1").await)).await.expect("handshake");
    tokio::spawn(connection);
    sender
}

pub(crate) async fn h2(bed: &Bed) -> http2::SendRequest<Body> {
    let io = TokioIo::new(tls(bed, "h2").await);
    let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.expect("handshake");
    tokio::spawn(connection);
    sender
}

/// `GET path` of the site in HTTP/1.1's form.
pub(crate) fn get(path: &str) -> Request<Body> {
    Request::builder().uri(path).header("host", DOMAIN).body(Body::default()).expect("request")
}

/// One GET on a connection of its own: status and body.
pub(crate) async fn fetch(bed: &Bed, path: &str) -> (u16, String) {
    let response = timeout(DEADLINE, async { h1(bed).await.send_request(get(path)).await.expect("response") });
    text(response.await.expect("in time")).await
}

/// Status and body.
pub(crate) async fn text(response: Response<hyper::body::Incoming>) -> (u16, String) {
    let status = response.status().as_u16();
    let body = timeout(DEADLINE, response.into_body().collect()).await.expect("in time").expect("body").to_bytes();
    (status, String::from_utf8(body.to_vec()).expect("text"))
}

/// Sends bytes over TLS and returns everything until the edge closes.
pub(crate) async fn raw(bed: &Bed, bytes: &[u8]) -> String {
    let mut stream = tls(bed, "http/1.1").await;
    stream.write_all(bytes).await.expect("write");
    read_to_end(&mut stream).await
}

/// Everything until the other side closes, however it does.
pub(crate) async fn read_to_end(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut answer = Vec::new();
    let _ = timeout(DEADLINE, stream.read_to_end(&mut answer)).await.expect("closed in time");
    String::from_utf8_lossy(&answer).into_owned()
}
