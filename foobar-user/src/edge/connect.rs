//! A fresh connection to a backend: plain `connect()` to the service's VIP, which the kernel turns into a backend,
//! and mutual TLS. A backend that does not answer costs an attempt; the kernel's cursor offers the next one.

use std::io;
use std::rc::Rc;

use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::spawn_local;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::limits::{self, ms};
use super::metrics::Reason;
use super::pool::Upstream;
use super::service::Service;

/// Connects, trying the next backend when one fails; every failure is counted, the last one is returned.
pub(crate) async fn connect(service: &Rc<Service>) -> Result<Upstream, Reason> {
    let mut attempt = 1;
    loop {
        match connect_once(service).await {
            Ok(upstream) => return Ok(upstream),
            Err(reason) => {
                service.worker.upstream(reason);
                // Without a healthy backend there is no next one.
                if attempt >= limits::CONNECT_ATTEMPTS || reason == Reason::NoBackend {
                    return Err(reason);
                }
                attempt += 1;
            }
        }
    }
}

async fn connect_once(service: &Rc<Service>) -> Result<Upstream, Reason> {
    let stream = match timeout(ms(limits::CONNECT_MS), TcpStream::connect(service.shared.config.upstream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            let reason = reason(&error);
            service.warn(&format_args!("connect: {error} ({})", reason.label()));
            return Err(reason);
        }
        Err(_) => {
            service.warn(&format_args!("connect: no answer within {} ms", limits::CONNECT_MS));
            return Err(Reason::ConnectTimeout);
        }
    };
    // Failing here would mean that the connection is gone already; the next step sees it.
    let _ = stream.set_nodelay(true);
    let Some((config, name)) = &service.shared.client else { return converse(stream).await };
    let connecting = TlsConnector::from(config.clone()).connect(name.clone(), stream);
    match timeout(ms(limits::UPSTREAM_HANDSHAKE_MS), connecting).await {
        Ok(Ok(stream)) => converse(stream).await,
        Ok(Err(error)) => {
            service.warn(&format_args!("TLS handshake: {error}"));
            Err(Reason::Tls)
        }
        Err(_) => {
            service.warn(&format_args!("TLS handshake: not done within {} ms", limits::UPSTREAM_HANDSHAKE_MS));
            Err(Reason::Tls)
        }
    }
}

/// Speaks HTTP/1.1 over a stream, in a task of its own.
async fn converse<S>(stream: S) -> Result<Upstream, Reason>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + 'static,
{
    let mut builder = http1::Builder::new();
    builder.max_buf_size(limits::CONNECTION_BUFFER_BYTES);
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(|_| Reason::Closed)?;
    spawn_local(async move {
        // The request that meets an error reports it; an idle connection that ends is no error.
        let _ = connection.await;
    });
    Ok(Upstream::new(sender))
}

fn reason(error: &io::Error) -> Reason {
    match error.raw_os_error() {
        // What the kernel's connect hook answers for a service without a healthy backend, or whose backends are full.
        Some(libc::EPERM | libc::EACCES) => Reason::NoBackend,
        Some(libc::ECONNREFUSED) => Reason::Refused,
        Some(libc::ETIMEDOUT) => Reason::ConnectTimeout,
        Some(libc::ECONNRESET) => Reason::Closed,
        _ => Reason::Unreachable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_connect_have_their_reason() {
        for (errno, expected) in [
            (libc::EPERM, Reason::NoBackend),
            (libc::EACCES, Reason::NoBackend),
            (libc::ECONNREFUSED, Reason::Refused),
            (libc::ETIMEDOUT, Reason::ConnectTimeout),
            (libc::EHOSTUNREACH, Reason::Unreachable),
            (libc::ENETUNREACH, Reason::Unreachable),
        ] {
            assert_eq!(reason(&io::Error::from_raw_os_error(errno)), expected, "{errno}");
        }
    }
}
