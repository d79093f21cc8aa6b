//! Token buckets by one number: the time at which the bucket is full again (GCRA, ITU-T I.371).

/// What the bucket's time becomes when one more is taken at `now`; `None`: the bucket is empty.
///
/// One more takes `interval_ns`; what a burst takes at once fits into `burst_ns`. A bucket nobody took from has time 0.
#[inline(always)]
#[must_use]
pub const fn taken(full_at_ns: u64, now_ns: u64, interval_ns: u64, burst_ns: u64) -> Option<u64> {
    let from = if full_at_ns > now_ns { full_at_ns } else { now_ns };
    let next = from + interval_ns;
    if next - now_ns > burst_ns { None } else { Some(next) }
}

#[cfg(test)]
mod tests {
    use super::taken;

    const SECOND: u64 = 1_000_000_000;

    /// Takes as often as it can at each of the times; how many were given.
    fn given(interval: u64, burst: u64, times: impl Iterator<Item = u64>) -> u64 {
        let (mut full_at, mut count) = (0, 0);
        for now in times {
            while let Some(next) = taken(full_at, now, interval, burst * interval) {
                (full_at, count) = (next, count + 1);
            }
        }
        count
    }

    #[test]
    fn a_burst_is_given_at_once_and_no_more() {
        assert_eq!(given(SECOND / 10, 20, std::iter::once(5 * SECOND)), 20);
        assert_eq!(given(SECOND / 10, 1, std::iter::once(5 * SECOND)), 1);
    }

    #[test]
    fn the_rate_is_given_over_time_whatever_the_steps() {
        let fine = (0..10_000).map(|ms| SECOND + ms * 1_000_000);
        assert_eq!(given(SECOND / 10, 20, fine), 20 + 99);
        let coarse = (0..11).map(|s| (1 + s) * SECOND);
        assert_eq!(given(SECOND / 10, 10, coarse), 10 + 100);
    }

    #[test]
    fn an_empty_bucket_is_not_drained_further_by_who_asks_in_vain() {
        let full_at = taken(0, SECOND, SECOND, SECOND).unwrap();
        assert_eq!(taken(full_at, SECOND + 1, SECOND, SECOND), None);
        assert!(taken(full_at, 2 * SECOND, SECOND, SECOND).is_some());
    }
}
