//! The frame of an `XdpContext`: every access checked against its end, as the verifier demands.

use aya_ebpf::helpers::generated::bpf_xdp_get_buff_len;
use aya_ebpf::programs::XdpContext;
use foobar_common::packet::{MAX_OFFSET, Packet};

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
