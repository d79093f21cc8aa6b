//! Limits on what a client may take.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::StreamBody;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;

use crate::bed::{Bed, DOMAIN};
use crate::client::{self, raw, tls};

const MIB: usize = 1024 * 1024;

#[tokio::test]
async fn a_slow_head_ends_the_connection() {
    let bed = Bed::start().await;
    let mut stream = tls(&bed, "http/1.1").await;
    let start = Instant::now();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: ").await.expect("write");
    client::read_to_end(&mut stream).await;
    assert!((Duration::from_secs(9)..Duration::from_secs(15)).contains(&start.elapsed()), "{:?}", start.elapsed());
    assert_eq!(bed.backend.requests(), 0);
}

#[tokio::test]
async fn a_silent_handshake_ends_the_connection() {
    let bed = Bed::start().await;
    let mut stream = tokio::net::TcpStream::connect(bed.address()).await.expect("connect");
    let start = Instant::now();
    client::read_to_end(&mut stream).await;
    assert!((Duration::from_secs(4)..Duration::from_secs(9)).contains(&start.elapsed()), "{:?}", start.elapsed());
    assert!(bed.metric("foobar_edge_handshakes_total{version=\"none\",result=\"timeout\"}").await >= 1.0);
}

#[tokio::test]
async fn a_large_head_is_refused() {
    let bed = Bed::start().await;
    let large = "a".repeat(40 * 1024);
    let answer = raw(&bed, format!("GET / HTTP/1.1\r\nHost: {DOMAIN}\r\nX: {large}\r\n\r\n").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    let many = "X: 1\r\n".repeat(101);
    let answer = raw(&bed, format!("GET / HTTP/1.1\r\nHost: {DOMAIN}\r\n{many}\r\n").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    assert_eq!(bed.backend.requests(), 0);
}

#[tokio::test]
async fn a_declared_large_body_is_refused_at_once() {
    let bed = Bed::start().await;
    let request = format!("POST /echo HTTP/1.1\r\nHost: {DOMAIN}\r\nContent-Length: {}\r\n\r\n", 10 * MIB + 1);
    let answer = raw(&bed, request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert_eq!(bed.backend.requests(), 0);
}

#[tokio::test]
async fn a_chunked_body_is_counted_as_it_flows() {
    let bed = Bed::start().await;
    for (pieces, status) in [(10, 200), (11, 413)] {
        let io = TokioIo::new(tls(&bed, "h2").await);
        let executor = hyper_util::rt::TokioExecutor::new();
        let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.expect("handshake");
        tokio::spawn(connection);
        let (give, take) = tokio::sync::mpsc::channel::<Bytes>(1);
        let body = StreamBody::new(Pieces(take));
        let request = Request::post(format!("https://{DOMAIN}/echo")).body(body).expect("request");
        let response = tokio::spawn(async move { sender.send_request(request).await.expect("response") });
        for _ in 0..pieces {
            if give.send(Bytes::from(vec![b'x'; MIB])).await.is_err() {
                break;
            }
        }
        drop(give);
        assert_eq!(response.await.expect("task").status(), status, "{pieces} MiB");
    }
}

/// A channel as a stream of frames.
struct Pieces(tokio::sync::mpsc::Receiver<Bytes>);

impl futures_core::Stream for Pieces {
    type Item = Result<http_body::Frame<Bytes>, std::convert::Infallible>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.0.poll_recv(cx).map(|piece| piece.map(|piece| Ok(http_body::Frame::data(piece))))
    }
}
