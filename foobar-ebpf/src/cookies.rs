//! SYN floods: sees that a listener has too many half-open connections, and then answers SYNs instead of the stack.
//!
//! A program of its own, which the packet path ends in for what the rules allow: it has a stack for itself, and only
//! those packets pay for it that open a connection, or while SYNs are answered.

use core::arch::asm;
use core::ffi::c_void;
use core::mem::zeroed;

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::bpf_fib_lookup as Parameters;
use aya_ebpf::helpers::generated::{
    bpf_check_mtu, bpf_fib_lookup, bpf_ktime_get_ns, bpf_xdp_adjust_tail, bpf_xdp_load_bytes,
};
use aya_ebpf::programs::XdpContext;
use foobar_common::abi::SynSettings;
use foobar_common::address::Address;
use foobar_common::packet::Packet as _;
use foobar_common::parse::{ACK, ETHERNET, Headers, RST, SYN, TCP};
use foobar_common::syn::{ROOM, TCP_MAX};
use foobar_common::synack::{self, Question, SynAck};
use foobar_common::tables::Tables as _;
use foobar_common::tunnel;
use foobar_common::verdict::{Reason, Verdict};

use crate::frame::Frame;
use crate::kernel::Kernel;
use crate::listener::Listener;
use crate::maps::{FLOOD_SEEN, SEGMENT, SYN_SETTINGS};
use crate::own::Keyed;
use crate::segment::Found;

/// `BPF_FIB_LKUP_RET_NOT_FWDED`: the packet is for this host.
const NOT_FORWARDED: i64 = 4;
/// `BPF_FIB_LKUP_RET_FWD_DISABLED`: this host is no router.
const FORWARDING_DISABLED: i64 = 5;
/// A time is written again only when it is older than this: a store for each packet would bounce its line.
const REFRESH_NS: u64 = 10_000_000;
/// Offset of the IP header behind one VLAN tag.
const TAGGED: usize = ETHERNET + 4;
/// The same behind two.
const DOUBLY_TAGGED: usize = TAGGED + 4;
/// What the rules allowed goes up to the stack.
const PASS: Verdict = Verdict::Pass(Reason::RuleAllow);

/// The last word over the packet whose headers these are, which the rules let through to this host. `H` is the length of its
/// IP header without options or extensions.
#[inline(always)]
pub(crate) fn judge<const W: usize, const H: usize>(context: &XdpContext, headers: &Headers<W>) -> Verdict
where
    Address<W>: synack::Network + Keyed<W> + tunnel::Network<W>,
{
    let Some(settings) = SYN_SETTINGS.get(0) else { return PASS };
    // Each with an offset that the compiler knows, for which the verifier need not keep account of frame pointers.
    let verdict = match headers.network {
        ETHERNET => segment::<W, H>(context, headers, ETHERNET, settings),
        TAGGED => segment::<W, H>(context, headers, TAGGED, settings),
        DOUBLY_TAGGED => segment::<W, H>(context, headers, DOUBLY_TAGGED, settings),
        _ => PASS,
    };
    let tables = Kernel::new(context);
    if let Verdict::Drop(reason) = verdict
        && tables.watched()
    {
        tables.tell_drop(Some(headers), reason, Frame::new(context).length() as u64);
    }
    verdict
}

/// A SYN may be answered, an ACK may bear a cookie; all else is the stack's. `H` is the length of the IP header.
#[inline(always)]
fn segment<const W: usize, const H: usize>(
    context: &XdpContext,
    headers: &Headers<W>,
    network: usize,
    settings: &SynSettings,
) -> Verdict
where
    Address<W>: synack::Network + Keyed<W> + tunnel::Network<W>,
{
    // Extension headers, and frames for all hosts, are left to the stack.
    let frame = Frame::new(context);
    // Two bytes, because LLVM compares the ends of one in 32 bits, which no verifier takes for a check.
    let group = frame.load::<2>(0).is_none_or(|[first, _]| first & 1 == 1);
    if headers.tuple.protocol != TCP || headers.transport != network + H || group {
        return PASS;
    }
    if headers.opens() {
        return opening::<W, H>(context, headers, network, settings);
    }
    if settings.answer == 0 || headers.flags & (SYN | ACK | RST) != ACK {
        return PASS;
    }
    let mut key = Address::<W>::key(&headers.tuple);
    let Some(listener) = Listener::find(context.as_ptr(), &mut key) else { return PASS };
    let (ip, tcp) = (frame.bytes::<H>(network), frame.bytes::<20>(network + H));
    let (Some(ip), Some(tcp)) = (ip, tcp) else {
        listener.release();
        return PASS;
    };
    // SAFETY: both pointers are checked against the frame's end for these lengths.
    let known = unsafe { listener.knows(ip, H as u32, tcp) };
    listener.release();
    if known {
        Verdict::Pass(Reason::SynCookie)
    } else if local(context, headers) {
        Verdict::Drop(Reason::BadCookie)
    } else {
        PASS
    }
}

