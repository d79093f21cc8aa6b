//! The tables of replies, one for each kind of flow, as functions that the verifier walks once: they take what they need, and
//! leave what they find, in the packet's work.

use core::hint::black_box;

use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use foobar_common::abi::FlowTable;
use foobar_common::reply::{Over, Room};

use crate::maps::{
    self, DATAGRAM_REPLIES4, DATAGRAM_REPLIES6, HALF_OPEN_REPLIES4, HALF_OPEN_REPLIES6, REPLIES4, REPLIES6, WORK,
};

const ESTABLISHED: u32 = 0;
const HALF_OPEN: u32 = 1;
const DATAGRAMS: u32 = 2;

#[inline(always)]
const fn number(table: FlowTable) -> u32 {
    match table {
        FlowTable::Established => ESTABLISHED,
        FlowTable::HalfOpen => HALF_OPEN,
        FlowTable::Datagrams => DATAGRAMS,
    }
}

macro_rules! replies {
    ($words:literal, $family:ident, $find:ident, $insert:ident, $remove:ident, $find_ip:ident, $insert_ip:ident, $remove_ip:ident,
     $established:ident, $half_open:ident, $datagrams:ident) => {
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $find(table: u32) -> u32 {
            let Some(work) = WORK.get_ptr_mut(0) else { return 0 };
            // SAFETY: a map value of this CPU, on which one packet at a time is on its way; the entry is copied at once, and an
            // element that is used again in between is another flow's of the same layout, which its look at the flow tells.
            unsafe {
                let room = &mut (*work).$family.room;
                let found = match table {
                    ESTABLISHED => $established.get(&room.tuple),
                    HALF_OPEN => $half_open.get(&room.tuple),
                    _ => $datagrams.get(&room.tuple),
                };
                let Some(reply) = found else { return 0 };
                // An assignment would be a call that copies byte by byte.
                core::ptr::copy_nonoverlapping(reply, &raw mut room.reply, 1);
            }
            1
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $insert(table: u32, flags: u32) -> u32 {
            let Some(work) = WORK.get_ptr_mut(0) else { return 0 };
            // SAFETY: as above.
            let room = unsafe { &(*work).$family.room };
            let flags = u64::from(flags);
            let inserted = match table {
                ESTABLISHED => $established.insert(&room.tuple, &room.reply, flags),
                HALF_OPEN => $half_open.insert(&room.tuple, &room.reply, flags),
                _ => $datagrams.insert(&room.tuple, &room.reply, flags),
            };
            u32::from(inserted.is_ok())
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $remove(table: u32) -> u32 {
            let Some(work) = WORK.get_ptr_mut(0) else { return 0 };
            // SAFETY: as above.
            let room = unsafe { &(*work).$family.room };
            // It may have been driven out in between.
            let removed = match table {
                ESTABLISHED => $established.remove(&room.tuple),
                HALF_OPEN => $half_open.remove(&room.tuple),
                _ => $datagrams.remove(&room.tuple),
            };
            u32::from(removed.is_ok())
        }

        /// See `Tables::reply4`.
        #[inline(always)]
        pub(crate) fn $find_ip(table: FlowTable, room: &mut Room<$words>) -> bool {
            // The compiler does not see that the function has the same room before it.
            black_box(core::ptr::from_mut(room));
            $find(number(table)) != 0
        }

        /// See `Tables::insert_reply4`.
        #[inline(always)]
        pub(crate) fn $insert_ip(table: FlowTable, room: &mut Room<$words>, over: Over) -> bool {
            black_box(core::ptr::from_mut(room));
            let flags = if over == Over::Anything { BPF_ANY } else { BPF_NOEXIST };
            if maps::dry() { flags == BPF_ANY || $find(number(table)) == 0 } else { $insert(number(table), flags) != 0 }
        }

        /// See `Tables::remove_reply4`.
        #[inline(always)]
        pub(crate) fn $remove_ip(table: FlowTable, room: &mut Room<$words>) {
            black_box(core::ptr::from_mut(room));
            if !maps::dry() {
                $remove(number(table));
            }
        }
    };
}

replies!(
    1,
    v4,
    find_reply4,
    insert_reply4,
    remove_reply4,
    find_ipv4,
    insert_ipv4,
    remove_ipv4,
    REPLIES4,
    HALF_OPEN_REPLIES4,
    DATAGRAM_REPLIES4
);
replies!(
    4,
    v6,
    find_reply6,
    insert_reply6,
    remove_reply6,
    find_ipv6,
    insert_ipv6,
    remove_ipv6,
    REPLIES6,
    HALF_OPEN_REPLIES6,
    DATAGRAM_REPLIES6
);
