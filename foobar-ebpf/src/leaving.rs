//! What leaves, as programs behind the stack see it: a socket buffer, from which bytes are copied.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::bpf_skb_load_bytes;
use foobar_common::packet::{MAX_OFFSET, Packet};

/// A frame of a classifier, or an IP packet of a cgroup.
pub(crate) struct Leaving {
    pub(crate) context: *mut __sk_buff,
    /// In bytes.
    pub(crate) length: usize,
}

impl Packet for Leaving {
    #[inline(always)]
    fn length(&self) -> usize {
        self.length
    }

    #[inline(always)]
    fn load<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        if offset > MAX_OFFSET {
            return None;
        }
        let mut bytes = [0; N];
        // SAFETY: as many bytes as the buffer has.
        let result =
            unsafe { bpf_skb_load_bytes(self.context.cast(), offset as u32, bytes.as_mut_ptr().cast(), N as u32) };
        (result == 0).then_some(bytes)
    }

    /// Nothing of it lies where a program could point to.
    #[inline(always)]
    fn head<const N: usize>(&mut self) -> Option<&mut [u8; N]> {
        None
    }

    /// Nothing is written past the helpers that keep the checksum.
    #[inline(always)]
    fn store<const N: usize>(&mut self, _: usize, _: [u8; N]) -> Option<()> {
        None
    }
}
