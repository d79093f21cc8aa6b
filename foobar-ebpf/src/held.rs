//! What local sockets hold: a word in the storage of each, and the events of a socket's life that change it.

use core::ffi::c_void;
use core::ptr::{null_mut, read_volatile};

use aya_ebpf::bindings::{
    BPF_SK_STORAGE_GET_F_CREATE, BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_RTO_CB, BPF_SOCK_OPS_RTO_CB_FLAG,
    BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG, BPF_SOCK_OPS_TCP_CONNECT_CB, BPF_TCP_CLOSE, BPF_TCP_SYN_SENT,
    bpf_sock, bpf_sock_ops,
};
use aya_ebpf::helpers::generated::{bpf_sk_storage_get, bpf_skc_to_tcp_sock, bpf_sock_ops_cb_flags_set};
use aya_ebpf::programs::{SockAddrContext, SockContext};
use foobar_common::held::{self, End, Held, Holder};

use crate::atomic;
use crate::kernel::Kernel;
use crate::maps::HELD;

/// Offset of `sk_err` in the kernel's `struct tcp_sock`, see `listener.rs`; 0: unknown.
#[unsafe(no_mangle)]
static SOCK_ERROR: u32 = 0;

/// A socket's own memory.
pub(crate) struct Socket(*mut bpf_sock);

impl Socket {
    /// Of a call's context.
    #[inline(always)]
    pub(crate) fn of_call(context: &SockAddrContext) -> Self {
        // SAFETY: the context of a running program; volatile, as the verifier demands a load of this very field.
        Self(unsafe { read_volatile(&raw const (*context.sock_addr).__bindgen_anon_1.sk) })
    }

    /// Its word; null: it has none.
    #[inline(always)]
    fn word(&self, flags: u32) -> *mut u64 {
        let map = (&raw const HELD).cast_mut().cast::<c_void>();
        // SAFETY: a socket that is valid for the program's run.
        unsafe { bpf_sk_storage_get(map, self.0.cast(), null_mut(), flags.into()).cast::<u64>() }
    }
}

impl Holder for Socket {
    #[inline(always)]
    fn held(&self) -> Held {
        let word = self.word(0);
        // SAFETY: an aligned word of the socket's storage; volatile, because other threads may send by it.
        Held(if word.is_null() { 0 } else { unsafe { read_volatile(word) } })
    }
    #[inline(always)]
    fn exchange(&self, held: Held) -> Option<Held> {
        let word = self.word(BPF_SK_STORAGE_GET_F_CREATE);
        // SAFETY: an aligned word of the socket's storage.
        (!word.is_null()).then(|| Held(unsafe { atomic::exchange(word, held.0) }))
    }
}

/// Follows a connection of a local socket to its end.
#[inline(always)]
pub(crate) fn follow(context: *mut bpf_sock_ops) {
    // SAFETY: the context of a running program; volatile word accesses are what the verifier allows on it.
    unsafe {
        let socket = Socket(read_volatile(&raw const (*context).__bindgen_anon_2.sk));
        if socket.0.is_null() {
            return;
        }
        let tables = Kernel::of_socket(null_mut());
        let argument =
            |index: usize| read_volatile((&raw const (*context).__bindgen_anon_1.args).cast::<u32>().add(index));
        match read_volatile(&raw const (*context).op) {
            BPF_SOCK_OPS_TCP_CONNECT_CB if socket.held() != Held::default() => {
                let wanted = BPF_SOCK_OPS_STATE_CB_FLAG | BPF_SOCK_OPS_RTO_CB_FLAG;
                let flags = read_volatile(&raw const (*context).bpf_sock_ops_cb_flags) | wanted;
                // Refused, the place goes back when the socket is closed.
                if bpf_sock_ops_cb_flags_set(context, flags as i32) >= 0 {
                    held::followed(&socket, &tables);
                }
            }
            BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB => held::answered(&socket, &tables),
            BPF_SOCK_OPS_RTO_CB if read_volatile(&raw const (*context).state) == BPF_TCP_SYN_SENT => {
                held::unanswered(&socket, &tables);
            }
            BPF_SOCK_OPS_STATE_CB if argument(1) == BPF_TCP_CLOSE => {
                let end = if argument(0) != BPF_TCP_SYN_SENT {
                    End::Connected
                } else if has_error(&socket) {
                    End::Failed
                } else {
                    End::GivenUp
                };
                held::ended(&socket, end, &tables);
            }
            _ => {}
        }
    }
}

/// Whether a connection was refused or broken off, and not given up by its own program.
#[inline(always)]
fn has_error(socket: &Socket) -> bool {
    // SAFETY: a read of an aligned static, that user space sets in the object after compilation.
    let offset = unsafe { read_volatile(&raw const SOCK_ERROR) } as usize;
    if offset == 0 {
        return false;
    }
    // SAFETY: the verifier has checked the offset against the kernel's types; such reads never fault.
    unsafe {
        let socket = bpf_skc_to_tcp_sock(socket.0.cast()).cast::<u8>();
        !socket.is_null() && read_volatile(socket.add(offset).cast::<u32>()) != 0
    }
}

/// A local socket is closed.
#[inline(always)]
pub(crate) fn release(context: &SockContext) {
    held::closed(&Socket(context.sock), &Kernel::of_socket(null_mut()));
}
