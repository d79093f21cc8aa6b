//! A backend: hyper over mTLS, counting connections, recording requests, misbehaving on demand by path.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::net::TcpListener;
use tokio::sync::Notify;

/// What a backend has seen.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) connections: AtomicUsize,
    pub(crate) requests: Mutex<Vec<(String, HeaderMap)>>,
    /// Lets `/slow` answer.
    pub(crate) go: Notify,
    /// Told when `/slow` has arrived.
    pub(crate) arrived: Notify,
}

/// A running backend.
pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    pub(crate) seen: Arc<Seen>,
}

/// TLS files of a backend.
pub(crate) struct Tls {
    pub(crate) ca: PathBuf,
    pub(crate) identity: (PathBuf, PathBuf),
}

impl Backend {
    /// Starts one that requires a client certificate of the CA.
    pub(crate) async fn start(tls: &Tls) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let seen = Arc::new(Seen::default());
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config(tls)));
        tokio::spawn(accept(listener, acceptor, seen.clone()));
        Self { address, seen }
    }

    pub(crate) fn connections(&self) -> usize {
        self.seen.connections.load(SeqCst)
    }

    pub(crate) fn last(&self) -> (String, HeaderMap) {
        self.seen.requests.lock().expect("lock").last().cloned().expect("a request")
    }

    pub(crate) fn requests(&self) -> usize {
        self.seen.requests.lock().expect("lock").len()
    }
}

pub(crate) fn certificates(path: &Path) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_file_iter(path).expect("PEM").map(|one| one.expect("certificate")).collect()
}

fn config(tls: &Tls) -> rustls::ServerConfig {
    let mut roots = rustls::RootCertStore::empty();
    for root in certificates(&tls.ca) {
        roots.add(root).expect("root");
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().expect("verifier");
    rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates(&tls.identity.0), PrivateKeyDer::from_pem_file(&tls.identity.1).expect("key"))
        .expect("identity")
}

async fn accept(listener: TcpListener, acceptor: tokio_rustls::TlsAcceptor, seen: Arc<Seen>) {
    loop {
        let (stream, _) = listener.accept().await.expect("accept");
        let (acceptor, seen) = (acceptor.clone(), seen.clone());
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            seen.connections.fetch_add(1, SeqCst);
            let served = std::sync::atomic::AtomicUsize::new(0);
            let end = Arc::new(Notify::new());
            let service = service_fn(|request| {
                let first = served.fetch_add(1, SeqCst) == 0;
                answer(request, seen.clone(), first, end.clone())
            });
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            // Dropping the connection in the midst of a request is how a killed backend looks.
            tokio::select! { _ = connection => {}, () = end.notified() => {} }
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    seen: Arc<Seen>,
    first: bool,
    end: Arc<Notify>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let line = format!("{} {}", parts.method, parts.uri);
    seen.requests.lock().expect("lock").push((line, parts.headers));
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    match parts.uri.path() {
        "/echo" => return Ok(Response::new(Full::new(body))),
        "/large" => return Ok(Response::new(Full::new(Bytes::from(vec![b'x'; 1 << 20])))),
        "/slow" => {
            seen.arrived.notify_one();
            seen.go.notified().await;
        }
        "/die-when-reused" if !first => {
            end.notify_one();
            std::future::pending::<()>().await;
        }
        "/die" => {
            end.notify_one();
            std::future::pending::<()>().await;
        }
        "/missing" => {
            let mut response = Response::new(Full::from("nothing"));
            *response.status_mut() = StatusCode::NOT_FOUND;
            return Ok(response);
        }
        "/hop" => {
            let response =
                Response::builder().header("connection", "x-inner").header("x-inner", "1").header("x-end", "2");
            return Ok(response.header("keep-alive", "timeout=9").body(Full::from("hop")).expect("response"));
        }
        _ => {}
    }
    Ok(Response::new(Full::from("hello")))
}

/// Waits until a condition holds.
pub(crate) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !condition().await {
        assert!(tokio::time::Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
