//! One moment on both clocks: the monotonic one that the kernel compares, and the wall clock that survives a reboot.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

/// A moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Monotonic time in nanoseconds, as `bpf_ktime_get_ns` has it.
    pub monotonic_ns: u64,
    /// Milliseconds since 1970.
    pub wall_ms: u64,
}

impl Now {
    /// This moment.
    #[must_use]
    pub fn read() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // Reading a clock that every kernel has cannot fail.
        let monotonic = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
        Self { monotonic_ns: nanoseconds(monotonic), wall_ms: u64::try_from(wall.as_millis()).unwrap_or(u64::MAX) }
    }

    /// The moment so much later.
    #[must_use]
    pub fn after(self, time: Duration) -> Self {
        let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self {
            monotonic_ns: self.monotonic_ns.saturating_add(nanoseconds(time)),
            wall_ms: self.wall_ms.saturating_add(ms),
        }
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
