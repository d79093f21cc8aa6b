//! Backend connections that wait for the next request: of one service and one thread, the youngest first.
//! Each lives for a bounded time and number of requests, so that the kernel's choice of backends shows.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use hyper::client::conn::http1::SendRequest;
use tokio::time::timeout;

use super::limits::{self, ms};
use super::metrics::Reason;
use super::request_body::{BodyState, RequestBody};
use super::service::Service;

/// One connection to some backend.
pub(crate) struct Upstream {
    /// Where requests go in.
    pub(crate) sender: SendRequest<RequestBody>,
    opened: Instant,
    idle_since: Instant,
    requests: u32,
}

impl Upstream {
    /// A fresh connection.
    pub(crate) fn new(sender: SendRequest<RequestBody>) -> Self {
        let now = Instant::now();
        Self { sender, opened: now, idle_since: now, requests: 0 }
    }
}

/// Connections without a request.
#[derive(Default)]
pub(crate) struct Pool(RefCell<Vec<Upstream>>);

impl Pool {
    /// The connection used last, if it still lives.
    pub(crate) async fn take(&self) -> Option<Upstream> {
        loop {
            let mut upstream = self.0.borrow_mut().pop()?;
            if upstream.sender.is_closed() || upstream.idle_since.elapsed() > ms(limits::UPSTREAM_IDLE_MS) {
                continue;
            }
            if upstream.sender.is_ready()
                || matches!(timeout(ms(limits::CHECKOUT_MS), upstream.sender.ready()).await, Ok(Ok(())))
            {
                return Some(upstream);
            }
        }
    }

    fn put(&self, mut upstream: Upstream) {
        let mut idle = self.0.borrow_mut();
        let now = Instant::now();
        upstream.idle_since = now;
        if idle.len() >= limits::UPSTREAM_IDLE {
            // The oldest at the bottom are the ones that nobody needs.
            idle.remove(0);
        }
        idle.push(upstream);
        // The bottom is the longest unused: let one go each time, and the pool shrinks as it is used.
        if now.duration_since(idle[0].idle_since) > ms(limits::UPSTREAM_IDLE_MS) {
            idle.remove(0);
        }
    }
}

/// A connection whose response is being read.
pub(crate) struct Lease {
    upstream: Upstream,
    service: Rc<Service>,
    request: Option<Rc<BodyState>>,
}

impl Lease {
    /// The connection, and the body that is sent on it.
    pub(crate) fn new(upstream: Upstream, service: Rc<Service>, request: Option<Rc<BodyState>>) -> Self {
        Self { upstream, service, request }
    }

    /// The response has ended: keeps the connection unless it is spent or its request was answered before it was read.
    pub(crate) fn release(mut self) {
        self.upstream.requests += 1;
        let whole = self.request.is_none_or(|request| request.ended());
        let fresh = self.upstream.requests < limits::UPSTREAM_REQUESTS
            && self.upstream.opened.elapsed() < ms(limits::UPSTREAM_AGE_MS);
        if whole && fresh && !self.upstream.sender.is_closed() {
            self.service.pool.put(self.upstream);
        }
    }

    /// The response broke off: counts it and drops the connection.
    pub(crate) fn fault(self, reason: Reason) {
        self.service.worker.upstream(reason);
    }
}
