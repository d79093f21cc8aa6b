//! What is dropped for its headers, and what is not judged at all.

use foobar_common::verdict::Reason;

use super::super::case::{Case, case, dropped, passed};
use super::super::frame::{Frame, SYN, Transport, arp, ethernet};
use super::super::hosts::{CLIENT, LB1, OFFICE, VIP, WEB1, Wire};

const C_TAG: u16 = 0x8100;
const S_TAG: u16 = 0x88a8;

pub(super) fn cases() -> Vec<Case> {
    [links(), ipv4(), ipv6(), transport(), truncated()].concat()
}

fn tcp(v6: bool) -> Frame {
    Frame::new(v6, OFFICE, LB1, Transport::Tcp(1025, 443, SYN))
}

/// The frame with other bytes at an offset.
pub(super) fn patched(frame: &Frame, at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut patched = frame.bytes();
    patched[at..at + bytes.len()].copy_from_slice(bytes);
    patched
}

pub(super) fn one(name: &str, bytes: Vec<u8>, reason: Reason) -> Case {
    case(name, vec![dropped(Wire::Front, bytes, reason)])
}

/// IEEE 802.3ad: an actor's information, version 1.
fn lacp() -> Vec<u8> {
    ethernet(CLIENT, 0x8809, &[&[1, 1, 1, 20][..], &[0; 106]].concat())
}

fn links() -> Vec<Case> {
    let tagged = |count: usize| (0..count).fold(tcp(false), |frame, n| frame.tag(C_TAG, n as u16));
    vec![
        case("ARP reaches the stack", vec![passed(Wire::Front, arp(CLIENT, VIP), Reason::Arp)]),
        case("ARP under a tag reaches the stack", {
            let mut frame = arp(CLIENT, VIP);
            frame.splice(12..12, [0x81, 0, 0, 5]);
            vec![passed(Wire::Front, frame, Reason::Arp)]
        }),
        one("MPLS", ethernet(CLIENT, 0x8847, &[0; 46]), Reason::EtherType),
        one("LLDP", ethernet(CLIENT, 0x88cc, &[2; 46]), Reason::EtherType),
        one("PPPoE", ethernet(CLIENT, 0x8864, &[0x11; 46]), Reason::EtherType),
        one("the old tag of QinQ", patched(&tcp(false).tag(0x9100, 7), 12, &[0x91, 0]), Reason::EtherType),
        case("LACP reaches the stack", vec![passed(Wire::Front, lacp(), Reason::SlowProtocol)]),
        case(
            "LACP of nothing reaches the stack",
            vec![passed(Wire::Front, lacp()[..14].to_vec(), Reason::SlowProtocol)],
        ),
        one("the EtherType before LACP's", ethernet(CLIENT, 0x8808, &[1; 110]), Reason::EtherType),
        one("the EtherType after LACP's", ethernet(CLIENT, 0x880a, &[1; 110]), Reason::EtherType),
        one("a tag without anything behind it", ethernet(CLIENT, C_TAG, &[0, 7]), Reason::Truncated),
        one("an unknown EtherType", patched(&tcp(false), 12, &[0x88, 0xb5]), Reason::EtherType),
        one("an IEEE 802.3 length", patched(&tcp(false), 12, &[0, 0x40]), Reason::EtherType),
        case("one tag", vec![tagged(1).allowed("office")]),
        case("two tags", vec![tagged(2).allowed("office")]),
        case("802.1ad over 802.1Q", vec![tcp(true).tag(S_TAG, 7).tag(C_TAG, 9).allowed("office")]),
        case("three tags", vec![tagged(3).drops(Reason::VlanDepth)]),
        case("four tags", vec![tagged(4).drops(Reason::VlanDepth)]),
    ]
}

