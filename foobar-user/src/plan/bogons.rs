//! Sources that nobody has: on any wire, and on a wire that comes from the internet.
//!
//! From IANA's registries of special-purpose addresses (RFC 6890 and what updates it). Left out on purpose: link-local
//! addresses, which routers do not forward and which neighbours (a cloud's resolver among them) do have; `::`, which
//! duplicate address detection sends from; 6to4, Teredo and NAT64, which have clients behind them.

use std::net::IpAddr;

use foobar_common::rules::Action;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::derive::held_vips;
use crate::site::{At, Peer, Server, Site};

/// No host's source on any wire: "this network", loopback, multicast, reserved and broadcast, mapped IPv4.
const NOBODYS: [&str; 7] =
    ["0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/4", "240.0.0.0/4", "::1/128", "::ffff:0:0/96", "ff00::/8"];
/// Networks that many sites have and none has on the internet: private use, shared by carriers, unique local.
const PRIVATE: [&str; 5] = ["10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"];
/// Documentation, benchmarks, protocol assignments, discard, local NAT64, segment routing.
const UNROUTED: [&str; 13] = [
    "192.0.0.0/24",
    "192.0.2.0/24",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "64:ff9b:1::/48",
    "100::/64",
    "100:0:0:1::/64",
    "2001:2::/48",
    "2001:10::/28",
    "2001:db8::/32",
    "3fff::/20",
    "5f00::/16",
];

fn prefixes(texts: &[&str]) -> impl Iterator<Item = IpNet> {
    texts.iter().filter_map(|text| text.parse().ok())
}

/// Sources that no packet from a wire can have: this server's own addresses and VIPs, and nobody's.
pub(super) fn spoofed(own: &[IpNet]) -> Vec<IpNet> {
    own.iter().copied().chain(prefixes(&NOBODYS)).collect()
}

/// Sources that no packet from the internet can have; empty where no interface faces it.
///
/// A special prefix that holds a VIP is this site's public network and is left out, as is one that `admin` or an allowing
/// `from` names; of private networks only what `admin` names is, and never an address of a server.
pub(super) fn bogons(site: &Site, server: &Server) -> Vec<IpNet> {
    if server.outside.is_empty() {
        return Vec::new();
    }
    let vips: Vec<IpNet> = held_vips(site, server).into_iter().map(IpNet::from).collect();
    let admin: Vec<IpNet> = site.admin.iter().map(|prefix| prefix.value).collect();
    let clients = clients(site, server);
    let touch = |prefix: &IpNet, named: &[IpNet]| named.iter().any(|other| overlap(prefix, other));
    let mut list: Vec<IpNet> = prefixes(&UNROUTED)
        .filter(|prefix| !touch(prefix, &vips) && !touch(prefix, &admin) && !touch(prefix, &clients))
        .collect();
    for network in prefixes(&PRIVATE).filter(|prefix| !touch(prefix, &vips)) {
        list.extend(
            admin
                .iter()
                .fold(vec![network], |parts, hole| parts.into_iter().flat_map(|part| without(part, *hole)).collect()),
        );
    }
    let special =
        |address: &IpAddr| prefixes(&PRIVATE).chain(prefixes(&UNROUTED)).any(|prefix| prefix.contains(address));
    for address in site.servers.iter().filter(|other| other.name != server.name).flat_map(Server::addresses) {
        if special(&address) && !list.iter().any(|prefix| prefix.contains(&address)) {
            list.push(address.into());
        }
    }
    list
}

/// Prefixes that the file lets in on this server, other than everybody.
fn clients(site: &Site, server: &Server) -> Vec<IpNet> {
    let rules = site.rules.iter().filter(|rule| rule.stands_on(server) && rule.action.value == Action::Allow);
    let peers = site.services.iter().map(|service| &service.from).chain(rules.map(|rule| &rule.from)).flatten();
    let prefix = |peer: &At<Peer>| match peer.value {
        Peer::Prefix(prefix) if prefix.prefix_len() > 0 => Some(prefix),
        _ => None,
    };
    peers.filter_map(prefix).collect()
}

fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

/// A prefix less another one, as the fewest prefixes that it takes.
fn without(prefix: IpNet, hole: IpNet) -> Vec<IpNet> {
    if hole.contains(&prefix) {
        return Vec::new();
    }
    if !prefix.contains(&hole) {
        return vec![prefix];
    }
    let mut rest = Vec::new();
    let mut around = prefix;
    // Each step halves the prefix around the hole and keeps the half without it.
    while around != hole {
        let (low, high) = halves(around);
        let (with, other) = if low.contains(&hole) { (low, high) } else { (high, low) };
        rest.push(other);
        around = with;
    }
    rest.sort();
    rest
}

/// The two halves of a prefix that is wider than one address.
fn halves(prefix: IpNet) -> (IpNet, IpNet) {
    let length = prefix.prefix_len() + 1;
    match prefix {
        IpNet::V4(net) => {
            let high = net.network().to_bits() | 1 << (32 - u32::from(length));
            let of = |bits: u32| IpNet::V4(Ipv4Net::new_assert(bits.into(), length));
            (of(net.network().to_bits()), of(high))
        }
        IpNet::V6(net) => {
            let high = net.network().to_bits() | 1 << (128 - u32::from(length));
            let of = |bits: u128| IpNet::V6(Ipv6Net::new_assert(bits.into(), length));
            (of(net.network().to_bits()), of(high))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_special_prefix_is_one() {
        let count = NOBODYS.len() + PRIVATE.len() + UNROUTED.len();
        let all: Vec<IpNet> = prefixes(&NOBODYS).chain(prefixes(&PRIVATE)).chain(prefixes(&UNROUTED)).collect();
        assert_eq!(all.len(), count);
        assert!(all.iter().all(|prefix| *prefix == prefix.trunc()));
        assert_eq!(IpNet::aggregate(&all).len(), count - 2, "two pairs are neighbours, nothing overlaps");
    }

    #[test]
    fn a_hole_leaves_the_rest() {
        let net = |text: &str| -> IpNet { text.parse().expect("a prefix") };
        let rest = without(net("10.0.0.0/8"), net("10.0.1.41/32"));
        assert_eq!(rest.len(), 24);
        assert!(!rest.iter().any(|prefix| prefix.contains(&net("10.0.1.41/32"))));
        let again: Vec<IpNet> = rest.iter().copied().chain([net("10.0.1.41/32")]).collect();
        assert_eq!(IpNet::aggregate(&again), [net("10.0.0.0/8")]);
        assert_eq!(without(net("fc00::/7"), net("fd00:1::41/128")).len(), 121);
        assert_eq!(without(net("10.0.0.0/8"), net("10.0.0.0/8")), []);
        assert_eq!(without(net("10.0.0.0/8"), net("0.0.0.0/0")), []);
        assert_eq!(without(net("10.0.0.0/8"), net("11.0.0.0/8")), [net("10.0.0.0/8")]);
    }
}
