//! Programs around a program: they do their part for each packet, then call the other one.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result};

use super::code::Instruction;
use super::{Buffers, load_for, map};

/// A loaded program around a program. The array is held: it forgets its programs when no user space holds it any more.
#[derive(Debug)]
pub(crate) struct Caller {
    program: OwnedFd,
    _array: OwnedFd,
}

impl Caller {
    /// Loads what `instructions` make of an array of programs, with `target` in it.
    ///
    /// An array takes either programs for frames of several buffers or others, and the kernel does not tell which of them
    /// `target` is: both are tried.
    pub(crate) fn load(target: BorrowedFd<'_>, instructions: impl FnOnce(i32) -> Vec<Instruction>) -> Result<Self> {
        let array = map::program_array(target)?;
        let code = instructions(array.as_raw_fd());
        let program = load_for(Buffers::One, &code)
            .or_else(|_| load_for(Buffers::Many, &code))
            .context("cannot load a program around a program")?;
        Ok(Self { program, _array: array })
    }

    /// The program around.
    pub(crate) fn program(&self) -> &OwnedFd {
        &self.program
    }
}
