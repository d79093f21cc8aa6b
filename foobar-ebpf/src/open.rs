//! Open connections of each source: counted when a handshake with a listener ends, given back when the socket closes.

use core::ffi::c_void;
use core::ptr::{null_mut, read_volatile, write_volatile};

use aya_ebpf::bindings::{
    BPF_SK_STORAGE_GET_F_CREATE, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_STATE_CB,
    BPF_SOCK_OPS_STATE_CB_FLAG, BPF_TCP_CLOSE, bpf_sock_ops,
};
use aya_ebpf::helpers::generated::{bpf_get_netns_cookie, bpf_sk_storage_get, bpf_sock_ops_cb_flags_set};
use foobar_common::abi::BucketKey;
use foobar_common::address::{Address, Be16, Family, Tuple};
use foobar_common::firewall::{self, Ledger};
use foobar_common::generation::USES_OPEN_LIMITS;
use foobar_common::open::{self, BUCKETS, MAX_OPEN_RULES, Place, WAYS};
use foobar_common::parse::{Headers, TCP};
use foobar_common::tables::Tables as _;

use crate::kernel::Kernel;
use crate::maps::{CONNECTIONS, OPEN_COUNTS, SEED};
use crate::{atomic, maps};

/// `AF_INET`.
const AF_INET: u32 = 2;
/// Third word of an IPv4-mapped IPv6 address, `::ffff:0:0/96`.
const MAPPED: u32 = 0xffff_u32.to_be();
/// Attempts at a word that other CPUs change too.
const ATTEMPTS: usize = 3;

/// What a connection gives back: bucket and way of each word that counts it, plus one; 0: none.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Counted {
    words: [u32; MAX_OPEN_RULES],
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
        if !limited() || !of_this_namespace(context) {
            return;
        }
        let counted = counted(context, BPF_SK_STORAGE_GET_F_CREATE);
        if counted.is_null() {
            return;
        }
        let flags = read_volatile(&raw const (*context).bpf_sock_ops_cb_flags) | BPF_SOCK_OPS_STATE_CB_FLAG;
        // First the promise of a close, then the count: what cannot be given back is not taken.
        if bpf_sock_ops_cb_flags_set(context, flags as i32) < 0 || read_volatile(&raw const (*counted).words[0]) != 0 {
            return;
        }
        let v4 = read_volatile(&raw const (*context).family) == AF_INET;
        if v4 || mapped(context) { count4(context, counted) } else { count6(context, counted) }
    }
}

/// Whether a rule in force limits open connections.
#[inline(always)]
fn limited() -> bool {
    Kernel::of_socket(null_mut()).generation().is_some_and(|generation| generation.uses(USES_OPEN_LIMITS))
}

/// Whether a socket is of the network namespace whose rules these are.
#[inline(always)]
fn of_this_namespace(context: *mut bpf_sock_ops) -> bool {
    let wanted = maps::namespace();
    // SAFETY: the context of a running program.
    wanted == 0 || unsafe { bpf_get_netns_cookie(context.cast()) } == wanted
}

/// Whether an IPv6 socket has accepted an IPv4 connection.
///
/// # Safety
/// As for [`counted`].
#[inline(always)]
unsafe fn mapped(context: *mut bpf_sock_ops) -> bool {
    // SAFETY: as the caller promises.
    unsafe {
        read_volatile(&raw const (*context).remote_ip6[0]) == 0
            && read_volatile(&raw const (*context).remote_ip6[1]) == 0
            && read_volatile(&raw const (*context).remote_ip6[2]) == MAPPED
    }
}

/// Counts an IPv4 connection by the rules in force.
#[inline(never)]
fn count4(context: *mut bpf_sock_ops, counted: *mut Counted) {
    // SAFETY: the context of a running program, read word by word, as the verifier demands.
    let (source, destination) =
        unsafe { (read_volatile(&raw const (*context).remote_ip4), read_volatile(&raw const (*context).local_ip4)) };
    count(context, Address([source]), Address([destination]), counted);
}

/// Counts an IPv6 connection by the rules in force.
#[inline(never)]
fn count6(context: *mut bpf_sock_ops, counted: *mut Counted) {
    // SAFETY: as in `count4`.
    let (source, destination) = unsafe {
        let word = |words: *const u32, index: usize| read_volatile(words.add(index));
        let (remote, local) = ((&raw const (*context).remote_ip6).cast(), (&raw const (*context).local_ip6).cast());
        (
            [word(remote, 0), word(remote, 1), word(remote, 2), word(remote, 3)],
            [word(local, 0), word(local, 1), word(local, 2), word(local, 3)],
        )
    };
    count(context, Address(source), Address(destination), counted);
}

#[inline(always)]
fn count<const W: usize>(context: *mut bpf_sock_ops, source: Address<W>, destination: Address<W>, counted: *mut Counted)
where
    Address<W>: Family<W>,
{
    let tables = Kernel::of_socket(context.cast());
    let Some(generation) = tables.generation() else { return };
    // SAFETY: as in `count4`. The peer's port is in network byte order in the last two bytes, ours in the host's.
    let (source_port, destination_port) = unsafe {
        let [_, _, high, low] = read_volatile(&raw const (*context).remote_port).to_ne_bytes();
        (Be16::from_bytes([high, low]), Be16::new(read_volatile(&raw const (*context).local_port) as u16))
    };
    let tuple = Tuple::new((source, destination), (source_port, destination_port), TCP);
    firewall::count_open(&Headers::of_syn(tuple), &tables, generation, &mut Sheet { counted, used: 0 });
}

/// Where one connection is counted.
struct Sheet {
    counted: *mut Counted,
    used: usize,
}

impl Ledger for Sheet {
    #[inline(always)]
    fn count(&mut self, key: &BucketKey) {
        let Some(seed) = SEED.get(0) else { return };
        if self.used >= MAX_OPEN_RULES {
            return;
        }
        // SAFETY: the storage of the socket that is being accepted; the index is within it.
        unsafe {
            let word = &raw mut (*self.counted).words[self.used % MAX_OPEN_RULES];
            take(&Place::new(*seed, key), word);
            self.used += usize::from(read_volatile(word) != 0);
        }
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
        for rule in 0..MAX_OPEN_RULES {
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
