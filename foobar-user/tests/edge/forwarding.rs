//! What a backend sees of a request, and a client of a response.

use http::{Request, Version};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::bed::{Bed, DOMAIN};
use crate::client::{self, Body, fetch, get, h1, h2, text};

#[tokio::test]
async fn http1_is_forwarded_with_headers_of_our_own() {
    let bed = Bed::start().await;
    let request = Request::builder().uri("/page?a=1").header("host", DOMAIN);
    let request = request
        .header("x-forwarded-for", "6.6.6.6")
        .header("x-forwarded-proto", "http")
        .header("forwarded", "for=6.6.6.6")
        .header("x-real-ip", "6.6.6.6")
        .header("x_forwarded_for", "6.6.6.6")
        .header("connection", "x-hop")
        .header("x-hop", "1")
        .header("x-kept", "1");
    let response =
        h1(&bed).await.send_request(request.body(Body::default()).expect("request")).await.expect("response");
    assert_eq!(text(response).await, (200, "hello".into()));
    let (line, headers) = bed.backend.last();
    assert_eq!(line, "GET /page?a=1");
    let mut seen: Vec<String> =
        headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().expect("ascii"))).collect();
    seen.sort();
    let expected = [
        "forwarded: for=127.0.0.1;host=\"www.foobar.com\";proto=https",
        "host: www.foobar.com",
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-host: www.foobar.com",
        "x-forwarded-proto: https",
        "x-kept: 1",
    ];
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn http2_is_forwarded_as_http1() {
    let bed = Bed::start().await;
    let mut sender = h2(&bed).await;
    let request = Request::builder().version(Version::HTTP_2).method("POST").uri(format!("https://{DOMAIN}/echo"));
    let request = request.header("cookie", "a=1").header("cookie", "b=2").body(Body::from("body")).expect("request");
    let response = sender.send_request(request).await.expect("response");
    assert_eq!(response.version(), Version::HTTP_2);
    assert_eq!(text(response).await, (200, "body".into()));
    let (line, headers) = bed.backend.last();
    assert_eq!(line, "POST /echo");
    assert_eq!(headers["host"], DOMAIN);
    assert_eq!(headers["cookie"], "a=1; b=2");
    assert_eq!(headers["content-length"], "4");
}

#[tokio::test]
async fn large_responses_and_statuses_pass() {
    let bed = Bed::start().await;
    let (status, body) = fetch(&bed, "/large").await;
    assert_eq!((status, body.len()), (200, 1 << 20));
    assert_eq!(fetch(&bed, "/missing").await, (404, "nothing".into()));
    let mut sender = h1(&bed).await;
    let mut head = get("/large");
    *head.method_mut() = http::Method::HEAD;
    let response = sender.send_request(head).await.expect("response");
    assert_eq!(response.headers()["content-length"], "1048576");
}

#[tokio::test]
async fn hop_by_hop_headers_of_a_response_end_here() {
    let bed = Bed::start().await;
    let response = h1(&bed).await.send_request(get("/hop")).await.expect("response");
    assert_eq!(response.headers()["x-end"], "2");
    for gone in ["x-inner", "keep-alive", "connection"] {
        assert!(!response.headers().contains_key(gone), "{gone}");
    }
}

#[tokio::test]
async fn plain_http_is_redirected() {
    let bed = Bed::start().await;
    let port = bed.address().port();
    for (host, expected) in [
        (DOMAIN, format!("HTTP/1.1 308 Permanent Redirect\r\nlocation: https://{DOMAIN}:{port}/a?b=c\r\n")),
        ("evil.example", "HTTP/1.1 421 ".to_owned()),
    ] {
        let mut stream = TcpStream::connect(bed.service.redirect[0]).await.expect("connect");
        let request = format!("GET /a?b=c HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("write");
        let answer = client::read_to_end(&mut stream).await;
        assert!(answer.starts_with(&expected), "{answer}");
        assert!(host == DOMAIN || !answer.contains("location"), "{answer}");
    }
    assert_eq!(bed.backend.requests(), 0);
}
