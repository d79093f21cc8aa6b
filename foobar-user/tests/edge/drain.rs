//! SIGTERM, replacement, and the death of the agent.

use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::time::timeout;

use crate::backend::eventually;
use crate::bed::Bed;
use crate::client::{fetch, get, h1, text};

#[tokio::test]
async fn a_request_in_flight_is_answered_after_sigterm() {
    let mut bed = Bed::start().await;
    let mut sender = h1(&bed).await;
    let pending = tokio::spawn(sender.send_request(get("/slow")));
    bed.backend.seen.arrived.notified().await;
    bed.signal(Signal::SIGTERM);
    bed.backend.seen.go.notify_one();
    let response = pending.await.expect("task").expect("response");
    assert_eq!(text(response).await, (200, "hello".into()));
    let status = timeout(Duration::from_secs(12), bed.child.wait()).await.expect("drained").expect("status");
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn a_replacement_refuses_nothing() {
    let mut bed = Bed::start().await;
    for _ in 0..3 {
        let successor = bed.edge.spawn().expect("spawn");
        bed.signal(Signal::SIGTERM);
        let mut old = std::mem::replace(&mut bed.child, successor);
        eventually("the old edge ends", async || {
            assert_eq!(fetch(&bed, "/").await.0, 200);
            old.try_wait().expect("wait").is_some()
        })
        .await;
    }
}

#[tokio::test]
async fn a_changed_certificate_is_taken_by_the_next_edge_and_a_broken_one_is_not() {
    let mut bed = Bed::start().await;
    bed.ca.issue("www", &["www.foobar.com"]);
    std::fs::write(&bed.service.key, "broken").expect("write");
    let successor = bed.edge.spawn().expect("spawn with the last good pair");
    bed.signal(Signal::SIGTERM);
    let mut old = std::mem::replace(&mut bed.child, successor);
    old.wait().await.expect("wait");
    assert_eq!(fetch(&bed, "/").await.0, 200);
}