fn ipv4() -> Vec<Case> {
    let frame = tcp(false);
    let with_options = {
        let mut bytes = patched(&frame, 14, &[0x46]);
        bytes.splice(34..34, [1, 1, 1, 0]);
        let length = (bytes.len() - 14) as u16;
        bytes[16..18].copy_from_slice(&length.to_be_bytes());
        bytes
    };
    let padded = [frame.bytes(), vec![0; 20]].concat();
    let options =
        |name: &str, options: &[u8]| case(name, vec![frame.clone().options(options).drops(Reason::IpOptions)]);
    vec![
        one("IPv4 of version 6", patched(&frame, 14, &[0x65]), Reason::IpHeader),
        one("IPv4 with a header of 16 bytes", patched(&frame, 14, &[0x44]), Reason::IpHeader),
        one("IPv4 longer than the frame", patched(&frame, 16, &[1, 0]), Reason::IpHeader),
        one("IPv4 shorter than its header", patched(&frame, 16, &[0, 19]), Reason::IpHeader),
        one("IPv4 options", with_options, Reason::IpOptions),
        options("IPv4 options: record route", &[7, 7, 4, 0, 0, 0, 0, 0]),
        options("IPv4 options: loose source route", &[131, 7, 4, 10, 0, 1, 12, 0]),
        options("IPv4 options: router alert", &[148, 4, 0, 0]),
        options("IPv4 options: as many as there can be", &[1; 40]),
        one("IPv4 options that are cut off", frame.clone().options(&[1; 40]).bytes()[..50].to_vec(), Reason::IpHeader),
        case("IPv4 that must not be fragmented is none", vec![frame.allowed("office")]),
        case("IPv4 with padding behind it", vec![passed_by_office(padded)]),
    ]
}

pub(super) fn passed_by_office(bytes: Vec<u8>) -> super::super::case::Step {
    passed(Wire::Front, bytes, Reason::RuleAllow).counts("office")
}

fn ipv6() -> Vec<Case> {
    let frame = tcp(true);
    let next = |header: u8| patched(&frame, 20, &[header]);
    let extension = |name: &str, header| one(&format!("IPv6 {name}"), next(header), Reason::IpExtension);
    vec![
        one("IPv6 of version 4", patched(&frame, 14, &[0x40]), Reason::IpHeader),
        one("IPv6 longer than the frame", patched(&frame, 18, &[1, 0]), Reason::IpHeader),
        one("IPv6 of the greatest length", patched(&frame, 18, &[0xff, 0xff]), Reason::IpHeader),
        extension("a routing header made of TCP", 43),
        extension("without next header", 59),
        extension("mobility header", 135),
        case("IPv6 with padding behind it", vec![passed_by_office([frame.bytes(), vec![0; 9]].concat())]),
    ]
}

fn transport() -> Vec<Case> {
    let mut cases = Vec::new();
    for v6 in [false, true] {
        let family = |name: &str| super::named(name, v6);
        let (tcp, udp) = (tcp(v6), Frame::new(v6, WEB1, LB1, Transport::Udp(1025, 53)));
        let at = tcp.behind();
        let header = Reason::TransportHeader;
        cases.extend([
            one(&family("TCP with a header of 16 bytes"), patched(&tcp, at + 12, &[0x40]), header),
            one(&family("TCP with a header longer than the packet"), patched(&tcp, at + 12, &[0xf0]), header),
            one(&family("UDP shorter than IP says"), patched(&udp, at + 4, &[0, 13]), header),
            one(&family("UDP longer than IP says"), patched(&udp, at + 4, &[0, 15]), header),
            one(&family("UDP of length zero"), patched(&udp, at + 4, &[0, 0]), header),
        ]);
        for (name, protocol) in [("TCP", 6), ("UDP", 17), ("ICMP", if v6 { 58 } else { 1 })] {
            let short = Frame::new(v6, OFFICE, LB1, Transport::Other(protocol)).data(b"7 bytes");
            cases.push(case(&family(&format!("{name} of seven bytes")), vec![short.drops(header)]));
        }
    }
    cases
}

/// Cut within each header: the lengths of the IP header still promise what is not there.
fn truncated() -> Vec<Case> {
    let (four, six) = (tcp(false).bytes(), tcp(true).bytes());
    let tagged = tcp(false).tag(C_TAG, 1).tag(C_TAG, 2).bytes();
    let cut = |name: &str, frame: &[u8], at: usize, reason| one(&format!("cut {name}"), frame[..at].to_vec(), reason);
    vec![
        cut("before everything (core only)", &four, 0, Reason::Truncated),
        cut("within Ethernet (core only)", &four, 13, Reason::Truncated),
        cut("behind Ethernet", &four, 14, Reason::Truncated),
        cut("within the first tag", &tagged, 17, Reason::Truncated),
        cut("within the second tag", &tagged, 21, Reason::Truncated),
        cut("within IPv4", &four, 33, Reason::Truncated),
        cut("behind IPv4", &four, 34, Reason::IpHeader),
        cut("within IPv6", &six, 53, Reason::Truncated),
        cut("within the addresses of IPv6", &six, 30, Reason::Truncated),
        cut("behind IPv6", &six, 54, Reason::IpHeader),
        cut("one byte short", &four, four.len() - 1, Reason::IpHeader),
    ]
}
