//! The eBPF object: which toolchain builds it, how, and what it must not contain.

mod object;
mod symbols;
mod toolchain;

pub(crate) use object::{build, clippy};
pub(crate) use toolchain::{Toolchain, World, detect};
