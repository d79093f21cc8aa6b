//! The frame of an `XdpContext`: every access checked against its end, as the verifier demands.

use aya_ebpf::programs::XdpContext;
use foobar_common::packet::{MAX_OFFSET, Packet};

/// A frame while the program looks at it.
pub(crate) struct Frame {
    data: usize,
    end: usize,
}

impl Frame {
    /// The context's frame.
    #[inline(always)]
    pub(crate) fn new(context: &XdpContext) -> Self {
        Self { data: context.data(), end: context.data_end() }
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
        self.end - self.data
    }

    #[inline(always)]
    fn load<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        // SAFETY: `at` has checked that the bytes lie within the frame; `[u8; N]` has no alignment.
        self.at::<N>(offset).map(|bytes| unsafe { *bytes })
    }

    #[inline(always)]
    fn store<const N: usize>(&mut self, offset: usize, bytes: [u8; N]) -> Option<()> {
        // SAFETY: as in `load`; nobody else holds a pointer into the frame.
        self.at::<N>(offset).map(|place| unsafe { *place = bytes })
    }
}
