//! The programs: thin shells around `foobar_common`, which decides everything.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![expect(clippy::needless_pass_by_value, reason = "aya's entry points hand the context over by value")]

mod atomic;
mod clamp;
mod connect;
mod cookies;
mod count;
mod events;
mod failures;
mod fence;
mod frame;
mod half_open;
mod held;
mod kernel;
mod leaving;
mod limits;
mod listener;
mod log;
mod maps;
mod open;
mod own;
mod replies;
mod route;
mod segment;
mod stages;
mod trace;
mod tunnel;

use core::arch::asm;

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::helpers::bpf_redirect;
use aya_ebpf::macros::{cgroup_sock, cgroup_sock_addr, sock_ops, xdp};
use aya_ebpf::programs::{SockAddrContext, SockContext, SockOpsContext, XdpContext};
use foobar_common::express;
use foobar_common::packet::Packet as _;
use foobar_common::parse::{self, Network};
use foobar_common::path::{self, Entered};
use foobar_common::stage;
use foobar_common::verdict::{Reason, Stage, Verdict};

use crate::frame::{Frame, Movable};
use crate::kernel::{Apart, Kernel};

/// Firewall and balancer of one interface: packets of flows that this CPU knows, and all others by way of `path4` and `path6`.
#[xdp(frags)]
#[inline(always)]
fn foobar(context: XdpContext) -> u32 {
    let mut frame = Frame::new(&context);
    let tables = Kernel::new(&context);
    let bytes = frame.length() as u64;
    if let Some(verdict) = express::forward(&mut frame, &tables) {
        return end(verdict, tables.ingress(), bytes);
    }
    match path::enter(&frame, &tables) {
        Entered::Ipv4 => jump::<{ Stage::Path4 as u32 }>(&context),
        Entered::Ipv6 => jump::<{ Stage::Path6 as u32 }>(&context),
        Entered::Done(verdict) => return end(verdict, tables.ingress(), bytes),
    }
    // The stage is not there, which a loading never leaves so: closed.
    end(Verdict::Drop(Reason::Internal), tables.ingress(), bytes)
}

/// Goes on in a stage whose number the kernel sees when it loads the program: it jumps straight there, and looks nothing up for each
/// packet. Comes back only when the stage is not there.
#[inline(always)]
fn jump<const STAGE: u32>(context: &XdpContext) {
    // SAFETY: the context of the running program; and a register that nobody uses. It is given another number after each jump: else
    // the compiler would make one jump of all, to a stage that is found out at run time.
    unsafe {
        maps::STAGES.tail_call(context, STAGE);
        asm!("w0 = {}", const STAGE, out("r0") _, options(nomem, nostack));
    }
}

/// The whole way of an IPv4 packet.
// Inlined into the entry point, as all stages are: Linux 6.1 counts at least 32 bytes of stack for every frame, and all calls
// share 512.
#[xdp(frags)]
#[inline(always)]
fn path4(context: XdpContext) -> u32 {
    let (mut frame, tables) = (Frame::new(&context), Kernel::new(&context));
    let bytes = frame.length() as u64;
    let Some(work) = maps::WORK.get_ptr_mut(0) else { return XDP_DROP };
    // SAFETY: a map value of this CPU, on which one packet at a time is on its way.
    let verdict = path::ipv4(&mut frame, &tables, unsafe { &mut (*work).v4 });
    go_on(&context, verdict);
    end(verdict, tables.ingress(), bytes)
}

/// The same for IPv6.
#[xdp(frags)]
#[inline(always)]
fn path6(context: XdpContext) -> u32 {
    let (mut frame, tables) = (Frame::new(&context), Kernel::new(&context));
    let bytes = frame.length() as u64;
    let Some(work) = maps::WORK.get_ptr_mut(0) else { return XDP_DROP };
    // SAFETY: as in `path4`.
    let verdict = path::ipv6(&mut frame, &tables, unsafe { &mut (*work).v6 });
    go_on(&context, verdict);
    end(verdict, tables.ingress(), bytes)
}

