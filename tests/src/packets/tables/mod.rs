//! The named cases.

mod connections;
mod datagrams;
mod firewall;
mod flows;
mod headers;
mod routes;
mod services;

use super::case::Case;

/// All cases.
pub fn all() -> Vec<Case> {
    [
        headers::cases(),
        firewall::cases(),
        connections::cases(),
        services::cases(),
        flows::cases(),
        datagrams::cases(),
        routes::cases(),
    ]
    .concat()
}

/// The cases of one kind in both families.
fn both(of_family: fn(bool) -> Vec<Case>) -> Vec<Case> {
    [false, true].iter().flat_map(|v6| of_family(*v6)).collect()
}

/// A name with its family.
fn named(name: &str, v6: bool) -> String {
    format!("{name}, {}", if v6 { "IPv6" } else { "IPv4" })
}
