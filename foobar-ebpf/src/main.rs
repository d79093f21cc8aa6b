//! The programs: thin shells around `foobar_common`, which decides everything.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![expect(clippy::needless_pass_by_value, reason = "aya's entry points hand the context over by value")]

mod atomic;
mod connect;
mod cookies;
mod count;
mod events;
mod frame;
mod kernel;
mod limits;
mod listener;
mod log;
mod maps;
mod open;
mod own;
mod route;
mod segment;
mod stages;
mod trace;

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::helpers::bpf_redirect;
use aya_ebpf::macros::{cgroup_sock_addr, sock_ops, xdp};
use aya_ebpf::programs::{SockAddrContext, SockOpsContext, XdpContext};
use foobar_common::packet::Packet as _;
use foobar_common::verdict::{Reason, Stage, Verdict};

use crate::frame::Frame;
use crate::kernel::Kernel;

/// Firewall and balancer of one interface: packets of flows that this CPU knows, and all others by way of `path`.
#[xdp(frags)]
#[inline(always)]
fn foobar(context: XdpContext) -> u32 {
    // SAFETY: the context of the running program.
    unsafe { maps::STAGES.tail_call(&context, Stage::Path as u32) };
    // The stage is not there, which a loading never leaves so: closed.
    count::verdict(Reason::Internal, Frame::new(&context).length() as u64);
    XDP_DROP
}

/// The whole packet path.
// Inlined into the entry point: Linux 6.1 counts at least 32 bytes of stack for every frame, and all calls share 512.
#[xdp(frags)]
#[inline(always)]
fn path(context: XdpContext) -> u32 {
    let mut frame = Frame::new(&context);
    let tables = Kernel::new(&context);
    let bytes = frame.length() as u64;
    let Some(work) = maps::WORK.get_ptr_mut(0) else { return XDP_DROP };
    // SAFETY: a map value of this CPU, on which one packet at a time is on its way.
    let verdict = foobar_common::path::process(&mut frame, &tables, unsafe { &mut *work });
    if maps::dry() {
        trace::verdict(verdict.reason());
    } else {
        if let Verdict::Handshake(stage) = verdict {
            // It comes back only when the program is not there: then the stack is on its own.
            // SAFETY: the context of the running program.
            unsafe { maps::STAGES.tail_call(&context, stage as u32) };
        }
        count::verdict(verdict.reason(), bytes);
        log::verdict(verdict, bytes);
    }
    match verdict {
        Verdict::Answer(_) => XDP_TX,
        Verdict::Drop(_) => XDP_DROP,
        Verdict::Pass(_) | Verdict::Handshake(_) => XDP_PASS,
        Verdict::Forward { interface, .. } if interface == tables.ingress() => XDP_TX,
        // SAFETY: a helper without pointers.
        Verdict::Forward { interface, .. } => unsafe { bpf_redirect(interface, 0) as u32 },
    }
}

/// The last word over an IPv4 packet of a handshake with a listener of this host.
#[xdp(frags)]
#[inline(always)]
fn handshake4(context: XdpContext) -> u32 {
    let Some(work) = maps::WORK.get_ptr_mut(0) else { return XDP_DROP };
    // SAFETY: a map value of this CPU, in which `foobar` has left what it knows of this packet.
    finish(&context, cookies::judge::<1, 20>(&context, unsafe { (*work).v4.headers() }))
}

/// The same for IPv6.
#[xdp(frags)]
#[inline(always)]
fn handshake6(context: XdpContext) -> u32 {
    let Some(work) = maps::WORK.get_ptr_mut(0) else { return XDP_DROP };
    // SAFETY: as in `handshake4`.
    finish(&context, cookies::judge::<4, 40>(&context, unsafe { (*work).v6.headers() }))
}

/// Counts a verdict, and carries it out.
#[inline(always)]
fn finish(context: &XdpContext, verdict: Verdict) -> u32 {
    count::verdict(verdict.reason(), Frame::new(context).length() as u64);
    match verdict {
        Verdict::Drop(_) => XDP_DROP,
        Verdict::Answer(_) => XDP_TX,
        Verdict::Pass(_) | Verdict::Handshake(_) | Verdict::Forward { .. } => XDP_PASS,
    }
}

/// What any program pays: it parses the frame and lets it pass. The yardstick of `cargo xtask bench`.
#[xdp]
fn baseline(context: XdpContext) -> u32 {
    let frame = Frame::new(&context);
    let Ok((_, offset)) = foobar_common::parse::ethernet(&frame) else { return XDP_DROP };
    match foobar_common::parse::ipv4(&frame, offset) {
        Ok(headers) if headers.hops > 0 => XDP_PASS,
        _ => XDP_DROP,
    }
}

/// Local IPv4 sockets that connect to a VIP.
#[cgroup_sock_addr(connect4)]
fn connect4(context: SockAddrContext) -> i32 {
    connect::connect_ipv4(&context)
}

/// Local IPv6 sockets that connect to a VIP.
#[cgroup_sock_addr(connect6)]
fn connect6(context: SockAddrContext) -> i32 {
    connect::connect_ipv6(&context)
}

/// Local sockets that send a datagram to a VIP.
#[cgroup_sock_addr(sendmsg4)]
fn sendmsg4(context: SockAddrContext) -> i32 {
    connect::send_ipv4(&context)
}

/// The same for IPv6.
#[cgroup_sock_addr(sendmsg6)]
fn sendmsg6(context: SockAddrContext) -> i32 {
    connect::send_ipv6(&context)
}

/// Local sockets that receive a datagram.
#[cgroup_sock_addr(recvmsg4)]
fn recvmsg4(context: SockAddrContext) -> i32 {
    connect::told_ipv4(&context)
}

/// The same for IPv6.
#[cgroup_sock_addr(recvmsg6)]
fn recvmsg6(context: SockAddrContext) -> i32 {
    connect::told_ipv6(&context)
}

/// Programs that ask whom a socket is connected to.
#[cgroup_sock_addr(getpeername4)]
fn getpeername4(context: SockAddrContext) -> i32 {
    connect::told_ipv4(&context)
}

/// The same for IPv6.
#[cgroup_sock_addr(getpeername6)]
fn getpeername6(context: SockAddrContext) -> i32 {
    connect::told_ipv6(&context)
}

/// Connections that listeners of this server's processes accept.
#[sock_ops]
fn connections(context: SockOpsContext) -> u32 {
    open::follow(context.ops);
    1
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Never reached: the verifier refuses a program with a path to here.
    loop {}
}

/// Helpers such as `bpf_redirect` are for programs of a GPL-compatible licence; ours is MIT or Apache-2.0 beside GPL.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
