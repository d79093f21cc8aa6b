//! Open connections of each source: counted when a handshake with a listener ends, given back when the socket closes.

use core::ffi::c_void;
use core::ptr::{null_mut, read_volatile, write_volatile};

use aya_ebpf::bindings::{
    BPF_SK_STORAGE_GET_F_CREATE, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_STATE_CB,
    BPF_SOCK_OPS_STATE_CB_FLAG, BPF_TCP_CLOSE, bpf_sock_ops,
};
use aya_ebpf::helpers::generated::{bpf_sk_storage_get, bpf_sock_ops_cb_flags_set};
use foobar_common::open::{self, BUCKETS, Place, WAYS};

use crate::atomic;
use crate::maps::{CONNECTIONS, OPEN_COUNTS};

/// Rules that count one connection at the most.
pub(crate) const COUNTED_BY: usize = 8;
/// Attempts at a word that other CPUs change too.
const ATTEMPTS: usize = 3;

/// What a connection gives back: bucket and way of each word that counts it, plus one; 0: none.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Counted {
    words: [u32; COUNTED_BY],
}

/// Follows the life of a connection that was accepted.
#[inline(always)]
pub(crate) fn follow(context: *mut bpf_sock_ops) {
    // SAFETY: the context of a running program; volatile word accesses are what the verifier allows on it.
    unsafe {
        let operation = read_volatile(&raw const (*context).op);
        if operation == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB {
            opened(context);
        } else if operation == BPF_SOCK_OPS_STATE_CB
            && read_volatile(&raw const (*context).__bindgen_anon_1.args[1]) == BPF_TCP_CLOSE
        {
            closed(context);
        }
    }
}

/// What a socket gives back; null: nothing, and no room for it.
///
/// # Safety
/// `context` is that of the running program.
#[inline(always)]
unsafe fn counted(context: *mut bpf_sock_ops, flags: u32) -> *mut Counted {
    // SAFETY: as the caller promises; a socket that is not null is valid for the program's run.
    unsafe {
        let socket = read_volatile(&raw const (*context).__bindgen_anon_2.sk);
        if socket.is_null() {
            return null_mut();
        }
        let map = (&raw const CONNECTIONS).cast_mut().cast::<c_void>();
        bpf_sk_storage_get(map, socket.cast(), null_mut(), flags.into()).cast::<Counted>()
    }
}

/// Counts a connection for every rule that limits those of its source.
///
/// # Safety
/// As for [`counted`].
#[inline(always)]
unsafe fn opened(context: *mut bpf_sock_ops) {
    // SAFETY: as the caller promises.
    unsafe {
        let counted = counted(context, BPF_SK_STORAGE_GET_F_CREATE);
        if counted.is_null() {
            return;
        }
        let flags = read_volatile(&raw const (*context).bpf_sock_ops_cb_flags) | BPF_SOCK_OPS_STATE_CB_FLAG;
        // First the promise of a close, then the count: what cannot be given back is not taken.
        if bpf_sock_ops_cb_flags_set(context, flags as i32) < 0 || read_volatile(&raw const (*counted).words[0]) != 0 {
            return;
        }
        let source = read_volatile(&raw const (*context).remote_ip4);
        take(&Place::new(0, 0, [source, 0, 0, 0]), &raw mut (*counted).words[0]);
    }
}

/// Gives back what a connection was counted by, once.
///
/// # Safety
/// As for [`counted`].
#[inline(always)]
unsafe fn closed(context: *mut bpf_sock_ops) {
    // SAFETY: as the caller promises. The socket is locked: nobody else gives back for it.
    unsafe {
        let counted = counted(context, 0);
        if counted.is_null() {
            return;
        }
        for rule in 0..COUNTED_BY {
            let word = read_volatile(&raw const (*counted).words[rule]);
            write_volatile(&raw mut (*counted).words[rule], 0);
            give_back(word);
        }
    }
}

/// Counts one more for a key, and notes in `word` which word to give back, plus one; 0: its bucket is full.
///
/// # Safety
/// `word` lies in the storage of a locked socket.
#[inline(always)]
unsafe fn take(place: &Place, word: *mut u32) {
    let Some(bucket) = OPEN_COUNTS.get_ptr_mut(place.bucket % BUCKETS) else { return };
    for _ in 0..ATTEMPTS {
        // SAFETY: as the caller promises; words of the map value. The way goes through the storage, which the verifier
        // does not follow: it walks what comes after once, and not for each way.
        unsafe {
            write_volatile(word, 0);
            for way in 0..WAYS {
                if place.counted(read_volatile(&raw const (*bucket)[way])) > 0 {
                    write_volatile(word, way as u32 + 1);
                    break;
                }
            }
            if read_volatile(word) == 0 {
                for way in 0..WAYS {
                    if open::is_free(read_volatile(&raw const (*bucket)[way])) {
                        write_volatile(word, way as u32 + 1);
                        break;
                    }
                }
            }
            let Some(way) = read_volatile(word).checked_sub(1) else { return };
            let pointer = &raw mut (*bucket)[way as usize % WAYS];
            let old = read_volatile(pointer);
            if place.taken(old).is_some_and(|new| atomic::compare_exchange(pointer, old, new) == old) {
                write_volatile(word, place.bucket * WAYS as u32 + way % WAYS as u32 + 1);
                return;
            }
            write_volatile(word, 0);
        }
    }
}

/// Gives a word back that [`take`] has returned.
#[inline(always)]
fn give_back(word: u32) {
    let Some(index) = word.checked_sub(1) else { return };
    let Some(bucket) = OPEN_COUNTS.get_ptr_mut(index / WAYS as u32) else { return };
    // SAFETY: a word of the map value. A count of 1 or more, for it is ours.
    unsafe { atomic::fetch_add(&raw mut (*bucket)[index as usize % WAYS], u64::MAX) };
}