/// The rest of the way of an IPv4 packet whose flow's replies have entries of their own.
#[xdp(frags)]
#[inline(always)]
fn apart4(context: XdpContext) -> u32 {
    let (mut frame, tables) = (Frame::new(&context), Apart::new(&context));
    let bytes = frame.length() as u64;
    let Some(work) = maps::WORK.get_ptr_mut(0) else { return XDP_DROP };
    // SAFETY: a map value of this CPU, in which `path4` has left what it knows of this packet.
    let verdict = path::apart(&mut frame, &tables, unsafe { &mut (*work).v4 });
    go_on(&context, verdict);
    end(verdict, tables.ingress(), bytes)
}

/// The same for IPv6.
#[xdp(frags)]
#[inline(always)]
fn apart6(context: XdpContext) -> u32 {
    let (mut frame, tables) = (Frame::new(&context), Apart::new(&context));
    let bytes = frame.length() as u64;
    let Some(work) = maps::WORK.get_ptr_mut(0) else { return XDP_DROP };
    // SAFETY: as in `apart4`.
    let verdict = path::apart(&mut frame, &tables, unsafe { &mut (*work).v6 });
    go_on(&context, verdict);
    end(verdict, tables.ingress(), bytes)
}

/// Another stage has the last word, if the verdict says so. Comes back only when it is not there, as those of handshakes are not
/// for a program that runs dry: see [`carry_out`].
#[inline(always)]
fn go_on(context: &XdpContext, verdict: Verdict) {
    if let Verdict::Handshake(stage) | Verdict::Stage(stage) = verdict {
        // SAFETY: the context of the running program.
        unsafe { maps::STAGES.tail_call(context, stage as u32) };
    }
}

/// The one exit of the packet path: counts a verdict, and carries it out.
#[inline(always)]
fn end(verdict: Verdict, ingress: u32, bytes: u64) -> u32 {
    if maps::dry() {
        trace::verdict(verdict.reason());
    } else {
        count::verdict(verdict.reason(), bytes);
        log::verdict(verdict, bytes);
    }
    carry_out(verdict, ingress)
}

