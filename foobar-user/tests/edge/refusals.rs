//! Requests and handshakes that are refused, and never reach a backend.

use std::process::Stdio;

use crate::bed::{Bed, DOMAIN};
use crate::client::raw;

#[tokio::test]
async fn bad_requests_get_a_status_and_reach_no_backend() {
    let bed = Bed::start().await;
    let cases: &[(&str, &str, u16)] = &[
        (
            "length, then chunked",
            "POST / HTTP/1.1\r\nHost: @\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (
            "chunked, then length",
            "POST / HTTP/1.1\r\nHost: @\r\nTransfer-Encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\n",
            400,
        ),
        ("two lengths", "POST / HTTP/1.1\r\nHost: @\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcd", 400),
        ("length list", "POST / HTTP/1.1\r\nHost: @\r\nContent-Length: 4, 4\r\n\r\nabcd", 400),
        ("signed length", "POST / HTTP/1.1\r\nHost: @\r\nContent-Length: +4\r\n\r\nabcd", 400),
        ("chunked not last", "POST / HTTP/1.1\r\nHost: @\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", 400),
        ("unknown coding", "POST / HTTP/1.1\r\nHost: @\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
        ("coding in 1.0", "POST / HTTP/1.0\r\nHost: @\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("space before colon", "GET / HTTP/1.1\r\nHost : @\r\n\r\n", 400),
        ("folded header", "GET / HTTP/1.1\r\nHost: @\r\nX: a\r\n b\r\n\r\n", 400),
        ("no host", "GET / HTTP/1.1\r\nConnection: close\r\n\r\n", 400),
        ("two hosts", "GET / HTTP/1.1\r\nHost: @\r\nHost: @\r\nConnection: close\r\n\r\n", 400),
        ("absolute form, other host", "GET https://@/ HTTP/1.1\r\nHost: evil\r\nConnection: close\r\n\r\n", 400),
        ("unknown host", "GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n", 421),
        ("upgrade", "GET / HTTP/1.1\r\nHost: @\r\nConnection: close, upgrade\r\nUpgrade: websocket\r\n\r\n", 501),
        ("connect", "CONNECT @:443 HTTP/1.1\r\nHost: @:443\r\nConnection: close\r\n\r\n", 405),
        ("trace", "TRACE / HTTP/1.1\r\nHost: @\r\nConnection: close\r\n\r\n", 405),
    ];
    for (name, request, status) in cases {
        let answer = raw(&bed, request.replace('@', DOMAIN).as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{name}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{name}: one answer, then closed: {answer}");
        assert_eq!(bed.backend.requests(), 0, "{name}");
    }
}

#[tokio::test]
async fn only_tls_1_2_and_1_3_are_spoken() {
    let bed = Bed::start().await;
    for (version, served) in [("-tls1_1", false), ("-tls1_2", true), ("-tls1_3", true)] {
        let output = tokio::process::Command::new("openssl")
            // Level 0, or openssl itself would refuse the old version and prove nothing.
            .args(["s_client", "-cipher", "ALL:@SECLEVEL=0", version, "-connect", &bed.address().to_string()])
            .stdin(Stdio::null())
            .output()
            .await
            .expect("openssl is installed");
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(!text.contains("Cipher is (NONE)"), served, "{version}: {text}");
    }
    assert!(bed.metric("foobar_edge_handshakes_total{version=\"1.2\",result=\"ok\"}").await >= 1.0);
    assert!(bed.metric("foobar_edge_handshakes_total{version=\"1.3\",result=\"ok\"}").await >= 1.0);
    assert!(bed.metric("foobar_edge_handshakes_total{version=\"none\",result=\"error\"}").await >= 1.0);
}
