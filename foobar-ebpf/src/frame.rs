//! The frame of an `XdpContext`: every access checked against its end, as the verifier demands.

use core::arch::asm;

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::generated::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail, bpf_xdp_get_buff_len};
use aya_ebpf::programs::XdpContext;
use foobar_common::packet::{MAX_OFFSET, Packet, Resize};

use crate::maps;

/// A frame while the program looks at it.
pub(crate) struct Frame {
    data: usize,
    end: usize,
    length: usize,
}

impl Frame {
    /// The context's frame.
    #[inline(always)]
    pub(crate) fn new(context: &XdpContext) -> Self {
        let (data, end) = (context.data(), context.data_end());
        // Of a frame in several buffers only the first can be read, which holds all headers.
        // SAFETY: a helper that takes the context of the running program.
        let length = if maps::jumbo() { unsafe { bpf_xdp_get_buff_len(context.ctx) as usize } } else { end - data };
        Self { data, end, length }
    }

    /// A pointer to `N` bytes at `offset`, for helpers.
    #[inline(always)]
    pub(crate) fn bytes<const N: usize>(&self, offset: usize) -> Option<*mut u8> {
        self.at::<N>(offset).map(<*mut [u8; N]>::cast)
    }

    /// A pointer to `N` bytes at `offset`.
    #[inline(always)]
    fn at<const N: usize>(&self, offset: usize) -> Option<*mut [u8; N]> {
        if offset > MAX_OFFSET {
            return None;
        }
        let start = self.data + offset;
        if start + N > self.end { None } else { Some(start as *mut [u8; N]) }
    }
}

impl Packet for Frame {
    #[inline(always)]
    fn length(&self) -> usize {
        self.length
    }

    #[inline(always)]
    fn load<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        // SAFETY: `at` has checked that the bytes lie within the frame; `[u8; N]` has no alignment.
        self.at::<N>(offset).map(|bytes| unsafe { *bytes })
    }

    #[inline(always)]
    fn head<const N: usize>(&mut self) -> Option<&mut [u8; N]> {
        // SAFETY: as in `store`, for as long as the frame is borrowed.
        self.at::<N>(0).map(|bytes| unsafe { &mut *bytes })
    }

    #[inline(always)]
    fn store<const N: usize>(&mut self, offset: usize, bytes: [u8; N]) -> Option<()> {
        // SAFETY: as in `load`; nobody else holds a pointer into the frame.
        self.at::<N>(offset).map(|place| unsafe { *place = bytes })
    }
}

/// A frame that may begin and end elsewhere before the program has done: pointers are taken anew each time.
pub(crate) struct Movable {
    context: *mut xdp_md,
}

impl Movable {
    /// The context's frame.
    #[inline(always)]
    pub(crate) const fn new(context: &XdpContext) -> Self {
        Self { context: context.ctx }
    }

    /// A pointer to `N` bytes at `offset`.
    #[inline(always)]
    fn at<const N: usize>(&self, offset: usize) -> Option<*mut [u8; N]> {
        let (context, offset) = (XdpContext::new(self.context), opaque(offset));
        if offset > MAX_OFFSET {
            return None;
        }
        let start = context.data() + offset;
        if opaque(start + N) > context.data_end() { None } else { Some(start as *mut [u8; N]) }
    }
}

/// The same number, of which the compiler knows nothing: it would compare one offset for many, or the first byte in place of the
/// last, where the verifier loses the bounds.
#[inline(always)]
fn opaque(mut number: usize) -> usize {
    // SAFETY: a register that becomes what it is.
    unsafe { asm!("{0} = {0}", inout(reg) number, options(nomem, nostack)) };
    number
}

impl Packet for Movable {
    #[inline(always)]
    fn length(&self) -> usize {
        Frame::new(&XdpContext::new(self.context)).length
    }

    #[inline(always)]
    fn head<const N: usize>(&mut self) -> Option<&mut [u8; N]> {
        // SAFETY: as in `Frame`.
        self.at::<N>(0).map(|bytes| unsafe { &mut *bytes })
    }

    #[inline(always)]
    fn load<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        // SAFETY: as in `Frame`.
        self.at::<N>(offset).map(|bytes| unsafe { *bytes })
    }

    #[inline(always)]
    fn store<const N: usize>(&mut self, offset: usize, bytes: [u8; N]) -> Option<()> {
        // SAFETY: as in `Frame`.
        self.at::<N>(offset).map(|place| unsafe { *place = bytes })
    }
}

impl Resize for Movable {
    #[inline(always)]
    fn push(&mut self, bytes: usize) -> Option<()> {
        // SAFETY: the context of the running program; nobody holds a pointer into the frame.
        let result = unsafe { bpf_xdp_adjust_head(self.context, -(bytes as i32)) };
        (result == 0).then_some(())
    }

    #[inline(always)]
    fn pull(&mut self, bytes: usize) -> Option<()> {
        // SAFETY: as in `push`.
        let result = unsafe { bpf_xdp_adjust_head(self.context, bytes as i32) };
        (result == 0).then_some(())
    }

    #[inline(always)]
    fn cut(&mut self, length: usize) -> Option<()> {
        let change = length as i64 - self.length() as i64;
        // SAFETY: as in `push`.
        let result = unsafe { if change > 0 { -1 } else { bpf_xdp_adjust_tail(self.context, change as i32) } };
        (result == 0).then_some(())
    }
}
