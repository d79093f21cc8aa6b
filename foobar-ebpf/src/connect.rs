//! The hooks of local sockets: the destination of a connection or a datagram is replaced before it leaves, and the source of an
//! answer, or the peer that a program asks for, is the VIP again.

use core::ptr::{read_volatile, write_volatile};

use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::generated::bpf_get_socket_cookie;
use aya_ebpf::programs::SockAddrContext;
use foobar_common::address::{Address, Be16, SocketKey};
use foobar_common::socket::{self, Connect};

use crate::held::Socket;
use crate::kernel::Kernel;

/// The call goes on.
const PROCEED: i32 = 1;
/// First words of an IPv4-mapped IPv6 address, `::ffff:0:0/96`.
const MAPPED: [u32; 3] = [0, 0, 0xffff_u32.to_be()];
/// The call fails with `EPERM`.
const REFUSE: i32 = 0;

/// `connect()` of an IPv4 socket.
#[inline(always)]
pub(crate) fn connect_ipv4(context: &SockAddrContext) -> i32 {
    let chosen = socket::connect(
        &end4(context),
        cookie(context),
        &Socket::of_call(context),
        &Kernel::of_socket(context.as_ptr()),
    );
    follow(chosen, |address, port| set4(context, address, port))
}

/// `connect()` of an IPv6 socket.
#[inline(always)]
pub(crate) fn connect_ipv6(context: &SockAddrContext) -> i32 {
    let tables = Kernel::of_socket(context.as_ptr());
    // A dual-stack socket that connects to an IPv4 address: the kernel runs this hook and not the other.
    if let Some(end) = mapped(context) {
        let chosen = socket::connect(&end, cookie(context), &Socket::of_call(context), &tables);
        return follow(chosen, |address, port| set_mapped(context, address, port));
    }
    let chosen = socket::connect(&end6(context), cookie(context), &Socket::of_call(context), &tables);
    follow(chosen, |address, port| set6(context, address, port))
}

/// A datagram of an IPv4 socket that is not connected, or of an IPv6 one to an IPv4 address.
#[inline(always)]
pub(crate) fn send_ipv4(context: &SockAddrContext) -> i32 {
    let chosen =
        socket::send(&end4(context), cookie(context), &Socket::of_call(context), &Kernel::of_socket(context.as_ptr()));
    follow(chosen, |address, port| set4(context, address, port))
}

/// A datagram of an IPv6 socket that is not connected.
#[inline(always)]
pub(crate) fn send_ipv6(context: &SockAddrContext) -> i32 {
    let chosen =
        socket::send(&end6(context), cookie(context), &Socket::of_call(context), &Kernel::of_socket(context.as_ptr()));
    follow(chosen, |address, port| set6(context, address, port))
}

/// Who has sent a datagram, or whom an IPv4 socket is connected to: the VIP, if that was asked for.
#[inline(always)]
pub(crate) fn told_ipv4(context: &SockAddrContext) -> i32 {
    let tables = Kernel::of_socket(context.as_ptr());
    if let Some(vip) = socket::asked(&end4(context), cookie(context), &tables) {
        set4(context, vip.address, vip.port);
    }
    PROCEED
}

/// The same for an IPv6 socket.
#[inline(always)]
pub(crate) fn told_ipv6(context: &SockAddrContext) -> i32 {
    let tables = Kernel::of_socket(context.as_ptr());
    if let Some(end) = mapped(context) {
        if let Some(vip) = socket::asked(&end, cookie(context), &tables) {
            set_mapped(context, vip.address, vip.port);
        }
        return PROCEED;
    }
    if let Some(vip) = socket::asked(&end6(context), cookie(context), &tables) {
        set6(context, vip.address, vip.port);
    }
    PROCEED
}

