//! What somebody should see to on this server, beside the lease: it is told until it is done.

use std::time::{Duration, Instant};

use super::Work;
use crate::process::postgres::Diverged;

/// Time between two looks into the folder.
const LOOK: Duration = Duration::from_secs(5);

/// What was seen last.
#[derive(Debug, Default)]
pub(super) struct Chores {
    looked: Option<Instant>,
    pub(super) diverged: Diverged,
}

impl<S> Work<S> {
    /// Looks what there is to do, now and then.
    pub(super) fn look_for_chores(&mut self) {
        if self.chores.looked.is_none_or(|at| at.elapsed() >= LOOK) {
            self.chores = Chores { looked: Some(Instant::now()), diverged: self.grip.diverged() };
        }
    }

    /// Settings that take effect at the next start.
    pub(super) fn pending(&self) -> Vec<String> {
        self.watcher.look().map(|look| look.pending.clone()).unwrap_or_default()
    }

    /// What this server says of itself to people.
    pub(super) fn told(&self) -> String {
        let pending = self.pending();
        let restart = (!pending.is_empty()).then(|| format!("needs a restart for {}", pending.join(", ")));
        let count = self.chores.diverged.transactions;
        let diverged = (count > 0).then(|| format!("{count} transactions that were committed here alone are kept"));
        let note = (!self.note.is_empty()).then(|| self.note.clone());
        let all: Vec<String> = [note, restart, diverged].into_iter().flatten().collect();
        all.join("; ")
    }
}
