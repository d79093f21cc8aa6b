//! Per-CPU counters: no CPU touches another's, so plain additions are exact.

use foobar_common::abi::{Counter, Traffic};
use foobar_common::verdict::Reason;

use crate::maps::{BACKEND_COUNTS, RULE_COUNTS, SERVICE_COUNTS, TUNNELS, VERDICTS};

/// Counts a packet's outcome.
#[inline(always)]
pub(crate) fn verdict(reason: Reason, bytes: u64) {
    add(VERDICTS.get_ptr_mut(reason as u32), bytes);
}

/// Counts a packet for a rule.
#[inline(always)]
pub(crate) fn rule(counter: u32, bytes: u64) {
    add(RULE_COUNTS.get_ptr_mut(counter), bytes);
}

/// Counts a packet that was put into a tunnel or taken out of one.
#[inline(always)]
pub(crate) fn tunnel(way: u32, bytes: u64) {
    add(TUNNELS.get_ptr_mut(way), bytes);
}

/// Counts for a service and its backend.
#[inline(always)]
pub(crate) fn backend(service: u32, backend: u32, connections: u64, packets: u64, bytes: u64) {
    add_traffic(SERVICE_COUNTS.get_ptr_mut(service), connections, packets, bytes);
    add_traffic(BACKEND_COUNTS.get_ptr_mut(backend), connections, packets, bytes);
}

#[inline(always)]
fn add(counter: Option<*mut Counter>, bytes: u64) {
    if let Some(counter) = counter {
        // SAFETY: a map value of this CPU, valid while the program runs; XDP is not pre-empted by itself.
        unsafe {
            (*counter).packets += 1;
            (*counter).bytes += bytes;
        }
    }
}

#[inline(always)]
fn add_traffic(traffic: Option<*mut Traffic>, connections: u64, packets: u64, bytes: u64) {
    if let Some(traffic) = traffic {
        // SAFETY: as in `add`. A connect hook may be interrupted by XDP on its CPU: at worst one addition is lost.
        unsafe {
            (*traffic).connections += connections;
            (*traffic).packets += packets;
            (*traffic).bytes += bytes;
        }
    }
}
