//! A TCP listener of this host: found by a packet's tuple, asked for its half-open connections and for cookies.

use core::ffi::c_void;
use core::ptr::read_volatile;

use aya_ebpf::bindings::{bpf_sock, tcphdr};
use aya_ebpf::helpers::generated::{
    bpf_sk_release, bpf_skc_to_tcp_sock, bpf_tcp_check_syncookie, bpf_tcp_gen_syncookie,
};

use crate::own::{Key, LISTEN};

/// Offsets in the kernel's `struct tcp_sock`, which user space reads from the kernel's own description of its types.
///
/// Constants of the loaded program: the verifier checks each of them. 0: unknown.
#[unsafe(no_mangle)]
static SOCK_HALF_OPEN: u32 = 0;
/// See [`SOCK_HALF_OPEN`]: `sk_max_ack_backlog`.
#[unsafe(no_mangle)]
static SOCK_BACKLOG: u32 = 0;
/// See [`SOCK_HALF_OPEN`]: `window_clamp`.
#[unsafe(no_mangle)]
static SOCK_WINDOW_CLAMP: u32 = 0;
/// See [`SOCK_HALF_OPEN`]: the byte with `sk_userlocks`.
#[unsafe(no_mangle)]
static SOCK_LOCKS: u32 = 0;
/// `SOCK_RCVBUF_LOCK` within that byte.
#[unsafe(no_mangle)]
static SOCK_LOCKS_RECEIVE: u32 = 0;

/// A constant that user space has set at load.
///
/// Volatile, because user space sets it in the object after compilation.
#[inline(always)]
fn constant(place: &'static u32) -> usize {
    // SAFETY: a read of an aligned static.
    unsafe { read_volatile(place) as usize }
}

/// A listener, held until it is dropped by [`Listener::release`].
pub(crate) struct Listener(*mut bpf_sock);

/// What a listener's sockets are like.
#[derive(Clone, Copy)]
pub(crate) struct Queue {
    /// Half-open connections.
    pub(crate) half_open: u32,
    /// Half-open connections at the most.
    pub(crate) backlog: u32,
    /// Whether its window is the stack's default one, so that the scale is known.
    pub(crate) default_window: bool,
}

impl Listener {
    /// The listener to which a packet is for; `None`: another socket, or none.
    #[inline(always)]
    pub(crate) fn find(context: *mut c_void, key: &mut Key) -> Option<Self> {
        let socket = key.look_up_tcp(context);
        if socket.is_null() {
            return None;
        }
        // SAFETY: not null, and held by the look-up's reference until the release.
        unsafe {
            if read_volatile(&raw const (*socket).state) != LISTEN {
                bpf_sk_release(socket.cast());
                return None;
            }
        }
        Some(Self(socket))
    }

    /// Its queue; `None`: this kernel does not describe its types.
    #[inline(always)]
    pub(crate) fn queue(&self) -> Option<Queue> {
        if constant(&SOCK_HALF_OPEN) == 0 {
            return None;
        }
        // SAFETY: the verifier has checked each offset against the kernel's types; such reads never fault.
        unsafe {
            let socket = bpf_skc_to_tcp_sock(self.0.cast()).cast::<u8>();
            if socket.is_null() {
                return None;
            }
            let half_open = read_volatile(socket.add(constant(&SOCK_HALF_OPEN)).cast::<u32>());
            let backlog = read_volatile(socket.add(constant(&SOCK_BACKLOG)).cast::<u32>());
            let clamp = read_volatile(socket.add(constant(&SOCK_WINDOW_CLAMP)).cast::<u32>());
            let locks = read_volatile(socket.add(constant(&SOCK_LOCKS)));
            let default_window = clamp == 0 && locks & constant(&SOCK_LOCKS_RECEIVE) as u8 == 0;
            Some(Queue { half_open, backlog, default_window })
        }
    }

    /// A cookie for a SYN with this IP header and this TCP header of `length` bytes; negative: the kernel gives none.
    ///
    /// It marks the listener as overflowed, without which the stack would refuse the cookie's ACK.
    ///
    /// # Safety
    /// `ip` and `tcp` point to so many bytes that the verifier knows.
    #[inline(always)]
    pub(crate) unsafe fn cookie(&self, ip: *mut u8, ip_length: u32, tcp: *mut u8, length: u32) -> i64 {
        // SAFETY: as the caller promises.
        unsafe { bpf_tcp_gen_syncookie(self.0.cast(), ip.cast(), ip_length, tcp.cast::<tcphdr>(), length) }
    }

    /// Whether an ACK bears a cookie of this host.
    ///
    /// # Safety
    /// As for [`Listener::cookie`]; 20 bytes of TCP.
    #[inline(always)]
    pub(crate) unsafe fn knows(&self, ip: *mut u8, ip_length: u32, tcp: *mut u8) -> bool {
        // SAFETY: as the caller promises.
        unsafe { bpf_tcp_check_syncookie(self.0.cast(), ip.cast(), ip_length, tcp.cast::<tcphdr>(), 20) == 0 }
    }

    /// Lets go of it. Not `Drop`: the verifier wants to see the call on every path.
    #[inline(always)]
    pub(crate) fn release(self) {
        // SAFETY: the look-up's reference, given back once.
        unsafe { bpf_sk_release(self.0.cast()) };
    }
}
