//! Limits: token buckets for each source, and how many connections it has open.

use core::arch::asm;

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use foobar_common::abi::BucketKey;
use foobar_common::bucket;
use foobar_common::open::{BUCKETS, Place, WAYS};

use crate::maps::{BUCKETS as TOKENS, OPEN_COUNTS, SEED};
use crate::{atomic, maps};

/// Attempts to take from a bucket that other CPUs take from.
const ATTEMPTS: u32 = 3;

/// Takes one from a source's bucket; false: it is empty.
#[inline(never)]
pub(crate) fn take(key: &BucketKey, interval_ns: u64, burst_ns: u64) -> bool {
    // SAFETY: a helper without pointers. The fine clock: at the coarse one's steps of milliseconds a fast limit would stutter.
    let now = unsafe { bpf_ktime_get_ns() };
    let Some(bucket) = TOKENS.get_ptr_mut(key) else {
        let Some(next) = bucket::taken(0, now, interval_ns, burst_ns) else { return false };
        // Two CPUs may both begin a source's bucket: it then gives one more. A table that refuses an entry gives nothing.
        return maps::dry() || TOKENS.insert(key, next, 0).is_ok();
    };
    // SAFETY: a map value; whoever changes it in between is noticed below.
    let mut seen = unsafe { core::ptr::read_volatile(bucket) };
    for _ in 0..ATTEMPTS {
        let Some(next) = bucket::taken(seen, now, interval_ns, burst_ns) else { return false };
        if maps::dry() {
            return true;
        }
        // SAFETY: an aligned word of a map value.
        let found = unsafe { atomic::compare_exchange(bucket, seen, next) };
        if found == seen {
            return true;
        }
        seen = found;
    }
    // So many CPUs take at once for one source that it is above any sensible limit.
    false
}

/// Connections that a source has open.
///
/// A function of its own, as `take` is: the firewall's stack has no room for both.
#[inline(never)]
pub(crate) fn open_connections(key: &BucketKey) -> u32 {
    let Some(seed) = SEED.get(0) else { return u32::MAX };
    let place = Place::new(*seed, key);
    let Some(words) = OPEN_COUNTS.get_ptr(place.bucket % BUCKETS) else { return u32::MAX };
    let mut sum = 0_u64;
    for way in 0..WAYS {
        // SAFETY: an aligned word of a map value; volatile, because other CPUs change it.
        let counted = place.counted(unsafe { core::ptr::read_volatile(&raw const (*words)[way]) });
        // One word after the other: the stack has no room for all of them.
        // SAFETY: an addition.
        unsafe { asm!("{0} += {1}", inout(reg) sum, in(reg) u64::from(counted), options(nomem, nostack)) };
    }
    sum as u32
}
