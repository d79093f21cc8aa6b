//! The named cases.

mod balance;
mod connections;
mod datagrams;
mod direct;
mod extensions;
mod failures;
mod fence;
mod firewall;
mod flags;
mod flows;
mod fragments;
mod headers;
mod icmp;
mod interfaces;
mod jumbo;
mod limits;
mod one_way;
mod replies;
mod routes;
mod services;
mod sets;
mod shadow;
mod spoofed;
mod tunnel;
mod vlans;

use super::case::Case;
use super::hosts::Wire;

/// All cases.
pub fn all() -> Vec<Case> {
    [
        headers::cases(),
        icmp::cases(),
        firewall::cases(),
        connections::cases(),
        fence::cases(),
        services::cases(),
        balance::cases(),
        direct::cases(),
        tunnel::cases(),
        replies::cases(),
        flows::cases(),
        failures::cases(),
        datagrams::cases(),
        routes::cases(),
        extensions::cases(),
        fragments::cases(),
        flags::cases(),
        spoofed::cases(),
        interfaces::cases(),
        sets::cases(),
        limits::cases(),
        shadow::cases(),
        jumbo::cases(),
        vlans::cases(),
    ]
    .concat()
}

/// A frame of each kind that the cases know, to be cut and bent: those of one step, the first of each beginning of a name.
pub fn samples() -> Vec<(Wire, Vec<u8>)> {
    const KINDS: [&str; 16] = [
        "a new connection",
        "behind an authentication header and",
        "behind all of them",
        "two extension headers",
        "seven extension headers",
        "a datagram's service",
        "fragment: over the flags",
        "echo request",
        "neighbour discovery",
        "ARP",
        "LACP",
        "two tags",
        "IPv4 options",
        "a set of sources",
        "a protocol by number",
        "an atomic fragment to",
    ];
    let all = all();
    let kinds = KINDS.iter().flat_map(|kind| {
        let found: Vec<_> = all.iter().filter(|case| case.name.starts_with(kind)).collect();
        assert!(!found.is_empty(), "no case begins with {kind:?}");
        found
    });
    kinds
        .filter(|case| case.steps.len() == 1)
        .map(|case| (case.steps[0].ingress, case.steps[0].frame.clone()))
        .collect()
}

/// The cases of one kind in both families.
fn both(of_family: fn(bool) -> Vec<Case>) -> Vec<Case> {
    [false, true].iter().flat_map(|v6| of_family(*v6)).collect()
}

/// A name with its family.
pub(super) fn named(name: &str, v6: bool) -> String {
    format!("{name}, {}", if v6 { "IPv6" } else { "IPv4" })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_there_are_enough_beside_their_families() {
        let all = all();
        let names: BTreeSet<&str> = all.iter().map(|case| case.name.as_str()).collect();
        assert_eq!(names.len(), all.len(), "a name is used twice");
        let apart: BTreeSet<&str> =
            names.iter().map(|name| name.trim_end_matches(", IPv4").trim_end_matches(", IPv6")).collect();
        println!("{} cases, {} when both families are one", names.len(), apart.len());
        assert!(apart.len() >= 150, "{} cases", apart.len());
    }
}
