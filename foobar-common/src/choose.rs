//! The choice of a backend: strict round robin by one atomic cursor for each service.
//!
//! Two CPUs never get the same turn, because the cursor is one atomic addition. When user space replaces a ring
//! between the look-up of the service and that of the member, the choice falls on a member of either ring: a ring
//! is written whole beside the old one before the service points to it.

use crate::abi::{BACKEND_ABSENT, Backend, Service};
use crate::tables::Tables;

/// The next backend of a service, and its slot; `None`: nobody is healthy.
#[inline(always)]
pub fn next<T: Tables>(service: &Service, tables: &T) -> Option<(u32, Backend)> {
    if service.members == 0 {
        return None;
    }
    let turn = tables.advance(service.slot)? % u64::from(service.members);
    let slot = tables.member(service.ring.wrapping_add(turn as u32))?;
    tables.backend(slot).filter(|backend| backend.state != BACKEND_ABSENT).map(|backend| (slot, backend))
}
