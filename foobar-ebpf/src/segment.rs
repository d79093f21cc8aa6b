//! A SYN while a program looks at it: in a map, for the stack has no room, and the verifier no patience.

use core::ffi::c_void;
use core::ptr::{null_mut, read_volatile, write_volatile};

use aya_ebpf::helpers::generated::bpf_loop;
use foobar_common::syn::{self, FIRST, NO_SCALE, Notes, Options, ROOM, STEPS};

use crate::maps::SEGMENT;

/// The TCP header and what its options say.
#[repr(C)]
pub(crate) struct Segment {
    pub(crate) tcp: [u8; ROOM],
    timestamps: u32,
    timestamp: u32,
    window_scale: u32,
    sack: u32,
    signed: u32,
    /// Offset of the next option.
    at: u32,
    length: u32,
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

    /// Reads the options of a header of `length` bytes.
    #[inline(always)]
    pub(crate) fn read(&mut self, length: u32) {
        // SAFETY: as in `nothing`. The kernel's own loop, whose body the verifier walks once.
        unsafe {
            write_volatile(&raw mut (*self.0).at, FIRST);
            write_volatile(&raw mut (*self.0).length, length);
            bpf_loop(STEPS, step as *mut c_void, null_mut(), 0);
        }
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

/// One option of the segment of this CPU; 1: it was the last.
extern "C" fn step(_index: u32, _context: *mut c_void) -> i64 {
    let Some(segment) = SEGMENT.get_ptr_mut(0) else { return 1 };
    // SAFETY: as in `Found::nothing`.
    unsafe {
        let (at, length) = (read_volatile(&raw const (*segment).at), read_volatile(&raw const (*segment).length));
        match syn::option(&(*segment).tcp, at, length, &mut Found(segment)) {
            Some(next) => write_volatile(&raw mut (*segment).at, next),
            None => return 1,
        }
    }
    0
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
