//! Who wants a process not to run: it runs while nobody does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// Somebody who may hold a process back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Hold {
    /// An operator, by `foobar process stop`.
    Operator = 1,
    /// Another part of the agent.
    Agent = 2,
}

/// Who holds one process back now; seen by its task and by everybody who gives it orders.
#[derive(Clone, Debug, Default)]
pub(super) struct Holds(Arc<AtomicU8>);

impl Holds {
    pub(super) fn set(&self, hold: Hold) {
        self.0.fetch_or(hold as u8, Ordering::SeqCst);
    }

    pub(super) fn clear(&self, hold: Hold) {
        self.0.fetch_and(!(hold as u8), Ordering::SeqCst);
    }

    pub(super) fn any(&self) -> bool {
        self.0.load(Ordering::SeqCst) != 0
    }

    pub(super) fn has(&self, hold: Hold) -> bool {
        self.0.load(Ordering::SeqCst) & hold as u8 != 0
    }

    /// Why it does not run, for people.
    pub(super) fn reason(&self) -> String {
        if self.has(Hold::Operator) { "stopped by an operator" } else { "held back by the agent" }.to_owned()
    }
}
