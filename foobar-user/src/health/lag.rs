//! How far replicas are behind their primary, and from when on that is too far.
//!
//! Measured against the primary's own log as these checks have seen it grow: a replica that is cut off knows nothing of what it
//! lacks, and one that is idle says that its last transaction is old.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::DatabaseRole;
use crate::plan::Reads;

/// Time for which the primary's positions are remembered where no limit says how long.
const HORIZON: Duration = Duration::from_secs(60);
/// Positions that are remembered at the most.
const POSITIONS_MAX: u32 = 64;

/// Where the end of the primary's log was, and when.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PrimaryLog {
    server: String,
    /// The oldest first; a new one only where the log has grown.
    positions: VecDeque<(Instant, i64)>,
}

impl PrimaryLog {
    /// The primary says where its log ends. Another server's log is another log.
    pub(super) fn note(&mut self, server: &str, position: i64, reads: Reads, now: Instant) {
        if self.server != server || self.end().is_some_and(|end| end > position) {
            self.positions.clear();
            server.clone_into(&mut self.server);
        }
        let horizon = reads.max_lag_s.map_or(HORIZON, |limit| 2 * Duration::from_secs(limit.into()));
        match self.positions.back_mut() {
            Some((_, end)) if *end == position => {}
            // What was written a moment after it is taken for as old as it.
            Some((since, end)) if now.saturating_duration_since(*since) < horizon / POSITIONS_MAX => *end = position,
            _ => self.positions.push_back((now, position)),
        }
        if self.positions.len() > POSITIONS_MAX as usize {
            self.positions.pop_front();
        }
    }

    fn end(&self) -> Option<i64> {
        self.positions.back().map(|(_, position)| *position)
    }

    /// Bytes that a replica has yet to replay, and for how many seconds the oldest of them has been there; `None`: no primary
    /// has been seen.
    pub(super) fn behind(&self, replayed: i64, now: Instant) -> Option<(i64, f64)> {
        let bytes = self.end()?.saturating_sub(replayed).max(0);
        let lacks = self.positions.iter().find(|(_, position)| *position > replayed);
        Some((bytes, lacks.map_or(0.0, |(since, _)| now.saturating_duration_since(*since).as_secs_f64())))
    }
}

/// Whether a replica is too far behind. Who was comes back at half of the limit, so that it does not come and go.
pub(super) fn is_late(role: DatabaseRole, was_late: bool, reads: Reads) -> bool {
    let DatabaseRole::Replica { lag_bytes, lag_seconds } = role else { return false };
    let part = if was_late { 0.5 } else { 1.0 };
    let over = |lag: f64, limit: Option<f64>| limit.is_some_and(|limit| lag > limit * part);
    over(lag_seconds, reads.max_lag_s.map(f64::from))
        || over(lag_bytes as f64, reads.max_lag_bytes.map(|limit| limit as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    const READS: Reads = Reads { max_lag_s: Some(10), max_lag_bytes: Some(1000), fallback_to_primary: true };

    fn late(lag_seconds: f64, lag_bytes: i64, was_late: bool) -> bool {
        is_late(DatabaseRole::Replica { lag_bytes, lag_seconds }, was_late, READS)
    }

    #[test]
    fn limits_are_kept_and_left_at_half() {
        assert!(!late(10.0, 1000, false) && late(10.1, 0, false) && late(0.0, 1001, false));
        assert!(late(5.1, 0, true) && late(0.0, 501, true) && !late(5.0, 500, true));
        assert!(!is_late(DatabaseRole::Primary, true, READS), "who was promoted is not late");
        let endless = DatabaseRole::Replica { lag_bytes: i64::MAX, lag_seconds: 1e9 };
        assert!(!is_late(endless, false, Reads::default()), "no limit");
    }

    #[test]
    fn lag_is_the_age_of_the_oldest_byte_that_is_missing() {
        let (mut log, start) = (PrimaryLog::default(), Instant::now());
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        assert_eq!(log.behind(0, start), None);
        log.note("db1", 100, READS, at(0));
        // Idle: nothing is missing, however long ago it was written.
        assert_eq!(log.behind(100, at(3600)), Some((0, 0.0)));
        for second in 3600_u64..3620 {
            log.note("db1", 100 + second.cast_signed(), READS, at(second));
        }
        assert_eq!(log.behind(3719, at(3620)), Some((0, 0.0)));
        assert_eq!(log.behind(3715, at(3620)), Some((4, 4.0)));
        assert_eq!(log.behind(100, at(3620)), Some((3619, 20.0)), "cut off since it was last written");
    }

    #[test]
    fn another_primary_has_another_log() {
        let (mut log, now) = (PrimaryLog::default(), Instant::now());
        log.note("db1", 5000, READS, now);
        log.note("db2", 4000, READS, now);
        assert_eq!(log.behind(4000, now), Some((0, 0.0)));
        log.note("db2", 3000, READS, now);
        assert_eq!(log.behind(3000, now), Some((0, 0.0)), "its log was made anew");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut log, start) = (PrimaryLog::default(), Instant::now());
        for step in 0..100_000_i64 {
            let now = start + Duration::from_millis(10 * step.unsigned_abs());
            log.note("db1", step, READS, now);
        }
        assert!(log.positions.len() <= POSITIONS_MAX as usize, "{}", log.positions.len());
        let (bytes, seconds) = log.behind(98_999, start + Duration::from_secs(1000)).unwrap();
        assert!(bytes == 1000 && (10.0..=10.4).contains(&seconds), "{bytes} bytes, {seconds} s");
    }
}
