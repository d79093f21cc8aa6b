//! The packet path of foobar as a pure function, and the types that kernel and user space share.
//!
//! `path::process` judges one packet; its stages are the modules below, in this order:
//!
//! ```text
//! parse ─► flow ─► [unknown: service ─► firewall ─► choose] ─► rewrite ─► verdict
//! ```
//!
//! What few packets need has a program of its own in the kernel, see `stage`: ICMP errors about flows (`icmp`), and those that
//! the balancer answers with (`answer`), and frames that leave under another VLAN tag than they came (`vlan`). `socket::connect` serves local sockets from the same service table.
#![cfg_attr(not(feature = "std"), no_std)]
#![forbid(unsafe_code)]

pub mod abi;
pub mod address;
pub mod answer;
pub mod bucket;
pub mod checksum;
pub mod choose;
pub mod clamp;
pub mod express;
pub mod fence;
pub mod firewall;
pub mod flow;
pub mod generation;
pub mod half_open;
pub mod hash;
pub mod held;
#[cfg(feature = "std")]
pub mod host;
pub mod icmp;
pub mod open;
pub mod packet;
pub mod parse;
pub mod path;
pub mod prefixes;
pub mod reply;
pub mod rewrite;
#[cfg(feature = "std")]
pub mod rules;
pub mod service;
pub mod socket;
pub mod stage;
pub mod syn;
pub mod synack;
pub mod tables;
pub mod tunnel;
pub mod verdict;
pub mod vlan;
