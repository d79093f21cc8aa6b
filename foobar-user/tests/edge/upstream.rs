//! The backends' side: who is believed, what is kept, what is tried again, what is told to clients.

use http::Method;
use http_body_util::BodyExt;

use crate::bed::Bed;
use crate::client::{fetch, get, h1, text};
use crate::free_address::free_address;
use crate::pki::Ca;

async fn upstream_errors(bed: &Bed, reason: &str) -> f64 {
    bed.metric(&format!("foobar_edge_upstream_errors_total{{reason=\"{reason}\"}}")).await
}

/// The service has two backends: two connections, in turn.
#[tokio::test]
async fn as_many_connections_as_backends_serve_many_requests() {
    let bed = Bed::start().await;
    let mut sender = h1(&bed).await;
    for _ in 0..50 {
        sender.ready().await.expect("ready");
        let response = sender.send_request(get("/")).await.expect("response");
        assert_eq!(text(response).await, (200, "hello".into()));
    }
    assert_eq!((bed.backend.requests(), bed.backend.connections()), (50, 2));
    assert_eq!(bed.metric("foobar_edge_requests_total{service=\"www\",code=\"200\"}").await, 50.0);
    assert_eq!(bed.metric("foobar_edge_request_duration_seconds_count{service=\"www\"}").await, 50.0);
}

#[tokio::test]
async fn a_stale_connection_costs_no_request_that_can_be_sent_again() {
    let bed = Bed::start().await;
    let mut sender = h1(&bed).await;
    // Two connections are opened before one is used again.
    for _ in 0..3 {
        sender.ready().await.expect("ready");
        let response = sender.send_request(get("/die-when-reused")).await.expect("response");
        assert_eq!(text(response).await, (200, "hello".into()));
    }
    assert_eq!((bed.backend.requests(), bed.backend.connections()), (4, 3));
    assert_eq!(upstream_errors(&bed, "retried").await, 1.0);
}

#[tokio::test]
async fn a_post_that_was_sent_is_not_sent_again() {
    let bed = Bed::start().await;
    let mut sender = h1(&bed).await;
    let mut request = get("/die");
    *request.method_mut() = Method::POST;
    assert_eq!(text(sender.send_request(request).await.expect("response")).await.0, 502);
    assert_eq!(bed.backend.requests(), 1);
}

#[tokio::test]
async fn a_refused_connection_is_502_after_three_attempts() {
    let bed = Bed::with(|_, mut service| {
        service.upstream = free_address();
        service
    })
    .await;
    assert_eq!(fetch(&bed, "/").await, (502, "502 Bad Gateway\n".into()));
    assert_eq!(upstream_errors(&bed, "refused").await, 3.0);
}

#[tokio::test]
async fn a_backend_that_does_not_answer_is_504() {
    let bed = Bed::start().await;
    let mut sender = h1(&bed).await;
    let response = sender.send_request(get("/slow")).await.expect("response");
    assert_eq!(text(response).await, (504, "504 Gateway Timeout\n".into()));
    assert_eq!(upstream_errors(&bed, "response_timeout").await, 1.0);
}

#[tokio::test]
async fn a_backend_of_another_name_is_refused() {
    let bed = Bed::with_backend("app1", |_, service| service).await;
    assert_eq!(fetch(&bed, "/").await.0, 502);
    assert_eq!((bed.backend.requests(), upstream_errors(&bed, "tls").await), (0, 3.0));
}

#[tokio::test]
async fn a_backend_of_another_ca_is_refused() {
    let other = tempfile::tempdir().expect("folder");
    let foreign = Ca::new(other.path(), "ca");
    let bed = Bed::with(|_, mut service| {
        drop(foreign);
        service.upstream_tls.as_mut().expect("TLS").ca = other.path().join("ca.pem");
        service
    })
    .await;
    assert_eq!(fetch(&bed, "/").await.0, 502);
    assert_eq!((bed.backend.requests(), upstream_errors(&bed, "tls").await), (0, 3.0));
}

#[tokio::test]
async fn an_edge_with_a_foreign_certificate_is_refused_by_the_backend() {
    let other = tempfile::tempdir().expect("folder");
    let (certificate, key) = Ca::new(other.path(), "ca").issue("lb1", &["lb1"]);
    let bed = Bed::with(|_, mut service| {
        let tls = service.upstream_tls.as_mut().expect("TLS");
        (tls.certificate, tls.key) = (certificate, key);
        service
    })
    .await;
    assert_eq!(fetch(&bed, "/").await.0, 502);
    assert_eq!((bed.backend.requests(), bed.backend.connections()), (0, 0));
}

#[tokio::test]
async fn unread_responses_do_not_poison_the_pool() {
    let bed = Bed::start().await;
    let response = h1(&bed).await.send_request(get("/large")).await.expect("response");
    drop(response.into_body().frame().await);
    assert_eq!(fetch(&bed, "/").await, (200, "hello".into()));
}
