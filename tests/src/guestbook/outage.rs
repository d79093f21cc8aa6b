//! What the log says of a time without the database: each request that fails, and how long it was in all.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::pool::Away;

/// The time since the last success, for one way to the database.
#[derive(Debug)]
pub(super) struct Outage {
    /// What is done by this way: "read", "written".
    done: &'static str,
    began: Mutex<Option<Began>>,
}

#[derive(Clone, Copy, Debug)]
struct Began {
    at: Instant,
    failures: u64,
}

impl Outage {
    pub(super) const fn new(done: &'static str) -> Self {
        Self { done, began: Mutex::new(None) }
    }

    /// What is done by this way.
    pub(super) const fn done(&self) -> &'static str {
        self.done
    }

    /// A request has failed.
    pub(super) fn failed(&self, away: &Away) {
        eprintln!("guestbook: nothing could be {}: {away}", self.done);
        let mut began = self.began.lock().unwrap_or_else(PoisonError::into_inner);
        let known = began.get_or_insert(Began { at: Instant::now(), failures: 0 });
        known.failures += 1;
    }

    /// A request has succeeded.
    pub(super) fn over(&self) {
        let began = self.began.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Began { at, failures }) = began {
            let seconds = at.elapsed().as_secs_f64();
            eprintln!("guestbook: {} again after {seconds:.2} s, in which {failures} requests failed", self.done);
        }
    }
}
