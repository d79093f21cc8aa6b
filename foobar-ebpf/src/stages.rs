//! Stages of the packet path as functions of their own, with nothing but the context: the verifier walks each once, and not once
//! for every way that a packet may have come there.

use aya_ebpf::bindings::xdp_md;
use foobar_common::path;
use foobar_common::reply::{self, Ask};
use foobar_common::verdict::Reason;

use crate::kernel::{Apart, Kernel};
use crate::maps::WORK;

/// Judges the IPv4 packet whose work is in the map; a reason's number.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn admit4(context: *mut xdp_md) -> u32 {
    let Some(work) = WORK.get_ptr_mut(0) else { return Reason::Internal as u32 };
    // SAFETY: a map value of this CPU, on which one packet at a time is on its way.
    path::admit(&Kernel::of_packet(context), unsafe { &mut (*work).v4 }) as u32
}

/// The same for IPv6.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn admit6(context: *mut xdp_md) -> u32 {
    let Some(work) = WORK.get_ptr_mut(0) else { return Reason::Internal as u32 };
    // SAFETY: as in `admit4`.
    path::admit(&Kernel::of_packet(context), unsafe { &mut (*work).v6 }) as u32
}

/// Gives the first IPv4 packet of a flow, whose work is in the map, a backend; a reason's number.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn assign4(context: *mut xdp_md) -> u32 {
    let Some(work) = WORK.get_ptr_mut(0) else { return Reason::Internal as u32 };
    // SAFETY: as in `admit4`.
    path::assign(&Kernel::of_packet(context), unsafe { &mut (*work).v4 }) as u32
}

/// The same for IPv6.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn assign6(context: *mut xdp_md) -> u32 {
    let Some(work) = WORK.get_ptr_mut(0) else { return Reason::Internal as u32 };
    // SAFETY: as in `admit4`.
    path::assign(&Kernel::of_packet(context), unsafe { &mut (*work).v6 }) as u32
}

/// Answers what is asked of the tables of replies for the IPv4 packet whose work is in the map; a reason's number.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn replies4(context: *mut xdp_md, ask: u32) -> u32 {
    let Some(work) = WORK.get_ptr_mut(0) else { return Reason::Internal as u32 };
    // SAFETY: as in `admit4`.
    reply::answer(Ask::numbered(ask), &Apart::of_packet(context), unsafe { &mut (*work).v4 }) as u32
}

/// The same for IPv6.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn replies6(context: *mut xdp_md, ask: u32) -> u32 {
    let Some(work) = WORK.get_ptr_mut(0) else { return Reason::Internal as u32 };
    // SAFETY: as in `admit4`.
    reply::answer(Ask::numbered(ask), &Apart::of_packet(context), unsafe { &mut (*work).v6 }) as u32
}

/// Finds the new flow of the IPv4 packet whose work is in the map an entry; a reason's number.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn claim4(context: *mut xdp_md) -> u32 {
    let Some(work) = WORK.get_ptr_mut(0) else { return Reason::Internal as u32 };
    // SAFETY: as in `admit4`.
    reply::answer(Ask::Claim, &Apart::of_packet(context), unsafe { &mut (*work).v4 }) as u32
}

/// The same for IPv6.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn claim6(context: *mut xdp_md) -> u32 {
    let Some(work) = WORK.get_ptr_mut(0) else { return Reason::Internal as u32 };
    // SAFETY: as in `admit4`.
    reply::answer(Ask::Claim, &Apart::of_packet(context), unsafe { &mut (*work).v6 }) as u32
}

/// See [`replies4`].
#[inline(always)]
pub(crate) fn replies_ipv4(context: *mut xdp_md, ask: Ask) -> Reason {
    Reason::of_replies(if matches!(ask, Ask::Claim) { claim4(context) } else { replies4(context, ask as u32) })
}

/// See [`replies6`].
#[inline(always)]
pub(crate) fn replies_ipv6(context: *mut xdp_md, ask: Ask) -> Reason {
    Reason::of_replies(if matches!(ask, Ask::Claim) { claim6(context) } else { replies6(context, ask as u32) })
}

/// See [`admit4`].
#[inline(always)]
pub(crate) fn admit_ipv4(context: *mut xdp_md) -> Reason {
    Reason::of_firewall(admit4(context))
}

/// See [`admit6`].
#[inline(always)]
pub(crate) fn admit_ipv6(context: *mut xdp_md) -> Reason {
    Reason::of_firewall(admit6(context))
}

/// See [`assign4`].
#[inline(always)]
pub(crate) fn assign_ipv4(context: *mut xdp_md) -> Reason {
    Reason::of_assignment(assign4(context))
}

/// See [`assign6`].
#[inline(always)]
pub(crate) fn assign_ipv6(context: *mut xdp_md) -> Reason {
    Reason::of_assignment(assign6(context))
}