/// The action of a verdict over a packet that has come by an interface.
#[inline(always)]
fn carry_out(verdict: Verdict, ingress: u32) -> u32 {
    match verdict {
        Verdict::Answer(_) => XDP_TX,
        Verdict::Drop(_) | Verdict::Stage(_) => XDP_DROP,
        Verdict::Pass(_) | Verdict::Handshake(_) => XDP_PASS,
        Verdict::Forward { interface, .. } if interface == ingress => XDP_TX,
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
    let verdict = cookies::judge::<1, 20>(&context, unsafe { (*work).v4.headers() });
    end(verdict, Kernel::new(&context).ingress(), Frame::new(&context).length() as u64)
}

/// The same for IPv6.
#[xdp(frags)]
#[inline(always)]
fn handshake6(context: XdpContext) -> u32 {
    let Some(work) = maps::WORK.get_ptr_mut(0) else { return XDP_DROP };
    // SAFETY: as in `handshake4`.
    let verdict = cookies::judge::<4, 40>(&context, unsafe { (*work).v6.headers() });
    end(verdict, Kernel::new(&context).ingress(), Frame::new(&context).length() as u64)
}

/// An IPv4 ICMP error, which may be about a flow.
#[xdp(frags)]
#[inline(always)]
fn error4(context: XdpContext) -> u32 {
    let Some(work) = maps::WORK.get_ptr_mut(0) else { return XDP_DROP };
    // SAFETY: as in `handshake4`.
    let work = unsafe { &mut (*work).v4 };
    let verdict = stage::error(&mut Movable::new(&context), &Apart::new(&context), work);
    go_on(&context, verdict);
    end(verdict, Kernel::new(&context).ingress(), work.bytes())
}

/// The same for IPv6.
#[xdp(frags)]
#[inline(always)]
fn error6(context: XdpContext) -> u32 {
    let Some(work) = maps::WORK.get_ptr_mut(0) else { return XDP_DROP };
    // SAFETY: as in `handshake4`.
    let work = unsafe { &mut (*work).v6 };
    let verdict = stage::error(&mut Movable::new(&context), &Apart::new(&context), work);
    go_on(&context, verdict);
    end(verdict, Kernel::new(&context).ingress(), work.bytes())
}

/// An IPv4 packet of a service that cannot be sent on.
#[xdp(frags)]
#[inline(always)]
fn answer4(context: XdpContext) -> u32 {
    let Some(work) = maps::WORK.get_ptr_mut(0) else { return XDP_DROP };
    // SAFETY: as in `handshake4`.
    let work = unsafe { &mut (*work).v4 };
    let verdict = stage::unsent(&mut Movable::new(&context), &Kernel::new(&context), work);
    end(verdict, Kernel::new(&context).ingress(), work.bytes())
}

/// The same for IPv6.
#[xdp(frags)]
#[inline(always)]
fn answer6(context: XdpContext) -> u32 {
    let Some(work) = maps::WORK.get_ptr_mut(0) else { return XDP_DROP };
    // SAFETY: as in `handshake4`.
    let work = unsafe { &mut (*work).v6 };
    let verdict = stage::unsent(&mut Movable::new(&context), &Kernel::new(&context), work);
    end(verdict, Kernel::new(&context).ingress(), work.bytes())
}

/// An IPv4 packet that leaves under another VLAN tag than it came.
#[xdp(frags)]
#[inline(always)]
fn tag4(context: XdpContext) -> u32 {
    let Some(work) = maps::WORK.get_ptr_mut(0) else { return XDP_DROP };
    // SAFETY: as in `handshake4`.
    let work = unsafe { &(*work).v4 };
    let verdict = stage::tag(&mut Movable::new(&context), &Kernel::new(&context), work);
    end(verdict, Kernel::new(&context).ingress(), work.bytes())
}

/// The same for IPv6.
#[xdp(frags)]
#[inline(always)]
fn tag6(context: XdpContext) -> u32 {
    let Some(work) = maps::WORK.get_ptr_mut(0) else { return XDP_DROP };
    // SAFETY: as in `handshake4`.
    let work = unsafe { &(*work).v6 };
    let verdict = stage::tag(&mut Movable::new(&context), &Kernel::new(&context), work);
    end(verdict, Kernel::new(&context).ingress(), work.bytes())
}

/// What any balancer pays: it parses the frame and sends it back. The yardstick of `cargo xtask bench`.
#[xdp]
fn baseline(context: XdpContext) -> u32 {
    let mut frame = Frame::new(&context);
    let hops = match parse::ethernet(&frame) {
        Ok((Network::Ipv4, offset)) => parse::ipv4(&frame, offset).map(|headers| headers.hops),
        // Without extension headers: a walk over them is more than any balancer pays.
        Ok((Network::Ipv6, offset)) => {
            let header = frame.load::<44>(offset);
            header.map(|header| header[7]).ok_or(Reason::Truncated)
        }
        _ => return XDP_PASS,
    };
    match (hops, frame.load::<6>(0), frame.load::<6>(6)) {
        (Ok(1..), Some(to), Some(from)) => {
            let swapped = frame.store(0, from).and_then(|()| frame.store(6, to));
            if swapped.is_some() { XDP_TX } else { XDP_DROP }
        }
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

/// Connections that this server's processes accept, and those that they open.
#[sock_ops]
fn connections(context: SockOpsContext) -> u32 {
    open::follow(context.ops);
    held::follow(context.ops);
    1
}

/// Sockets of this server's processes that are closed.
#[cgroup_sock(sock_release)]
fn closed(context: SockContext) -> i32 {
    held::release(&context);
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
