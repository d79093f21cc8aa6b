//! From the clock that programs write into their logs to the one that writers log by.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::failover::now_us;

/// Microseconds of Unix time as those of the boot-time clock: both are of this machine.
pub(super) fn boot_us(unix_us: i64) -> i64 {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_micros());
    unix_us - i64::try_from(unix).unwrap_or(i64::MAX) + now_us()
}
