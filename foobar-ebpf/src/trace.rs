//! What a packet would meet: written instead of counters by a program that was loaded to run dry.

use foobar_common::abi::{MAX_STEPS, Trace};
use foobar_common::verdict::Reason;

use crate::maps::TRACE;

/// A rule would count the packet.
#[inline(always)]
pub(crate) fn rule(counter: u32) {
    with(|trace| {
        let step = trace.steps as usize;
        if step < MAX_STEPS {
            trace.rules[step] = counter;
            trace.steps += 1;
        }
    });
}

/// A service would give the packet to a backend.
#[inline(always)]
pub(crate) fn backend(service: u32, backend: u32) {
    with(|trace| (trace.service, trace.backend) = (service, backend));
}

/// The outcome.
#[inline(always)]
pub(crate) fn verdict(reason: Reason) {
    with(|trace| trace.reason = reason as u32);
}

#[inline(always)]
fn with(change: impl FnOnce(&mut Trace)) {
    if let Some(trace) = TRACE.get_ptr_mut(0) {
        // SAFETY: a map value; only one packet at a time is run through a dry program.
        change(unsafe { &mut *trace });
    }
}
