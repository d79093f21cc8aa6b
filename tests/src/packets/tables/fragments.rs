//! Fragments: all are dropped, each kind with its own reason, and none gets past the rules; what is not cut is no fragment.

use foobar_common::verdict::Reason;

use super::super::case::{Case, case};
use super::super::chain::Extension::{self, Destination, Fragment, HopByHop};
use super::super::frame::{ACK, Frame, SYN, Transport};
use super::super::hosts::{CLIENT, ENEMY, LB1, OFFICE, WEB1};
use super::headers::{one, patched};
use super::services::{opening, to_vip};
use super::{both, named};

const FIRST: Reason = Reason::FragmentFirst;
const LATER: Reason = Reason::FragmentLater;
const OVERLAP: Reason = Reason::FragmentOverlap;

pub(super) fn cases() -> Vec<Case> {
    [both(of_family), ipv4(), ipv6()].concat()
}

fn tcp(v6: bool) -> Frame {
    Frame::new(v6, OFFICE, LB1, Transport::Tcp(1025, 443, SYN)).data(&[7; 32])
}

fn of_family(v6: bool) -> Vec<Case> {
    let udp = || Frame::new(v6, WEB1, LB1, Transport::Udp(1025, 53)).data(&[7; 32]);
    let echo = || Frame::new(v6, CLIENT, LB1, Transport::Icmp(if v6 { 128 } else { 8 }));
    let other = || Frame::new(v6, WEB1, LB1, Transport::Other(89)).data(&[7; 32]);
    let fragment = |name: &str, frame: Frame, offset: u16, more: bool, reason| {
        case(&named(&format!("fragment: {name}"), v6), vec![frame.fragment(offset, more).drops(reason)])
    };
    vec![
        fragment("first of TCP", tcp(v6), 0, true, FIRST),
        fragment("second of TCP", tcp(v6), 185, true, LATER),
        fragment("last of TCP", tcp(v6), 370, false, LATER),
        fragment("the farthest of TCP", tcp(v6), 0x1fff, false, LATER),
        fragment("over the ports of TCP", tcp(v6), 1, true, OVERLAP),
        fragment("over the flags of TCP", tcp(v6), 1, false, OVERLAP),
        fragment("over the end of TCP", tcp(v6), 2, false, OVERLAP),
        fragment("just behind TCP", tcp(v6), 3, false, LATER),
        fragment("first of UDP", udp(), 0, true, FIRST),
        fragment("just behind UDP", udp(), 1, false, LATER),
        fragment("first of ICMP", echo(), 0, true, FIRST),
        fragment("just behind ICMP", echo(), 1, true, LATER),
        fragment("first of another protocol", other(), 0, true, FIRST),
        fragment("second of another protocol", other(), 1, false, LATER),
        fragment(
            "first with eight bytes of TCP",
            {
                Frame {
                    transport: Transport::Other(6),
                    data: tcp(v6).bytes()[tcp(v6).behind()..][..8].to_vec(),
                    ..tcp(v6)
                }
            },
            0,
            true,
            FIRST,
        ),
        fragment(
            "first without any byte",
            Frame { transport: Transport::Other(6), data: Vec::new(), ..tcp(v6) },
            0,
            true,
            FIRST,
        ),
        fragment("of a denied source is not judged", Frame::new(v6, ENEMY, LB1, Transport::Udp(1, 53)), 0, true, FIRST),
        fragment("under a tag", tcp(v6).tag(0x8100, 4), 2, false, OVERLAP),
        case(
            &named("fragment: to a known flow", v6),
            vec![
                opening(v6, 2000, "www", 8080, 0, WEB1),
                to_vip(v6, 2000, 8080, ACK).fragment(0, true).drops(FIRST),
                to_vip(v6, 2000, 8080, ACK).fragment(1, false).drops(OVERLAP),
                to_vip(v6, 2000, 8080, ACK).fragment(185, false).drops(LATER),
            ],
        ),
    ]
}

fn ipv4() -> Vec<Case> {
    let flags = |name: &str, bytes: [u8; 2], reason| one(name, patched(&tcp(false), 20, &bytes), reason);
    vec![
        flags("fragment: first that must not be one", [0x60, 0], FIRST),
        flags("fragment: later that must not be one", [0x40, 185], LATER),
        flags("fragment: overlapping with the reserved bit", [0x80, 1], OVERLAP),
        case(
            "the reserved bit alone makes no fragment",
            vec![super::headers::passed_by_office(patched(&tcp(false), 20, &[0x80, 0]))],
        ),
        case("a packet that may be cut and is not", vec![tcp(false).fragment(0, false).allowed("office")]),
        case("fragment with options", vec![tcp(false).options(&[1; 4]).fragment(0, true).drops(Reason::IpOptions)]),
    ]
}

fn ipv6() -> Vec<Case> {
    let atomic = |transport| Frame::new(true, OFFICE, LB1, transport).chain(&[Extension::ATOMIC]);
    let chained = |name: &str, chain: &[Extension], reason| case(name, vec![tcp(true).chain(chain).drops(reason)]);
    let header = tcp(true).chain(&[Extension::ATOMIC]);
    let short = {
        let mut bytes = header.bytes()[..58].to_vec();
        bytes[18..20].copy_from_slice(&[0, 4]);
        bytes
    };
    vec![
        case("an atomic fragment to an allowed port", vec![atomic(Transport::Tcp(1025, 443, SYN)).allowed("office")]),
        case(
            "an atomic fragment to the port after",
            vec![atomic(Transport::Tcp(1025, 444, SYN)).drops(Reason::NoRule)],
        ),
        case(
            "an atomic fragment whose reserved bits are set",
            vec![super::headers::passed_by_office(patched(&header, 55, &[0xff, 0, 6]))],
        ),
        case(
            "two atomic fragment headers",
            vec![tcp(true).chain(&[Extension::ATOMIC, Extension::ATOMIC]).allowed("office")],
        ),
        chained("fragment: atomic, then a real one", &[Extension::ATOMIC, Fragment(185, false)], LATER),
        chained("fragment: first behind options", &[HopByHop(8), Fragment(0, true)], FIRST),
        chained("fragment: overlapping behind options", &[HopByHop(8), Destination(8), Fragment(2, false)], OVERLAP),
        chained("fragment: later, of options", &[Fragment(1, false), Destination(8)], LATER),
        chained("fragment: first, of options", &[Fragment(0, true), Destination(8)], FIRST),
        one("fragment: a header that is cut", short, Reason::IpExtension),
    ]
}
