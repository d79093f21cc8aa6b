//! What is known of one client connection beside its bytes: requests in flight, signs of progress, the head being read.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Instant;

use super::limits;
use super::metrics::ServiceStats;

/// Shared by a connection's transport, its requests and its watcher; one thread.
#[derive(Default)]
pub(crate) struct Progress {
    in_flight: Cell<u32>,
    steps: Cell<u64>,
    record: Cell<bool>,
    head: RefCell<Vec<u8>>,
}

impl Progress {
    /// For HTTP/1.1: raw heads are kept for `claims_two_lengths`.
    pub(crate) fn http1() -> Self {
        Self { record: Cell::new(true), ..Self::default() }
    }

    /// Something moved.
    pub(crate) fn step(&self) {
        self.steps.set(self.steps.get().wrapping_add(1));
    }

    /// Number of steps until now.
    pub(crate) fn steps(&self) -> u64 {
        self.steps.get()
    }

    /// Whether a request is being answered.
    pub(crate) fn busy(&self) -> bool {
        self.in_flight.get() > 0
    }

    /// Keeps what was read while no request was in flight: the next request's head.
    pub(crate) fn received(&self, bytes: &[u8]) {
        if self.record.get() && !self.busy() {
            let mut head = self.head.borrow_mut();
            let room = limits::REQUEST_HEAD_BYTES.saturating_sub(head.len());
            head.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
    }

    /// Whether the head just parsed bore `Content-Length`. hyper removes it beside `Transfer-Encoding`, forwards such a request
    /// unambiguously and closes; we refuse it (RFC 9112 6.1). A pipelined head is not recorded, and gets hyper's answer.
    pub(crate) fn head_has_length(&self) -> bool {
        let head = self.head.borrow();
        let end = head.windows(4).position(|window| window == b"\r\n\r\n").unwrap_or(head.len());
        head[..end]
            .split(|&byte| byte == b'\n')
            .any(|line| line.get(..15).is_some_and(|name| name.eq_ignore_ascii_case(b"content-length:")))
    }

    /// A request begins.
    pub(crate) fn begin(self: &Rc<Self>, stats: std::sync::Arc<ServiceStats>) -> InFlight {
        self.step();
        self.in_flight.set(self.in_flight.get() + 1);
        InFlight { progress: self.clone(), stats, started: Instant::now() }
    }

    /// Forgets the recorded head.
    pub(crate) fn forget_head(&self) {
        self.head.borrow_mut().clear();
    }
}

/// A request being answered, until the last byte of its response was handed on or the client left.
pub(crate) struct InFlight {
    /// Its connection.
    pub(crate) progress: Rc<Progress>,
    stats: std::sync::Arc<ServiceStats>,
    started: Instant,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.progress.in_flight.set(self.progress.in_flight.get() - 1);
        self.progress.step();
        self.stats.duration(self.started.elapsed());
    }
}
