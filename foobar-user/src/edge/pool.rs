//! Backend connections that wait for the next request: of one service and one thread, the longest idle first.
//!
//! The kernel chooses the backend of a connection, so requests spread as connections do: there are at least as many as
//! backends before one is used again, they take turns, and each lives for a bounded time and number of requests.

use std::cell::RefCell;
use std::collections::VecDeque;
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
pub(crate) struct Pool {
    idle: RefCell<VecDeque<Upstream>>,
    /// With fewer idle connections a new one is opened rather than one used again.
    spread: usize,
}

impl Pool {
    /// An empty pool for a service with so many backends.
    pub(crate) fn new(backends: usize) -> Self {
        Self { idle: RefCell::default(), spread: backends.clamp(1, limits::UPSTREAM_IDLE) }
    }

    /// The connection that has waited longest, if there are enough and it still lives.
    pub(crate) async fn take(&self) -> Option<Upstream> {
        loop {
            if self.idle.borrow().len() < self.spread {
                return None;
            }
            let mut upstream = self.idle.borrow_mut().pop_front()?;
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
        let mut idle = self.idle.borrow_mut();
        upstream.idle_since = Instant::now();
        idle.push_back(upstream);
        // The front is the longest unused: let one go each time, and the pool shrinks as it is used.
        let spent = |front: &Upstream| front.idle_since.elapsed() > ms(limits::UPSTREAM_IDLE_MS);
        if idle.len() > limits::UPSTREAM_IDLE || idle.front().is_some_and(spent) {
            idle.pop_front();
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
