//! Connections of this host, by the kernel's own socket table: there is no table of ours that a flood could fill.

use core::ffi::c_void;
use core::ptr::read_volatile;

use aya_ebpf::bindings::{
    bpf_sock, bpf_sock_tuple, bpf_sock_tuple__bindgen_ty_1, bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1,
    bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2,
};
use aya_ebpf::helpers::generated::{bpf_sk_lookup_udp, bpf_sk_release, bpf_skc_lookup_tcp};
use foobar_common::address::{Be16, Tuple};
use foobar_common::parse::{TCP, UDP};

/// `BPF_F_CURRENT_NETNS`: the namespace of the interface.
const CURRENT_NETNS: u64 = u64::MAX;
/// `TCP_LISTEN`.
const LISTEN: u32 = 10;

/// Whether the packet belongs to a connection of this host.
///
/// A function of its own, as is IPv6's: only few packets need its part of the stack.
#[inline(never)]
pub(crate) fn connection4(context: *mut c_void, tuple: &Tuple<1>) -> bool {
    let mut key = bpf_sock_tuple {
        __bindgen_anon_1: bpf_sock_tuple__bindgen_ty_1 {
            ipv4: bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1 {
                saddr: tuple.source.0[0],
                daddr: tuple.destination.0[0],
                sport: word(tuple.source_port),
                dport: word(tuple.destination_port),
            },
        },
    };
    lookup(context, &raw mut key, 12, tuple.protocol)
}

/// Whether the packet belongs to a connection of this host.
#[inline(never)]
pub(crate) fn connection6(context: *mut c_void, tuple: &Tuple<4>) -> bool {
    let mut key = bpf_sock_tuple {
        __bindgen_anon_1: bpf_sock_tuple__bindgen_ty_1 {
            ipv6: bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2 {
                saddr: tuple.source.0,
                daddr: tuple.destination.0,
                sport: word(tuple.source_port),
                dport: word(tuple.destination_port),
            },
        },
    };
    lookup(context, &raw mut key, 36, tuple.protocol)
}

/// A port as helpers take it: network byte order in a native word.
#[inline(always)]
const fn word(port: Be16) -> u16 {
    u16::from_ne_bytes(port.bytes())
}

#[inline(always)]
fn lookup(context: *mut c_void, key: *mut bpf_sock_tuple, length: u32, protocol: u8) -> bool {
    match protocol {
        // SAFETY: the key lives on the stack for the call, and the socket is used by nobody else.
        TCP => unsafe { opened(bpf_skc_lookup_tcp(context, key, length, CURRENT_NETNS, 0)) },
        // SAFETY: as above.
        UDP => unsafe { connected(bpf_sk_lookup_udp(context, key, length, CURRENT_NETNS, 0)) },
        _ => false,
    }
}

/// Whether a TCP socket was found, and does more than listen.
///
/// # Safety
/// `socket` comes from a look-up helper and is used by nobody else.
#[inline(always)]
unsafe fn opened(socket: *mut bpf_sock) -> bool {
    if socket.is_null() {
        return false;
    }
    // SAFETY: not null, and held by the look-up's reference until the release.
    unsafe {
        let state = read_volatile(&raw const (*socket).state);
        bpf_sk_release(socket.cast());
        state != LISTEN
    }
}

/// Whether a UDP socket was found, and is connected: the look-up then has matched its peer too.
///
/// Another field than for TCP: compilers merge equal reads, and the verifier wants one instruction for each type.
///
/// # Safety
/// As for [`opened`].
#[inline(always)]
unsafe fn connected(socket: *mut bpf_sock) -> bool {
    if socket.is_null() {
        return false;
    }
    // SAFETY: as in `opened`.
    unsafe {
        let peer_port = read_volatile(&raw const (*socket).dst_port);
        bpf_sk_release(socket.cast());
        peer_port != 0
    }
}
