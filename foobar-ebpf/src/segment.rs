//! A SYN while a program looks at it: in a map, for the stack has no room, and the verifier no patience.

use core::ptr::{read_volatile, write_volatile};

use foobar_common::syn::{NO_SCALE, Notes, Options, ROOM};

/// The TCP header and what its options say.
#[repr(C)]
pub(crate) struct Segment {
    pub(crate) tcp: [u8; ROOM],
    timestamps: u32,
    timestamp: u32,
    window_scale: u32,
    sack: u32,
    signed: u32,
    _pad: u32,
}

/// The options' part of a segment in the map of this CPU.
pub(crate) struct Found(*mut Segment);

impl Found {
    /// Nothing is found yet.
    ///
    /// # Safety
    /// `segment` is a map value of this CPU, which no other program looks at while this one runs.
    #[inline(always)]
    pub(crate) unsafe fn nothing(segment: *mut Segment) -> Self {
        // SAFETY: as the caller promises; volatile, so that LLVM keeps nothing of it in registers.
        unsafe {
            write_volatile(&raw mut (*segment).timestamps, 0);
            write_volatile(&raw mut (*segment).timestamp, 0);
            write_volatile(&raw mut (*segment).window_scale, NO_SCALE as u32);
            write_volatile(&raw mut (*segment).sack, 0);
            write_volatile(&raw mut (*segment).signed, 0);
        }
        Self(segment)
    }

    /// What was found.
    #[inline(always)]
    pub(crate) fn options(&self) -> Options {
        // SAFETY: as in `nothing`.
        unsafe {
            Options {
                timestamps: read_volatile(&raw const (*self.0).timestamps) != 0,
                timestamp: read_volatile(&raw const (*self.0).timestamp),
                window_scale: read_volatile(&raw const (*self.0).window_scale) as u8,
                sack: read_volatile(&raw const (*self.0).sack) != 0,
                signed: read_volatile(&raw const (*self.0).signed) != 0,
            }
        }
    }
}

impl Notes for Found {
    #[inline(always)]
    fn timestamp(&mut self, clock: u32) {
        // SAFETY: as in `nothing`, here and below.
        unsafe {
            write_volatile(&raw mut (*self.0).timestamps, 1);
            write_volatile(&raw mut (*self.0).timestamp, clock);
        }
    }
    #[inline(always)]
    fn window_scale(&mut self, scale: u8) {
        // SAFETY: see `timestamp`.
        unsafe { write_volatile(&raw mut (*self.0).window_scale, scale as u32) }
    }
    #[inline(always)]
    fn sack(&mut self) {
        // SAFETY: see `timestamp`.
        unsafe { write_volatile(&raw mut (*self.0).sack, 1) }
    }
    #[inline(always)]
    fn signed(&mut self) {
        // SAFETY: see `timestamp`.
        unsafe { write_volatile(&raw mut (*self.0).signed, 1) }
    }
}
