//! The kernel shell around the packet path; empty on the host.
#![no_std]
