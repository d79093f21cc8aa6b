//! Bounds the segment size that leaves a backend of a tunnel, where the stack sends it: see `foobar_common::clamp`.

use aya_ebpf::helpers::generated::{bpf_check_mtu, bpf_l4_csum_replace, bpf_skb_store_bytes};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use foobar_common::clamp::{self, Clamp};
use foobar_common::generation::USES_TUNNELS;
use foobar_common::tables::Tables as _;

use crate::kernel::Kernel;
use crate::leaving::Leaving;

/// `TCX_NEXT`: whoever else looks at the packet, and else it leaves.
const NEXT: i32 = -1;
/// A packet with a SYN and all options is no longer than this, and most others are.
const LONGEST: usize = 14 + 60 + 60;
/// Bytes of what changes under a checksum.
const CHANGED: u64 = 2;

/// The frames that leave an interface.
#[classifier]
fn clamp(context: TcContext) -> i32 {
    let frame = Leaving { context: context.skb.skb, length: context.len() as usize };
    if frame.length <= LONGEST {
        bound(&frame);
    }
    NEXT
}

#[inline(always)]
fn bound(frame: &Leaving) -> Option<()> {
    let tables = Kernel::of_socket(frame.context.cast());
    let generation = tables.generation()?;
    if !generation.uses(USES_TUNNELS) {
        return None;
    }
    let mut mtu = 0_u32;
    // SAFETY: the answer is a word on the stack. It is asked for, not judged: the result does not matter.
    unsafe { bpf_check_mtu(frame.context.cast(), 0, &raw mut mtu, 0, 0) };
    let Clamp { at, checksum, old, new } = clamp::of(frame, &generation.tunnels, mtu)?;
    let (old, new) = (old.to_be(), new.to_be());
    // SAFETY: the context of the running program; the kernel checks the offsets. It knows whether the card will compute the
    // checksum. Without room for it, the packet leaves as it was.
    unsafe {
        if bpf_l4_csum_replace(frame.context, checksum as u32, u64::from(old), u64::from(new), CHANGED) == 0 {
            bpf_skb_store_bytes(frame.context, at as u32, (&raw const new).cast(), CHANGED as u32, 0);
        }
    }
    Some(())
}
