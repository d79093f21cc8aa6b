//! Waiting for a condition with a deadline: the one place of the bed that sleeps.

use std::fmt::Display;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

/// Time between two looks.
const POLL: Duration = Duration::from_millis(20);

/// Waits until `condition` holds, at most for `deadline`; fails with `what` and the last error.
///
/// An error of the condition counts as "not yet".
pub fn eventually(deadline: Duration, what: &str, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    obtained(deadline, what, || Ok(condition()?.then_some(())))
}

/// Waits until `attempt` gives something, at most for `deadline`.
pub fn obtained<T>(deadline: Duration, what: &str, mut attempt: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    loop {
        let error = match attempt() {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        if start.elapsed() >= deadline {
            let seconds = deadline.as_secs_f32();
            let why = error.as_ref().map_or(&"it does not hold" as &dyn Display, |error| error);
            return Err(anyhow!("waited {seconds:.1} s in vain for: {what}: {why:#}"));
        }
        thread::sleep(POLL.min(deadline));
    }
}

/// Lets `period` pass, in steps short enough to notice `cancelled`.
pub fn pause(period: Duration, cancelled: impl Fn() -> bool) {
    let end = Instant::now() + period;
    while !cancelled() {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        thread::sleep(left.min(POLL));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_is_told() {
        let error = eventually(Duration::ZERO, "the sky falls", || Err(anyhow!("too blue"))).expect_err("a time-out");
        assert_eq!(error.to_string(), "waited 0.0 s in vain for: the sky falls: too blue");
    }

    #[test]
    fn a_condition_that_comes_true_ends_the_wait() {
        let mut looks = 0;
        let waited = eventually(Duration::from_secs(5), "three looks", || {
            looks += 1;
            Ok(looks == 3)
        });
        assert!(waited.is_ok() && looks == 3);
    }
}