/// A SYN: for a listener its queue is looked at, and in a flood it is answered.
#[inline(always)]
fn opening<const W: usize, const H: usize>(
    context: &XdpContext,
    headers: &Headers<W>,
    network: usize,
    settings: &SynSettings,
) -> Verdict
where
    Address<W>: synack::Network + Keyed<W> + tunnel::Network<W>,
{
    let mut key = Address::<W>::key(&headers.tuple);
    let Some(listener) = Listener::find(context.as_ptr(), &mut key) else { return PASS };
    let Some(queue) = listener.queue() else {
        listener.release();
        return PASS;
    };
    // A quarter of a short queue is kept for those who come before the agent has heard of it.
    let limit = core::cmp::min(settings.half_open, queue.backlog - queue.backlog / 4);
    if settings.half_open != 0 && queue.half_open >= core::cmp::max(limit, 1) {
        note_flood();
    }
    if settings.answer == 0 || !queue.default_window || !local(context, headers) {
        listener.release();
        return PASS;
    }
    let Some(segment) = SEGMENT.get_ptr_mut(0) else {
        listener.release();
        return PASS;
    };
    // SAFETY: a map value of this CPU, which no other program looks at while this one runs.
    let tcp = unsafe { &raw mut (*segment).tcp };
    let length = copy(context, network + H, tcp);
    let ip = Frame::new(context).bytes::<H>(network);
    let Some(ip) = ip else {
        listener.release();
        return PASS;
    };
    if length == 0 {
        listener.release();
        return PASS;
    }
    // SAFETY: the IP header is checked against the frame's end, and the TCP header is a map value of more bytes.
    let cookie = unsafe { listener.cookie(ip, H as u32, tcp.cast(), length) };
    listener.release();
    // SAFETY: see above.
    let (tcp, mut found) = unsafe { (&*tcp, Found::nothing(segment)) };
    found.read(length);
    let options = found.options();
    if cookie < 0 || options.signed {
        return PASS;
    }
    let mut mtu = 0_u32;
    // SAFETY: the answer is a word on the stack. It is asked for, not judged: the result does not matter.
    unsafe { bpf_check_mtu(context.as_ptr(), 0, &raw mut mtu, 0, 0) };
    let tables = Kernel::new(context);
    let Some(generation) = tables.generation() else { return PASS };
    let mtu = tunnel::room(generation, headers.tuple.destination, mtu);
    let answer = SynAck::new::<W>(&Question {
        cookie: cookie as u32,
        sequence: u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]),
        flags: headers.flags,
        options: &options,
        settings,
        mtu,
        // SAFETY: a helper without pointers. The stack's own clock, which the ACK is compared with.
        now_ns: unsafe { bpf_ktime_get_ns() },
    });
    send::<W, H>(context, network, &answer)
}

/// Writes the answer over the SYN.
#[inline(always)]
fn send<const W: usize, const H: usize>(context: &XdpContext, network: usize, answer: &SynAck) -> Verdict
where
    Address<W>: synack::Network,
{
    // Masked, or LLVM subtracts the pointers in another order, which the verifier refuses.
    let length = masked::<0x7fff_ffff>(Frame::new(context).length() as u64);
    let change = answer.frame(network + H) as i32 - length as i32;
    // SAFETY: the context of a running program; pointers into the frame are taken anew below.
    if unsafe { bpf_xdp_adjust_tail(context.ctx, change) } != 0 {
        return PASS;
    }
    let mut frame = Frame::new(context);
    match answer.write::<W, _>(&mut frame, network, network + H) {
        Some(()) => Verdict::Answer(Reason::SynAnswered),
        // The frame has been changed: nothing but this is left, and it cannot happen.
        None => Verdict::Drop(Reason::Internal),
    }
}

/// Copies the TCP header at `offset`; its length, or 0 when it is not within the frame.
///
/// No `Option`: see [`foobar_common::syn::Options`].
#[inline(always)]
fn copy(context: &XdpContext, offset: usize, into: *mut [u8; ROOM]) -> u32 {
    let length = match Frame::new(context).load::<2>(offset + 12) {
        Some([data, _]) => u32::from(data >> 4) * 4,
        None => 0,
    };
    if !(20..=TCP_MAX as u32).contains(&length) {
        return 0;
    }
    // LLVM checks a copy of the length, of which older verifiers make nothing.
    let length = 20 + masked::<60>(u64::from(length - 20)) as u32;
    // SAFETY: the value has room for the longest header.
    let result = unsafe { bpf_xdp_load_bytes(context.ctx, offset as u32, into.cast::<c_void>(), length) };
    if result == 0 { length } else { 0 }
}

/// A number in whose bits `MASK` has all; what follows is made from this register and from no other.
#[inline(always)]
fn masked<const MASK: i32>(mut number: u64) -> u64 {
    // SAFETY: one instruction on a register.
    unsafe { asm!("{0} &= {1}", inout(reg) number, const MASK, options(pure, nomem, nostack)) };
    number
}

/// Whether the packet ends at this host, rather than being routed through it.
#[inline(always)]
fn local<const W: usize>(context: &XdpContext, headers: &Headers<W>) -> bool
where
    Address<W>: Keyed<W>,
{
    // SAFETY: a plain C structure, for which zero is a value everywhere.
    let mut parameters: Parameters = unsafe { zeroed() };
    parameters.l4_protocol = TCP;
    parameters.ifindex = context.ingress_ifindex() as u32;
    Address::<W>::route(&mut parameters, &headers.tuple);
    let size = size_of::<Parameters>() as i32;
    // SAFETY: the parameters live on the stack for the call.
    let result = unsafe { bpf_fib_lookup(context.as_ptr(), &raw mut parameters, size, 0) };
    result == NOT_FORWARDED || result == FORWARDING_DISABLED
}

/// Tells user space that a listener has too many half-open connections.
///
/// CPUs may write this at once: each writes the same time, but for a few milliseconds.
#[inline(always)]
fn note_flood() {
    let Some(seen) = FLOOD_SEEN.get_ptr_mut(0) else { return };
    // SAFETY: an aligned word of a map value; user space only reads it.
    unsafe {
        let now = bpf_ktime_get_ns();
        if now.saturating_sub(seen.read_volatile()) > REFRESH_NS {
            seen.write_volatile(now);
        }
    }
}
