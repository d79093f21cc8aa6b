//! TCP flags: combinations that no stack sends are dropped, whatever the rules say; rules may look at the others.

use foobar_common::verdict::Reason;

use super::super::case::{Case, Step, case};
use super::super::frame::{ACK, FIN, Frame, PSH, RST, SYN, Transport, URG};
use super::super::hosts::{CLIENT, LB1, OFFICE};
use super::super::world::RuleSet;
use super::services::{opening, to_vip};
use super::{both, named};

/// Flags that say nothing of a connection's state: PSH, ECE, CWR.
const IGNORED: [u8; 3] = [PSH, 64, 128];

/// Combinations that occur.
const VALID: [(&str, u8); 9] = [
    ("SYN", SYN),
    ("SYN and URG", SYN | URG),
    ("SYN and ACK", SYN | ACK),
    ("RST", RST),
    ("RST and ACK", RST | ACK),
    ("FIN and ACK", FIN | ACK),
    ("FIN, ACK and URG", FIN | ACK | URG),
    ("ACK", ACK),
    ("ACK and URG", ACK | URG),
];

/// Combinations that scanners and worse send.
const INVALID: [(&str, u8); 14] = [
    ("none", 0),
    ("FIN alone", FIN),
    ("URG alone", URG),
    ("FIN and URG", FIN | URG),
    ("FIN, PSH and URG", FIN | PSH | URG),
    ("PSH alone", PSH),
    ("SYN and FIN", SYN | FIN),
    ("SYN, FIN and ACK", SYN | FIN | ACK),
    ("SYN and RST", SYN | RST),
    ("SYN, ACK and URG", SYN | ACK | URG),
    ("FIN and RST", FIN | RST),
    ("RST and URG", RST | URG),
    ("RST, ACK and URG", RST | ACK | URG),
    ("all", 0xff),
];

pub(super) fn cases() -> Vec<Case> {
    [both(combinations), both(rules)].concat()
}

fn office(v6: bool, flags: u8) -> Frame {
    Frame::new(v6, OFFICE, LB1, Transport::Tcp(1025, 443, flags))
}

fn combinations(v6: bool) -> Vec<Case> {
    let judged = |flags: u8| -> Step {
        let known = VALID.iter().any(|(_, valid)| *valid == flags & 0x3f & !PSH);
        if known { office(v6, flags).allowed("office") } else { office(v6, flags).drops(Reason::TcpFlags) }
    };
    let mut cases = Vec::new();
    for (name, flags) in VALID {
        let with = IGNORED.iter().map(|ignored| office(v6, flags | ignored).allowed("office"));
        let steps = std::iter::once(office(v6, flags).allowed("office")).chain(with).collect();
        cases.push(case(&named(&format!("TCP flags: {name}"), v6), steps));
    }
    for (name, flags) in INVALID {
        let with = IGNORED.iter().map(|ignored| office(v6, flags | ignored).drops(Reason::TcpFlags));
        let steps = std::iter::once(office(v6, flags).drops(Reason::TcpFlags)).chain(with).collect();
        cases.push(case(&named(&format!("TCP flags: {name}"), v6), steps));
    }
    cases.push(case(&named("TCP flags: every combination", v6), (0..=255).map(judged).collect()));
    cases.push(case(
        &named("TCP flags: none, in a known flow", v6),
        vec![
            opening(v6, 2000, "www", 8080, 0, super::super::hosts::WEB1),
            to_vip(v6, 2000, 8080, 0).drops(Reason::TcpFlags),
            to_vip(v6, 2000, 8080, SYN | FIN).drops(Reason::TcpFlags),
        ],
    ));
    cases
}

fn rules(v6: bool) -> Vec<Case> {
    let tcp = |port, flags| Frame::new(v6, CLIENT, LB1, Transport::Tcp(1025, port, flags));
    let of = |name: &str, steps| case(&named(name, v6), steps).rules(RuleSet::Everything);
    vec![
        of(
            "a rule for SYN without ACK",
            vec![
                tcp(8017, SYN).allowed("syn-only"),
                tcp(8017, SYN | URG).allowed("syn-only"),
                tcp(8017, SYN | PSH | 128).allowed("syn-only"),
            ],
        ),
        of(
            "a rule for SYN without ACK, and others",
            vec![
                tcp(8017, SYN | ACK).drops(Reason::NoRule),
                tcp(8017, ACK).drops(Reason::NoRule),
                tcp(8017, RST).drops(Reason::NoRule),
            ],
        ),
        of("a rule against RST", vec![tcp(8008, RST).denied("no-reset"), tcp(8008, RST | ACK).denied("no-reset")]),
        of("a rule against RST, and others", vec![tcp(8008, SYN).allowed("app"), tcp(8008, FIN | ACK).allowed("app")]),
        of(
            "a rule of flags does not know UDP",
            vec![Frame::new(v6, CLIENT, LB1, Transport::Udp(1025, 8017)).drops(Reason::NoRule)],
        ),
    ]
}
