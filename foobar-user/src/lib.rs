//! The user-space half of foobar: one file describes the site, this library does one server's part of it.

pub mod datapath;
pub mod health;
pub mod edge;
pub mod metrics;
pub mod plan;
pub mod process;
pub mod pki;
pub mod site;
