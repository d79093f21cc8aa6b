//! IPv6 extension headers: walked to the rules behind them, or dropped when they are too many, too deep or not allowed.

use foobar_common::verdict::Reason;

use super::super::case::{Case, case};
use super::super::chain::Extension::{self, Authentication, Destination, Fragment, HopByHop, Other, Routing};
use super::super::frame::{ACK, Frame, SYN, Transport};
use super::super::hosts::{ADMIN_NEIGHBOUR, CLIENT, ENEMY, LB1, OFFICE, VIP, WEB1, Wire};
use super::headers::{one, patched};
use super::services::to_vip;

pub(super) fn cases() -> Vec<Case> {
    [walked(), refused(), depth(), cut(), rules(), balanced()].concat()
}

fn tcp(chain: &[Extension]) -> Frame {
    Frame::new(true, OFFICE, LB1, Transport::Tcp(1025, 443, SYN)).chain(chain)
}

fn walked() -> Vec<Case> {
    let ok = |name: &str, chain: &[Extension]| case(&format!("behind {name}"), vec![tcp(chain).allowed("office")]);
    let mut cases = vec![
        ok("hop-by-hop options", &[HopByHop(8)]),
        ok("hop-by-hop options of 64 bytes", &[HopByHop(64)]),
        ok("destination options", &[Destination(8)]),
        ok("destination options of 40 bytes", &[Destination(40)]),
        ok("destination options three times", &[Destination(8), Destination(16), Destination(8)]),
        ok("a routing header that is done", &[Routing(0, 0)]),
        ok("a segment routing header that is done", &[Routing(4, 0)]),
        ok("an authentication header of 12 bytes", &[Authentication(12)]),
        ok("an authentication header of 24 bytes", &[Authentication(24)]),
        ok("an authentication header of 44 bytes", &[Authentication(44)]),
        ok("an atomic fragment header", &[Extension::ATOMIC]),
        ok(
            "all of them in the order of RFC 8200",
            &[HopByHop(8), Destination(8), Routing(2, 0), Extension::ATOMIC, Authentication(24), Destination(8)],
        ),
        ok("an authentication header and a done routing header", &[Authentication(24), Routing(0, 0)]),
    ];
    for (name, kind) in [("one tag", 0x8100), ("a service tag", 0x88a8)] {
        let frame = tcp(&[HopByHop(8), Destination(16)]).tag(kind, 5);
        cases.push(case(&format!("two extension headers under {name}"), vec![frame.allowed("office")]));
    }
    cases
}

fn refused() -> Vec<Case> {
    let no = |name: &str, chain: &[Extension]| case(name, vec![tcp(chain).drops(Reason::IpExtension)]);
    vec![
        no("hop-by-hop options twice", &[HopByHop(8), HopByHop(8)]),
        no("hop-by-hop options behind destination options", &[Destination(8), HopByHop(8)]),
        no("hop-by-hop options behind a fragment header", &[Extension::ATOMIC, HopByHop(8)]),
        no("a routing header with a segment left", &[Routing(0, 1)]),
        no("a segment routing header with segments left", &[Routing(4, 2)]),
        no("a routing header with 255 segments left", &[Routing(2, 255)]),
        no("a segment left behind other headers", &[HopByHop(8), Destination(8), Routing(0, 1)]),
        no("a mobility header behind options", &[Destination(8), Other(135, vec![0, 0, 0, 0, 0, 0, 0])]),
        no("a HIP header behind options", &[Destination(8), Other(139, vec![0, 0, 0, 0, 0, 0, 0])]),
        no("a shim6 header behind options", &[Destination(8), Other(140, vec![0, 0, 0, 0, 0, 0, 0])]),
        no("no next header behind options", &[Destination(8), Other(59, vec![0, 0, 0, 0, 0, 0, 0])]),
        no("an authentication header of 8 bytes", &[Other(51, vec![0, 0, 0, 0, 0, 0, 1])]),
    ]
}

/// At most eight headers, and a transport header that begins within 255 bytes.
fn depth() -> Vec<Case> {
    let many = |count: usize| tcp(&vec![Destination(8); count]);
    let mixed = |count: usize| tcp(&[vec![HopByHop(8)], vec![Extension::ATOMIC; count - 1]].concat());
    let deep = |length: usize| tcp(&[Destination(length)]);
    let aligned = |length: usize| tcp(&[Destination(184), Authentication(length)]);
    let too_deep = |name: &str, frame: &Frame| case(name, vec![frame.drops(Reason::IpExtension)]);
    vec![
        case("seven extension headers", vec![many(7).allowed("office")]),
        case("eight extension headers", vec![many(8).allowed("office")]),
        too_deep("nine extension headers", &many(9)),
        case("eight extension headers, most of them atomic", vec![mixed(8).allowed("office")]),
        too_deep("nine extension headers, most of them atomic", &mixed(9)),
        case("TCP at byte 254", vec![deep(200).allowed("office")]),
        too_deep("TCP at byte 262", &deep(208)),
        case("TCP at byte 254 by an odd header", vec![aligned(16).allowed("office")]),
        too_deep("TCP at byte 258", &aligned(20)),
        case("TCP at byte 250 under a tag", vec![deep(192).tag(0x8100, 9).allowed("office")]),
        too_deep("TCP at byte 258 under a tag", &deep(200).tag(0x8100, 9)),
        too_deep("options of 2,048 bytes", &deep(2048)),
    ]
}

