//! The connect hooks: the destination of a socket is replaced before its connection begins.

use core::ptr::{read_volatile, write_volatile};

use aya_ebpf::EbpfContext as _;
use aya_ebpf::programs::SockAddrContext;
use foobar_common::address::{Address, Be16, SocketKey};
use foobar_common::socket::{self, Connect};

use crate::kernel::Kernel;

/// The call goes on.
const PROCEED: i32 = 1;
/// First words of an IPv4-mapped IPv6 address, `::ffff:0:0/96`.
const MAPPED: (u32, u32, u32) = (0, 0, 0xffff_u32.to_be());
/// The call fails with `EPERM`.
const REFUSE: i32 = 0;

/// `connect()` of an IPv4 socket.
#[inline(always)]
pub(crate) fn ipv4(context: &SockAddrContext) -> i32 {
    let tables = Kernel::of_socket(context.as_ptr());
    let address = context.sock_addr;
    // SAFETY: the context of a running program; volatile word accesses are what the verifier allows on it.
    unsafe {
        let destination = Address([read_volatile(&raw const (*address).user_ip4)]);
        let key = SocketKey::new(destination, port(read_volatile(&raw const (*address).user_port)), protocol(context));
        match socket::connect(&key, &tables) {
            Connect::Unchanged => PROCEED,
            Connect::Refused => REFUSE,
            Connect::Backend { address: backend, port } => {
                write_volatile(&raw mut (*address).user_ip4, backend.0[0]);
                write_volatile(&raw mut (*address).user_port, word(port));
                PROCEED
            }
        }
    }
}

/// `connect()` of an IPv6 socket.
#[inline(always)]
pub(crate) fn ipv6(context: &SockAddrContext) -> i32 {
    let tables = Kernel::of_socket(context.as_ptr());
    let address = context.sock_addr;
    // SAFETY: as in `ipv4`.
    unsafe {
        let destination = Address([
            read_volatile(&raw const (*address).user_ip6[0]),
            read_volatile(&raw const (*address).user_ip6[1]),
            read_volatile(&raw const (*address).user_ip6[2]),
            read_volatile(&raw const (*address).user_ip6[3]),
        ]);
        let (asked, protocol) = (port(read_volatile(&raw const (*address).user_port)), protocol(context));
        // A dual-stack socket that connects to an IPv4 address: the kernel runs this hook and not the other.
        let [a, b, c, mapped] = destination.0;
        if (a, b, c) == MAPPED {
            return match socket::connect(&SocketKey::new(Address([mapped]), asked, protocol), &tables) {
                Connect::Unchanged => PROCEED,
                Connect::Refused => REFUSE,
                Connect::Backend { address: backend, port } => {
                    write_volatile(&raw mut (*address).user_ip6[3], backend.0[0]);
                    write_volatile(&raw mut (*address).user_port, word(port));
                    PROCEED
                }
            };
        }
        match socket::connect(&SocketKey::new(destination, asked, protocol), &tables) {
            Connect::Unchanged => PROCEED,
            Connect::Refused => REFUSE,
            Connect::Backend { address: backend, port } => {
                write_volatile(&raw mut (*address).user_ip6[0], backend.0[0]);
                write_volatile(&raw mut (*address).user_ip6[1], backend.0[1]);
                write_volatile(&raw mut (*address).user_ip6[2], backend.0[2]);
                write_volatile(&raw mut (*address).user_ip6[3], backend.0[3]);
                write_volatile(&raw mut (*address).user_port, word(port));
                PROCEED
            }
        }
    }
}

/// IANA protocol number of the socket.
#[inline(always)]
fn protocol(context: &SockAddrContext) -> u8 {
    // SAFETY: as in `ipv4`.
    unsafe { read_volatile(&raw const (*context.sock_addr).protocol) as u8 }
}

/// A port from the context's word, which holds it in network byte order in its low half.
#[inline(always)]
const fn port(word: u32) -> Be16 {
    Be16::from_bytes((word as u16).to_ne_bytes())
}

/// A port as the context's word.
#[inline(always)]
const fn word(port: Be16) -> u32 {
    u16::from_ne_bytes(port.bytes()) as u32
}
