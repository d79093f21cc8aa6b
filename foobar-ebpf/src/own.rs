//! Connections of this host, by the kernel's own socket table: there is no table of ours that a flood could fill.

use core::ffi::c_void;
use core::mem::zeroed;
use core::ptr::read_volatile;

use aya_ebpf::bindings::{
    bpf_fib_lookup, bpf_sock, bpf_sock_tuple, bpf_sock_tuple__bindgen_ty_1, bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1,
    bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2,
};
use aya_ebpf::helpers::generated::{bpf_sk_lookup_udp, bpf_sk_release, bpf_skc_lookup_tcp};
use foobar_common::address::{Address, Be16, Tuple};
use foobar_common::parse::{TCP, UDP};

/// `BPF_F_CURRENT_NETNS`: the namespace of the interface.
const CURRENT_NETNS: u64 = u64::MAX;
/// `TCP_LISTEN`.
pub(crate) const LISTEN: u32 = 10;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// What sockets are looked up by.
pub(crate) struct Key {
    tuple: bpf_sock_tuple,
    length: u32,
}

impl Key {
    /// Word by word: the verifier refuses the unaligned words of 64 bits into which the compiler makes them.
    #[inline(always)]
    fn new(tuple: &bpf_sock_tuple, length: u32) -> Self {
        // SAFETY: a plain C structure, for which zero is a value everywhere; as many words as it has.
        unsafe {
            let mut key = Self { tuple: zeroed(), length };
            let (from, to) = (core::ptr::from_ref(tuple).cast::<u32>(), (&raw mut key.tuple).cast::<u32>());
            for word in 0..length as usize / 4 {
                to.add(word).write_volatile(from.add(word).read());
            }
            key
        }
    }

    /// The TCP socket, which the caller must release; null: none.
    #[inline(always)]
    pub(crate) fn look_up_tcp(&mut self, context: *mut c_void) -> *mut bpf_sock {
        // SAFETY: the key lives on the stack for the call.
        unsafe { bpf_skc_lookup_tcp(context, &raw mut self.tuple, self.length, CURRENT_NETNS, 0) }
    }
}

/// Keys of a family for the kernel's tables.
pub(crate) trait Keyed<const W: usize> {
    /// For the socket table.
    fn key(tuple: &Tuple<W>) -> Key;
    /// For the routing table.
    fn route(parameters: &mut bpf_fib_lookup, tuple: &Tuple<W>);
}

impl Keyed<1> for Address<1> {
    #[inline(always)]
    fn key(tuple: &Tuple<1>) -> Key {
        Key::new(&tuple4(tuple), 12)
    }
    #[inline(always)]
    fn route(parameters: &mut bpf_fib_lookup, tuple: &Tuple<1>) {
        parameters.family = AF_INET;
        parameters.__bindgen_anon_3.ipv4_src = tuple.source.0[0];
        parameters.__bindgen_anon_4.ipv4_dst = tuple.destination.0[0];
    }
}

impl Keyed<4> for Address<4> {
    #[inline(always)]
    fn key(tuple: &Tuple<4>) -> Key {
        Key::new(&tuple6(tuple), 36)
    }
    #[inline(always)]
    fn route(parameters: &mut bpf_fib_lookup, tuple: &Tuple<4>) {
        parameters.family = AF_INET6;
        parameters.__bindgen_anon_3.ipv6_src = tuple.source.0;
        parameters.__bindgen_anon_4.ipv6_dst = tuple.destination.0;
    }
}

/// Whether the packet belongs to a connection of this host.
///
/// A function of its own, as is IPv6's: only few packets need its part of the stack.
#[inline(never)]
pub(crate) fn connection4(context: *mut c_void, tuple: &Tuple<1>) -> bool {
    let mut key = tuple4(tuple);
    lookup(context, &raw mut key, 12, tuple.protocol)
}

#[inline(always)]
const fn tuple4(tuple: &Tuple<1>) -> bpf_sock_tuple {
    bpf_sock_tuple {
        __bindgen_anon_1: bpf_sock_tuple__bindgen_ty_1 {
            ipv4: bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1 {
                saddr: tuple.source.0[0],
                daddr: tuple.destination.0[0],
                sport: word(tuple.source_port),
                dport: word(tuple.destination_port),
            },
        },
    }
}

/// Whether the packet belongs to a connection of this host.
#[inline(never)]
pub(crate) fn connection6(context: *mut c_void, tuple: &Tuple<4>) -> bool {
    let mut key = tuple6(tuple);
    lookup(context, &raw mut key, 36, tuple.protocol)
}

#[inline(always)]
const fn tuple6(tuple: &Tuple<4>) -> bpf_sock_tuple {
    bpf_sock_tuple {
        __bindgen_anon_1: bpf_sock_tuple__bindgen_ty_1 {
            ipv6: bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2 {
                saddr: tuple.source.0,
                daddr: tuple.destination.0,
                sport: word(tuple.source_port),
                dport: word(tuple.destination_port),
            },
        },
    }
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