/// Chains that run out of the packet.
fn cut() -> Vec<Case> {
    let frame = tcp(&[HopByHop(8), Destination(16)]);
    let bytes = frame.bytes();
    // The IP header's length says so too, so that only the chain is wrong.
    let ending = |at: usize| {
        let mut short = bytes[..at].to_vec();
        short[18..20].copy_from_slice(&((at - 54) as u16).to_be_bytes());
        short
    };
    let no = Reason::IpExtension;
    vec![
        one("a chain that ends before its first header", ending(54), no),
        one("a chain that ends within its first header", ending(58), no),
        one("a chain that ends behind its first header", ending(62), no),
        one("a chain that ends within its second header", ending(70), no),
        one("a chain that ends before TCP", ending(78), Reason::TransportHeader),
        one("a chain that ends within TCP", ending(97), Reason::TransportHeader),
        case("a chain that ends behind TCP", vec![super::headers::passed_by_office(ending(98))]),
        one("a header longer than the packet", patched(&frame, 55, &[255]), no),
        one("a header one unit longer than the packet", patched(&tcp(&[Destination(8)]), 55, &[4]), no),
        one("an authentication header longer than the packet", patched(&tcp(&[Authentication(12)]), 55, &[200]), no),
    ]
}

fn rules() -> Vec<Case> {
    let behind = |from, transport| Frame::new(true, from, LB1, transport).chain(&[HopByHop(8), Destination(8)]);
    let drop = |name: &str, frame: Frame, reason| case(name, vec![frame.drops(reason)]);
    vec![
        case("neighbour discovery behind options", vec![behind(CLIENT, Transport::Icmp(135)).allowed("discovery")]),
        drop("another ICMPv6 type behind options", behind(CLIENT, Transport::Icmp(137)), Reason::NoRule),
        case("UDP behind options", vec![behind(WEB1, Transport::Udp(1025, 53)).allowed("dns")]),
        drop("UDP behind options, the port after", behind(WEB1, Transport::Udp(1025, 54)), Reason::NoRule),
        case("OSPF behind options", vec![behind(WEB1, Transport::Other(89)).allowed("ospf")]),
        drop("ESP behind options", behind(WEB1, Transport::Other(50)), Reason::NoRule),
        drop("IPv6 in IPv6 behind options", behind(WEB1, Transport::Other(41)), Reason::ForeignTunnel),
        drop("TCP behind options, the port after", behind(OFFICE, Transport::Tcp(1025, 444, SYN)), Reason::NoRule),
        drop(
            "TCP behind options from a neighbour",
            behind(ADMIN_NEIGHBOUR, Transport::Tcp(1, 22, SYN)),
            Reason::NoRule,
        ),
        drop("bad TCP flags behind options", behind(OFFICE, Transport::Tcp(1025, 443, 0)), Reason::TcpFlags),
        case("a denied source behind options", vec![behind(ENEMY, Transport::Udp(1025, 53)).denied("enemy")]),
        drop(
            "a fragment behind options",
            behind(OFFICE, Transport::Tcp(1025, 443, SYN)).behind_too(Fragment(185, false)),
            Reason::FragmentLater,
        ),
        drop(
            "UDP of a wrong length behind options",
            {
                let frame = behind(WEB1, Transport::Other(17));
                frame.data(&[4, 1, 0, 53, 0, 24, 0, 0])
            },
            Reason::TransportHeader,
        ),
    ]
}

/// Services are translated behind their extension headers.
fn balanced() -> Vec<Case> {
    let chain = [HopByHop(8), Destination(24)];
    let syn = to_vip(true, 2000, 8080, SYN).chain(&chain);
    let ack = to_vip(true, 2000, 8080, ACK);
    let reply = Frame::new(true, WEB1, CLIENT, Transport::Tcp(9080, 2000, SYN | ACK)).chain(&[Destination(8)]);
    let datagram = Frame::new(true, CLIENT, VIP, Transport::Udp(3000, 7007)).chain(&chain);
    vec![
        case(
            "a service behind options",
            vec![
                syn.leaves(&syn.to_backend(WEB1, 9080), Wire::Back, Reason::NewFlow)
                    .counts("vip")
                    .given("www", true, 0, 1),
                reply
                    .leaves(&reply.to_client(VIP, 8080, CLIENT), Wire::Front, Reason::FlowReply)
                    .given("www", true, 0, 0),
                ack.leaves(&ack.to_backend(WEB1, 9080), Wire::Back, Reason::Flow)
                    .counts("vip")
                    .given("www", true, 0, 0),
            ],
        ),
        case(
            "a datagram's service behind options",
            vec![
                datagram
                    .leaves(&datagram.to_backend(WEB1, 8007), Wire::Back, Reason::NewFlow)
                    .counts("vip-udp")
                    .given("echo", true, 0, 1),
            ],
        ),
        case(
            "a service behind a segment left",
            vec![to_vip(true, 2000, 8080, SYN).chain(&[Routing(0, 1)]).drops(Reason::IpExtension)],
        ),
    ]
}
