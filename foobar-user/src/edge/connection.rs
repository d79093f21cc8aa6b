//! The life of one client connection: TLS, HTTP/1.1 or HTTP/2 as agreed by ALPN, watched for progress, drained at the end.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::TokioTimer;
use rustls::ProtocolVersion;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch::Receiver;
use tokio::task::spawn_local;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_rustls::TlsAcceptor;

use super::client_io::ClientIo;
use super::headers::Origin;
use super::host::Hosts;
use super::limits::{self, ms};
use super::metrics::{Handshake, Version, WorkerStats};
use super::phase::Phase;
use super::progress::Progress;
use super::proxy::{self, Client};
use super::redirect;
use super::service::Service;

/// Serves a TLS client to its end.
pub(crate) async fn serve_tls(stream: TcpStream, service: Rc<Service>, phases: Receiver<Phase>) {
    let Ok(peer) = stream.peer_addr() else { return };
    // Failing here means that the client has left; the handshake sees it.
    let _ = stream.set_nodelay(true);
    let acceptor = TlsAcceptor::from(service.shared.server.clone());
    let shake = timeout(ms(limits::HANDSHAKE_MS), acceptor.accept(stream)).await;
    let worker: &Arc<WorkerStats> = &service.worker;
    let stream = match shake {
        Ok(Ok(stream)) => stream,
        Ok(Err(_)) => return worker.handshake(Version::None, Handshake::Error),
        Err(_) => return worker.handshake(Version::None, Handshake::Timeout),
    };
    let (_, session) = stream.get_ref();
    let modern = session.protocol_version() == Some(ProtocolVersion::TLSv1_3);
    worker.handshake(if modern { Version::Tls13 } else { Version::Tls12 }, Handshake::Ok);
    let h2 = session.alpn_protocol() == Some(b"h2");
    let progress = Rc::new(if h2 { Progress::default() } else { Progress::http1() });
    let origin = Origin::new(peer.ip(), &service.shared.config.domain);
    let client = Rc::new(Client { service, origin, progress: progress.clone() });
    let handler = service_fn(move |request| {
        let client = client.clone();
        async move { Ok::<_, Infallible>(proxy::handle(client, request).await) }
    });
    let io = ClientIo::new(stream, progress.clone());
    if h2 {
        watch(http2_builder().serve_connection(io, handler), &progress, phases).await;
    } else {
        watch(http1_builder().serve_connection(io, handler), &progress, phases).await;
    }
}

/// Serves a plain HTTP client to its end: redirects only.
pub(crate) async fn serve_redirect(stream: TcpStream, hosts: Rc<Hosts>, target: Rc<str>, phases: Receiver<Phase>) {
    let progress = Rc::new(Progress::default());
    let handler = service_fn({
        let progress = progress.clone();
        move |request: Request<Incoming>| {
            progress.step();
            std::future::ready(Ok::<_, Infallible>(redirect::redirect(&hosts, &target, request)))
        }
    });
    watch(http1_builder().serve_connection(ClientIo::new(stream, progress.clone()), handler), &progress, phases).await;
}

fn http1_builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        // Without a timer the next line would do nothing.
        .timer(TokioTimer::new())
        .header_read_timeout(ms(limits::REQUEST_HEAD_MS))
        .max_header_size(limits::REQUEST_HEAD_BYTES)
        .max_buf_size(limits::CONNECTION_BUFFER_BYTES);
    // hyper's own bound on header lines is this one, and is cheaper when it is not set.
    const { assert!(limits::REQUEST_HEADERS == 100) };
    builder
}

fn http2_builder() -> http2::Builder<LocalExecutor> {
    let mut builder = http2::Builder::new(LocalExecutor);
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(ms(limits::H2_PING_INTERVAL_MS))
        .keep_alive_timeout(ms(limits::H2_PING_TIMEOUT_MS))
        .max_concurrent_streams(limits::H2_STREAMS)
        .max_pending_accept_reset_streams(limits::H2_PENDING_RESETS)
        .max_local_error_reset_streams(limits::H2_LOCAL_RESETS)
        .max_header_list_size(u32::try_from(limits::REQUEST_HEAD_BYTES).unwrap_or(u32::MAX))
        .initial_stream_window_size(limits::H2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits::H2_CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(limits::H2_SEND_BUFFER_BYTES);
    builder
}

/// Runs HTTP/2 streams on the connection's own thread.
#[derive(Clone, Copy)]
struct LocalExecutor;

impl<F> hyper::rt::Executor<F> for LocalExecutor
where
    F: Future + 'static,
{
    fn execute(&self, future: F) {
        spawn_local(async move {
            future.await;
        });
    }
}

/// A hyper connection that can be asked to end.
trait Connection: Future {
    /// Whether asking does not interrupt requests under way to us.
    const POLITE: bool;
    fn finish(self: Pin<&mut Self>);
}

impl<I, S, B> Connection for http1::Connection<ClientIo<I>, S>
where
    I: AsyncRead + AsyncWrite + Unpin + 'static,
    S: hyper::service::HttpService<Incoming, ResBody = B>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: http_body::Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    // It closes an idle connection at once, and with it a request that is on its way.
    const POLITE: bool = false;
    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<I, S, B> Connection for http2::Connection<ClientIo<I>, S, LocalExecutor>
where
    I: AsyncRead + AsyncWrite + Unpin + 'static,
    S: hyper::service::HttpService<Incoming, ResBody = B>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    S::Future: 'static,
    B: http_body::Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    const POLITE: bool = true;
    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// Drives a connection until it ends, stalls, or the process does.
async fn watch<C: Connection>(connection: C, progress: &Progress, mut phases: Receiver<Phase>) {
    let mut connection = std::pin::pin!(connection);
    let mut ticks = interval(Duration::from_millis(limits::PROGRESS_TICK_MS));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut seen, mut still, mut finishing) = (progress.steps(), 0, false);
    loop {
        let phase = *phases.borrow_and_update();
        let finish = phase >= Phase::Close || (C::POLITE && phase >= Phase::Notice);
        if phase == Phase::End {
            return;
        }
        if finish && !finishing {
            finishing = true;
            connection.as_mut().finish();
        }
        tokio::select! {
            biased;
            _ = connection.as_mut() => return,
            changed = phases.changed() => if changed.is_err() { return },
            _ = ticks.tick() => {
                still = if progress.steps() == seen { still + 1 } else { 0 };
                seen = progress.steps();
                if still >= limits::PROGRESS_TICKS {
                    // A client that does not read its response; or one that was asked to leave and does not.
                    if progress.busy() || finishing {
                        return;
                    }
                    (still, finishing) = (0, true);
                    connection.as_mut().finish();
                }
            }
        }
    }
}
