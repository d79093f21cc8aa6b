//! The HTTP endpoint: `GET /metrics` and `GET /healthz`, and nothing else, with a limit on everything.

use std::convert::Infallible;
use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, ALLOW, CONTENT_TYPE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Semaphore;

use super::text::{self, Format};

/// Connections served at once; the next wait in the kernel's queue.
pub const CONNECTIONS_MAX: usize = 32;
/// Bytes of a request's head.
pub const HEAD_MAX_BYTES: usize = 8192;
/// Time in which a request's head must be there.
pub const HEAD_TIMEOUT_MS: u64 = 10_000;
/// Time in which the metrics must be collected.
pub const RENDER_TIMEOUT_MS: u64 = 5_000;
/// Time after which a connection is asked to end, and the same again until it is cut.
pub const CONNECTION_LIFETIME_MS: u64 = 60_000;

/// Makes OpenMetrics text, `# EOF` included.
pub type Render = Arc<dyn Fn() -> Rendering + Send + Sync>;
/// The text in the making.
pub type Rendering = Pin<Box<dyn Future<Output = anyhow::Result<String>> + Send>>;

/// The addresses of the endpoint, bound.
#[derive(Debug)]
pub struct Listeners(Vec<TcpListener>);

/// An address of the endpoint that cannot be listened on.
#[derive(Debug)]
pub struct BindError {
    /// The address.
    pub address: SocketAddr,
    /// What the system said.
    pub source: std::io::Error,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, source } = self;
        let port = address.port();
        let advice = match source.kind() {
            std::io::ErrorKind::AddrInUse => {
                format!("port in use: see who has it by `ss -ltnp sport = :{port}`, or set another `metrics_port`")
            }
            std::io::ErrorKind::AddrNotAvailable => {
                format!("no interface here has {}: see `ip address`, and the server's `address`", address.ip())
            }
            std::io::ErrorKind::PermissionDenied => "ports below 1024 need root: set another `metrics_port`".to_owned(),
            _ => "set another `metrics_port` in [site]".to_owned(),
        };
        write!(f, "cannot serve metrics on {address}: {source}; {advice}")
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

impl Listeners {
    /// Binds every address or none.
    ///
    /// # Errors
    /// The first address that cannot be bound, and what to do.
    pub fn bind(addresses: &[SocketAddr]) -> Result<Self, BindError> {
        let bind = |address: &SocketAddr| {
            let listener = TcpListener::bind(address);
            let listener = listener.and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
            listener.map_err(|source| BindError { address: *address, source })
        };
        addresses.iter().map(bind).collect::<Result<_, _>>().map(Self)
    }

    /// The bound addresses, with the ports that the system chose.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.0.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// Serves until it is dropped; connections go with it.
    ///
    /// # Errors
    /// When a listener cannot be given to the runtime.
    pub async fn serve(self, render: Render) -> std::io::Result<Infallible> {
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut accepting = tokio::task::JoinSet::new();
        for listener in self.0 {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            accepting.spawn(accept(listener, Arc::clone(&permits), Arc::clone(&render)));
        }
        while accepting.join_next().await.is_some() {}
        std::future::pending().await
    }
}

async fn accept(listener: tokio::net::TcpListener, permits: Arc<Semaphore>, render: Render) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _client)) => {
                let render = Arc::clone(&render);
                connections.spawn(async move {
                    connection(stream, render).await;
                    drop(permit);
                });
            }
            // Out of file descriptors, most likely: they come back as connections end.
            Err(error) => {
                tracing::warn!("metrics: cannot accept a connection: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(stream: tokio::net::TcpStream, render: Render) {
    let service = hyper::service::service_fn(move |request| {
        let render = Arc::clone(&render);
        async move { Ok::<_, Infallible>(answer(&request, &render).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(HEAD_TIMEOUT_MS))
        .max_buf_size(HEAD_MAX_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let lifetime = Duration::from_millis(CONNECTION_LIFETIME_MS);
    if tokio::time::timeout(lifetime, connection.as_mut()).await.is_err() {
        connection.as_mut().graceful_shutdown();
        let _cut = tokio::time::timeout(lifetime, connection).await;
    }
}

async fn answer<B>(request: &Request<B>, render: &Render) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    if !matches!(path, "/metrics" | "/healthz") {
        return plain(StatusCode::NOT_FOUND, "the metrics are at /metrics\n".to_owned());
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "GET or HEAD\n".to_owned());
        response.headers_mut().insert(ALLOW, http::HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    if path == "/healthz" {
        return plain(StatusCode::OK, "ok\n".to_owned());
    }
    let accept = request.headers().get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let format = Format::accepted(accept);
    let rendering = tokio::time::timeout(Duration::from_millis(RENDER_TIMEOUT_MS), render());
    let open_metrics = match rendering.await {
        Ok(Ok(open_metrics)) => open_metrics,
        Ok(Err(error)) => return plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}\n")),
        Err(_elapsed) => {
            let message = format!("the metrics were not collected within {RENDER_TIMEOUT_MS} ms\n");
            return plain(StatusCode::SERVICE_UNAVAILABLE, message);
        }
    };
    let text = match format {
        Format::OpenMetrics => open_metrics,
        Format::Prometheus => text::to_prometheus(&open_metrics),
    };
    respond(StatusCode::OK, format.content_type(), text)
}

fn plain(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    respond(status, "text/plain; charset=utf-8", text)
}

fn respond(status: StatusCode, content_type: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    response
}
