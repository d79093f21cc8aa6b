//! The HTTP endpoint: what it answers, what it refuses, and what it says when it cannot listen.

mod metrics_support;

use std::sync::Arc;

use foobar_user::metrics::{Listeners, Metrics, serve};
use metrics_support::full_sources;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

struct Endpoint {
    address: std::net::SocketAddr,
    serving: tokio::task::JoinHandle<()>,
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn endpoint(render: serve::Render) -> Endpoint {
    let listeners = Listeners::bind(&["127.0.0.1:0".parse().unwrap()]).unwrap();
    let address = listeners.addresses()[0];
    let serving = tokio::spawn(async move {
        let error = listeners.serve(render).await.unwrap_err();
        panic!("the endpoint ended: {error}");
    });
    Endpoint { address, serving }
}

async fn ask(endpoint: &Endpoint, head: &str) -> String {
    let mut stream = TcpStream::connect(endpoint.address).await.unwrap();
    let _cut = stream.write_all(format!("{head}\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).await;
    let mut answer = String::new();
    let _cut = stream.read_to_string(&mut answer).await;
    answer
}

fn all() -> serve::Render {
    Arc::new(Metrics::new(full_sources())).renderer()
}

#[tokio::test]
async fn each_client_gets_its_format() {
    let endpoint = endpoint(all());
    let open = ask(&endpoint, "GET /metrics HTTP/1.1\r\nAccept: application/openmetrics-text; version=1.0.0").await;
    assert!(open.starts_with("HTTP/1.1 200 OK\r\n"), "{open}");
    assert!(open.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n"), "{open}");
    assert!(open.contains("# TYPE foobar_verdict_packets counter\n") && open.ends_with("# EOF\n"), "{open}");
    let plain = ask(&endpoint, "GET /metrics HTTP/1.1").await;
    assert!(plain.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{plain}");
    assert!(plain.contains("# TYPE foobar_verdict_packets_total counter\n"), "{plain}");
}

#[tokio::test]
async fn other_requests_are_refused() {
    let endpoint = endpoint(all());
    let long = format!("GET /metrics HTTP/1.1\r\nX: {}", "x".repeat(2 * serve::HEAD_MAX_BYTES));
    let table = [
        ("GET /healthz HTTP/1.1", "HTTP/1.1 200 "),
        ("HEAD /metrics HTTP/1.1", "HTTP/1.1 200 "),
        ("GET / HTTP/1.1", "HTTP/1.1 404 "),
        ("GET /metrics/../etc/passwd HTTP/1.1", "HTTP/1.1 404 "),
        ("POST /metrics HTTP/1.1", "HTTP/1.1 405 "),
        ("what is this", "HTTP/1.1 400 "),
        (&long, "HTTP/1.1 431 "),
    ];
    for (head, start) in table {
        let answer = ask(&endpoint, head).await;
        assert!(answer.starts_with(start), "{head:.60}: {answer:.200}");
    }
}

#[tokio::test]
async fn a_failure_is_told_with_its_reason() {
    let endpoint = endpoint(Arc::new(|| Box::pin(async { anyhow::bail!("the moon is full") })));
    let answer = ask(&endpoint, "GET /metrics HTTP/1.1").await;
    assert!(answer.starts_with("HTTP/1.1 500 ") && answer.ends_with("the moon is full\n"), "{answer}");
}

#[tokio::test]
async fn silent_clients_do_not_take_more_than_their_places() {
    let endpoint = endpoint(all());
    let mut silent = Vec::new();
    for _ in 0..2 * serve::CONNECTIONS_MAX {
        silent.push(TcpStream::connect(endpoint.address).await.unwrap());
    }
    drop(silent);
    let answer = ask(&endpoint, "GET /metrics HTTP/1.1").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer:.200}");
}

#[tokio::test]
async fn a_taken_or_foreign_address_is_explained() {
    let endpoint = endpoint(all());
    let error = Listeners::bind(&[endpoint.address]).unwrap_err();
    let message = error.to_string();
    assert!(message.contains("port in use") && message.contains(&endpoint.address.to_string()), "{message}");
    let foreign = Listeners::bind(&["192.0.2.1:9900".parse().unwrap()]).unwrap_err().to_string();
    assert!(foreign.contains("no interface here has 192.0.2.1"), "{foreign}");
}
