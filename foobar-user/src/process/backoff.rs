//! Time between restarts: doubles with every quick failure, forgets after a good run.

use std::time::Duration;

/// Pause after the first failure, in milliseconds.
const FIRST_MS: u64 = 100;
/// Longest pause, in milliseconds.
const LONGEST_MS: u64 = 10_000;
/// A run of this many milliseconds is good: earlier failures are forgotten.
const GOOD_RUN_MS: u64 = 10_000;
/// Quick failures in a row that make a crash loop.
const CRASH_LOOP_FAILURES: u32 = 5;

/// The restart policy of one process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Notes that a run of length `ran` failed; returns the pause before the next.
    #[must_use]
    pub fn failed(&mut self, ran: Duration) -> Duration {
        if ran >= Duration::from_millis(GOOD_RUN_MS) {
            self.failures = 0;
        }
        let pause_ms = FIRST_MS.saturating_mul(1 << self.failures.min(16)).min(LONGEST_MS);
        self.failures = self.failures.saturating_add(1);
        Duration::from_millis(pause_ms)
    }

    /// Whether the last runs were all too short.
    #[must_use]
    pub fn crash_loop(&self) -> bool {
        self.failures >= CRASH_LOOP_FAILURES
    }

    /// Forgets all failures.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_cap() {
        let mut backoff = Backoff::default();
        let pauses: Vec<u128> = (0..9).map(|_| backoff.failed(Duration::ZERO).as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        assert!(backoff.crash_loop());
    }

    #[test]
    fn a_good_run_forgets() {
        let mut backoff = Backoff::default();
        for _ in 0..8 {
            let _ = backoff.failed(Duration::ZERO);
        }
        assert_eq!(backoff.failed(Duration::from_secs(10)).as_millis(), 100);
        assert!(!backoff.crash_loop());
    }
}
