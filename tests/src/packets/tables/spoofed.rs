//! Sources that cannot be: the server's own, loopback, multicast and reserved ones; what has no place on the internet, by
//! interface; what the routes would not lead back to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use foobar_common::verdict::Reason;

use super::super::case::{Case, Step, case};
use super::super::frame::{ACK, Frame, SYN, Transport};
use super::super::hosts::{ADMIN, CLIENT, ENEMY, Host, LB1, LB1_TOO, OFFICE, VIP, WEB1, Wire};
use super::super::own::{LOCAL, REMOTE};
use super::super::world::RuleSet;
use super::{both, named};

pub(super) fn cases() -> Vec<Case> {
    [own(false), own(true), impossible(), bogons(), both(strict)].concat()
}

/// A SYN to an allowed port, from any address, by an interface.
fn from(source: &str, wire: Wire) -> Frame {
    let source: IpAddr = source.parse().expect("an address in this file");
    let host = match source {
        IpAddr::V4(v4) => CLIENT.at(v4, Ipv6Addr::UNSPECIFIED),
        IpAddr::V6(v6) => CLIENT.at(Ipv4Addr::UNSPECIFIED, v6),
    };
    Frame { ingress: wire, ..Frame::new(source.is_ipv6(), host, LB1, Transport::Tcp(1025, 8000, SYN)) }
}

fn one(name: &str, step: Step) -> Case {
    case(name, vec![step]).rules(RuleSet::Everything)
}

fn own(v6: bool) -> Vec<Case> {
    let tcp = |host: Host, port| Frame::new(v6, host, LB1, Transport::Tcp(1025, port, SYN));
    vec![
        one(&named("spoofed: the server's address", v6), tcp(LB1, 8000).denied("spoofed")),
        one(&named("spoofed: the server's other address", v6), tcp(LB1_TOO, 8000).denied("spoofed")),
        one(&named("spoofed: the VIP", v6), tcp(VIP, 8000).denied("spoofed")),
        one(&named("spoofed: a connection of the server with itself", v6), {
            Frame::new(v6, LB1_TOO, LB1, Transport::Tcp(REMOTE, LOCAL, ACK)).denied("spoofed")
        }),
        one(&named("spoofed: the VIP, at a service", v6), {
            Frame::new(v6, VIP, VIP, Transport::Tcp(8080, 8080, SYN)).denied("spoofed")
        }),
        one(&named("an address beside the server's", v6), tcp(CLIENT, 8000).allowed("app")),
        one(&named("ssh is never closed", v6), {
            Frame::new(v6, ADMIN, LB1, Transport::Tcp(1025, 22, SYN)).allowed("ssh")
        }),
    ]
}

fn impossible() -> Vec<Case> {
    let mut cases = Vec::new();
    for source in [
        "0.0.0.0",
        "0.1.2.3",
        "127.0.0.1",
        "127.255.255.255",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
        "::1",
        "ff02::1",
        "ff0e::1",
        "::ffff:10.0.1.11",
        "::ffff:127.0.0.1",
    ] {
        cases.push(one(&format!("spoofed: {source}"), from(source, Wire::Back).denied("spoofed")));
    }
    for source in ["1.0.0.0", "126.255.255.255", "128.0.0.0", "223.255.255.255", "::2", "::fffe:a00:10b", "fe80::1"] {
        cases.push(one(&format!("not spoofed: {source}"), from(source, Wire::Back).allowed("app")));
    }
    let discovery = |source, kind| Frame { transport: Transport::Icmp(kind), ..from(source, Wire::Front) };
    cases.push(one("duplicate address detection has no source", discovery("::", 135).allowed("discovery")));
    cases.push(one("router solicitation of a link-local address", discovery("fe80::7", 133).allowed("discovery")));
    cases
}

fn bogons() -> Vec<Case> {
    let mut cases = Vec::new();
    for source in [
        "10.0.1.11",
        "10.255.255.255",
        "100.64.0.1",
        "100.127.255.255",
        "169.254.1.1",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.2.1",
        "192.168.7.7",
        "198.19.255.255",
        "fc00::1",
        "fd00:1::b",
        "3fff::1",
        "100::1",
    ] {
        let steps = vec![from(source, Wire::Front).denied("bogons"), from(source, Wire::Back).allowed("app")];
        cases.push(case(&format!("bogon: {source}, outside and inside"), steps).rules(RuleSet::Everything));
    }
    for source in [
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "192.0.3.0",
        "192.169.0.0",
        "198.17.255.255",
        "198.20.0.0",
        "fbff::1",
        "fe00::1",
        "3ffe::1",
        "100:0:0:1::1",
    ] {
        cases.push(one(&format!("beside a bogon: {source}"), from(source, Wire::Front).allowed("app")));
    }
    cases
}

/// Where sources have to be routed back by the interface they come from.
fn strict(v6: bool) -> Vec<Case> {
    let by = |wire, frame: Frame| Frame { ingress: wire, ..frame };
    let dns = |host| Frame::new(v6, host, LB1, Transport::Udp(1025, 53));
    let echo = |host| Frame::new(v6, host, LB1, Transport::Icmp(if v6 { 128 } else { 8 }));
    let office = Frame::new(v6, OFFICE, LB1, Transport::Tcp(1025, 443, SYN));
    let one = |name: &str, step| case(&named(name, v6), vec![step]).rules(RuleSet::Strict);
    vec![
        one("reverse path: from where its route leads", dns(WEB1).allowed("dns")),
        one("reverse path: from another interface", by(Wire::Front, dns(WEB1)).drops(Reason::ReversePath)),
        one("reverse path: a client by its interface", echo(CLIENT).allowed(if v6 { "echo6" } else { "echo" })),
        one("reverse path: a client by another", by(Wire::Back, echo(CLIENT)).drops(Reason::ReversePath)),
        one("reverse path: without a route", office.drops(Reason::ReversePath)),
        one(
            "reverse path: before any rule",
            Frame::new(v6, ENEMY, LB1, Transport::Udp(1, 53)).drops(Reason::ReversePath),
        ),
        one("reverse path: the server's own address", {
            Frame::new(v6, LB1_TOO, LB1, Transport::Udp(1025, 53)).drops(Reason::ReversePath)
        }),
        one("reverse path: behind a fragment", dns(WEB1).fragment(0, true).drops(Reason::FragmentFirst)),
    ]
}
