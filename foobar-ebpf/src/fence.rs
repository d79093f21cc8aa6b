//! The fence: what the database may not answer any more, and when, see `foobar_common::fence`.

use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use aya_ebpf::macros::cgroup_skb;
use aya_ebpf::programs::SkBuffContext;
use foobar_common::fence;
use foobar_common::verdict::Reason;

use crate::count;
use crate::leaving::Leaving;
use crate::maps::{FENCE, FENCED};

/// The packet does not leave; whoever sends it is told `EPERM`, and TCP tries again later.
const DROP: i32 = 0;
/// The packet leaves.
const PASS: i32 = 1;

/// What leaves the sockets of the database's cgroup, of both families: answers, retransmissions and all.
#[cgroup_skb(egress)]
fn answers(context: SkBuffContext) -> i32 {
    let packet = Leaving { context: context.skb.skb, length: context.len() as usize };
    let Some(fenced) = FENCED.get(0) else { return DROP };
    if !is_up() || !fence::holds_back(&packet, fenced) {
        return PASS;
    }
    count::verdict(Reason::FencedAnswer, packet.length as u64);
    DROP
}

/// Whether the lease is over.
#[inline(always)]
pub(crate) fn is_up() -> bool {
    let Some(end) = FENCE.get_ptr(0) else { return true };
    // Volatile: user space writes it through a mapping, at any time.
    // SAFETY: an aligned word of a map value.
    let end = unsafe { core::ptr::read_volatile(end) };
    // SAFETY: a helper without pointers.
    fence::is_up(end, || unsafe { bpf_ktime_get_boot_ns() })
}
