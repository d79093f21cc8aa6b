//! The programs: thin shells around `foobar_common`, which decides everything.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![expect(clippy::needless_pass_by_value, reason = "aya's entry points hand the context over by value")]

mod admit;
mod atomic;
mod connect;
mod count;
mod events;
mod frame;
mod kernel;
mod limits;
mod log;
mod maps;
mod own;
mod route;
mod trace;

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::helpers::bpf_redirect;
use aya_ebpf::macros::{cgroup_sock_addr, xdp};
use aya_ebpf::programs::{SockAddrContext, XdpContext};
use foobar_common::packet::Packet as _;
use foobar_common::path;
use foobar_common::verdict::Verdict;

use crate::frame::Frame;
use crate::kernel::Kernel;

/// Firewall and balancer of one interface.
// Inlined into the entry point: Linux 6.1 counts at least 32 bytes of stack for every frame, and all calls share 512.
#[xdp(frags)]
#[inline(always)]
fn foobar(context: XdpContext) -> u32 {
    let mut frame = Frame::new(&context);
    let tables = Kernel::new(&context);
    let bytes = frame.length() as u64;
    let Some(work) = maps::WORK.get_ptr_mut(0) else { return XDP_DROP };
    // SAFETY: a map value of this CPU, on which one packet at a time is on its way.
    let verdict = path::process(&mut frame, &tables, unsafe { &mut *work });
    if maps::dry() {
        trace::verdict(verdict.reason());
    } else {
        count::verdict(verdict.reason(), bytes);
        log::verdict(verdict, bytes);
    }
    match verdict {
        Verdict::Drop(_) => XDP_DROP,
        Verdict::Pass(_) => XDP_PASS,
        Verdict::Forward { interface, .. } if interface == tables.ingress() => XDP_TX,
        // SAFETY: a helper without pointers.
        Verdict::Forward { interface, .. } => unsafe { bpf_redirect(interface, 0) as u32 },
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
    connect::ipv4(&context)
}

/// Local IPv6 sockets that connect to a VIP.
#[cgroup_sock_addr(connect6)]
fn connect6(context: SockAddrContext) -> i32 {
    connect::ipv6(&context)
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
