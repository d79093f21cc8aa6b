//! The stages of tunnels, each a program: what `foobar_common::tunnel` decides needs a frame of another length.

use aya_ebpf::bindings::xdp_action::XDP_DROP;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use foobar_common::stage;
use foobar_common::tunnel::{OUTER4, OUTER6};

use crate::frame::Movable;
use crate::kernel::Kernel;
use crate::{end, go_on, maps};

/// An IPv4 packet that reaches its backend by a tunnel.
#[xdp(frags)]
#[inline(always)]
fn encapsulate4(context: XdpContext) -> u32 {
    let Some(work) = maps::WORK.get_ptr_mut(0) else { return XDP_DROP };
    // SAFETY: a map value of this CPU, in which the stage before has left what it knows of this packet.
    let work = unsafe { &mut (*work).v4 };
    let bytes = work.bytes();
    let verdict = stage::encapsulate::<1, OUTER4, _, _>(&mut Movable::new(&context), &Kernel::new(&context), work);
    go_on(&context, verdict);
    end(verdict, Kernel::new(&context).ingress(), bytes)
}

/// The same for IPv6.
#[xdp(frags)]
#[inline(always)]
fn encapsulate6(context: XdpContext) -> u32 {
    let Some(work) = maps::WORK.get_ptr_mut(0) else { return XDP_DROP };
    // SAFETY: a map value of this CPU, in which the stage before has left what it knows of this packet.
    let work = unsafe { &mut (*work).v6 };
    let bytes = work.bytes();
    let verdict = stage::encapsulate::<4, OUTER6, _, _>(&mut Movable::new(&context), &Kernel::new(&context), work);
    go_on(&context, verdict);
    end(verdict, Kernel::new(&context).ingress(), bytes)
}

/// A tunnel of IPv4 that may end here.
#[xdp(frags)]
#[inline(always)]
fn decapsulate4(context: XdpContext) -> u32 {
    let Some(work) = maps::WORK.get_ptr_mut(0) else { return XDP_DROP };
    // SAFETY: a map value of this CPU, in which the stage before has left what it knows of this packet.
    let work = unsafe { &mut (*work).v4 };
    let bytes = work.bytes();
    let verdict = stage::decapsulate::<1, OUTER4, _, _>(&mut Movable::new(&context), &Kernel::new(&context), work);
    go_on(&context, verdict);
    end(verdict, Kernel::new(&context).ingress(), bytes)
}

/// The same for IPv6.
#[xdp(frags)]
#[inline(always)]
fn decapsulate6(context: XdpContext) -> u32 {
    let Some(work) = maps::WORK.get_ptr_mut(0) else { return XDP_DROP };
    // SAFETY: a map value of this CPU, in which the stage before has left what it knows of this packet.
    let work = unsafe { &mut (*work).v6 };
    let bytes = work.bytes();
    let verdict = stage::decapsulate::<4, OUTER6, _, _>(&mut Movable::new(&context), &Kernel::new(&context), work);
    go_on(&context, verdict);
    end(verdict, Kernel::new(&context).ingress(), bytes)
}
