//! Frames for `foobar explain`: built from arguments, or read from a capture, and told in one line.

pub mod build;
pub mod pcap;
pub mod summary;
