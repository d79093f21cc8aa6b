//! The user-space half of foobar: one file describes the site, this library does one server's part of it.

pub mod agent;
mod certificates;
pub mod database;
pub mod datapath;
mod digest;
pub mod edge;
pub mod flood;
pub mod frame;
pub mod health;
pub mod host;
pub mod metrics;
pub mod pki;
pub mod plan;
pub mod process;
pub mod sets;
pub mod site;
pub mod table;
