//! The user-space half of foobar: one file describes the site, this library does one server's part of it.

pub mod pki;
pub mod plan;
pub mod site;
