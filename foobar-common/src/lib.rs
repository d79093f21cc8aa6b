//! The packet path of foobar as a pure function, and the types that kernel and user space share.
#![cfg_attr(not(feature = "std"), no_std)]
#![forbid(unsafe_code)]

#[cfg(feature = "std")]
pub mod rules;