#[inline(always)]
fn follow<const W: usize>(chosen: Connect<W>, set: impl FnOnce(Address<W>, Be16)) -> i32 {
    match chosen {
        Connect::Unchanged => PROCEED,
        Connect::Refused => REFUSE,
        Connect::Backend { address, port } => {
            set(address, port);
            PROCEED
        }
    }
}

/// The context's end, of IPv4.
#[inline(always)]
fn end4(context: &SockAddrContext) -> SocketKey<1> {
    // SAFETY: the context of a running program; volatile word accesses are what the verifier allows on it.
    let address = unsafe { Address([read_volatile(&raw const (*context.sock_addr).user_ip4)]) };
    SocketKey::new(address, port(context), protocol(context))
}

/// The context's end, of IPv6.
#[inline(always)]
fn end6(context: &SockAddrContext) -> SocketKey<4> {
    SocketKey::new(Address(words(context)), port(context), protocol(context))
}

/// The context's end, if it is an IPv4-mapped one.
#[inline(always)]
fn mapped(context: &SockAddrContext) -> Option<SocketKey<1>> {
    let [a, b, c, mapped] = words(context);
    ([a, b, c] == MAPPED).then(|| SocketKey::new(Address([mapped]), port(context), protocol(context)))
}

#[inline(always)]
fn words(context: &SockAddrContext) -> [u32; 4] {
    let address = context.sock_addr;
    // SAFETY: as in `end4`.
    unsafe {
        [
            read_volatile(&raw const (*address).user_ip6[0]),
            read_volatile(&raw const (*address).user_ip6[1]),
            read_volatile(&raw const (*address).user_ip6[2]),
            read_volatile(&raw const (*address).user_ip6[3]),
        ]
    }
}

#[inline(always)]
fn set4(context: &SockAddrContext, address: Address<1>, port: Be16) {
    // SAFETY: as in `end4`; these members may be written.
    unsafe { write_volatile(&raw mut (*context.sock_addr).user_ip4, address.0[0]) };
    set_port(context, port);
}

#[inline(always)]
fn set6(context: &SockAddrContext, address: Address<4>, port: Be16) {
    let place = context.sock_addr;
    // SAFETY: as in `set4`.
    unsafe {
        write_volatile(&raw mut (*place).user_ip6[0], address.0[0]);
        write_volatile(&raw mut (*place).user_ip6[1], address.0[1]);
        write_volatile(&raw mut (*place).user_ip6[2], address.0[2]);
        write_volatile(&raw mut (*place).user_ip6[3], address.0[3]);
    }
    set_port(context, port);
}

#[inline(always)]
fn set_mapped(context: &SockAddrContext, address: Address<1>, port: Be16) {
    // SAFETY: as in `set4`; the words before say that it is mapped.
    unsafe { write_volatile(&raw mut (*context.sock_addr).user_ip6[3], address.0[0]) };
    set_port(context, port);
}

/// The kernel's name of the socket, the same for its whole life.
#[inline(always)]
fn cookie(context: &SockAddrContext) -> u64 {
    // SAFETY: a helper that takes the context of the running program.
    unsafe { bpf_get_socket_cookie(context.as_ptr()) }
}

/// IANA protocol number of the socket.
#[inline(always)]
fn protocol(context: &SockAddrContext) -> u8 {
    // SAFETY: as in `end4`.
    unsafe { read_volatile(&raw const (*context.sock_addr).protocol) as u8 }
}

/// The context's port, whose word holds it in network byte order in its low half.
#[inline(always)]
fn port(context: &SockAddrContext) -> Be16 {
    // SAFETY: as in `end4`.
    let word = unsafe { read_volatile(&raw const (*context.sock_addr).user_port) };
    Be16::from_bytes((word as u16).to_ne_bytes())
}

#[inline(always)]
fn set_port(context: &SockAddrContext, port: Be16) {
    // SAFETY: as in `set4`.
    unsafe { write_volatile(&raw mut (*context.sock_addr).user_port, u32::from(u16::from_ne_bytes(port.bytes()))) };
}
