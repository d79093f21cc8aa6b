//! Connections that backends have not taken.
//!
//! Functions of their own: the packet path's stack has no room for another look-up.

use core::ptr::{read_volatile, write_volatile};

use crate::atomic;
use crate::maps::{ACTIVE, CONNECT_FAILURES};

/// A flow from the wire has closed; `refused` not 0: because its backend has not taken it.
#[inline(never)]
pub(crate) fn flow_closed(slot: u32, refused: u32) {
    flow_gone(slot);
    if refused != 0 {
        count(slot);
    }
}

/// A backend has one flow less.
#[inline(always)]
pub(crate) fn flow_gone(slot: u32) {
    if let Some(flows) = ACTIVE.get_ptr_mut(slot) {
        // SAFETY: a word of a map value.
        unsafe { atomic::fetch_add(flows, u64::MAX) };
    }
}

/// A backend has not taken a connection.
#[inline(never)]
pub(crate) fn one_more(slot: u32) {
    count(slot);
}

#[inline(always)]
fn count(slot: u32) {
    if let Some(failures) = CONNECT_FAILURES.get_ptr_mut(slot) {
        // SAFETY: words of a map value.
        unsafe {
            atomic::fetch_add(&raw mut (*failures).total, 1);
            atomic::fetch_add(&raw mut (*failures).row, 1);
        }
    }
}

/// A backend has taken one. A failure that another CPU counts at the same moment may go with the row: it was before, or the next
/// one counts.
#[inline(never)]
pub(crate) fn end_row(slot: u32) {
    if let Some(failures) = CONNECT_FAILURES.get_ptr_mut(slot) {
        // SAFETY: an aligned word of a map value. Written only when it changes: its line would bounce between CPUs.
        unsafe {
            if read_volatile(&raw const (*failures).row) != 0 {
                write_volatile(&raw mut (*failures).row, 0);
            }
        }
    }
}
