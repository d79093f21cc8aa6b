//! Frames longer than 1,500 bytes: whatever the interface takes is judged by the same rules, whole.

use foobar_common::verdict::Reason;

use super::super::answer::Told;
use super::super::case::{Case, case};
use super::super::chain::Extension::{Destination, HopByHop};
use super::super::frame::{ACK, Frame, SYN, Transport};
use super::super::hosts::{ENEMY, LB1, OFFICE, WEB1, Wire};
use super::headers::{one, patched};
use super::services::{opening, to_vip};
use super::{both, named};

pub(super) fn cases() -> Vec<Case> {
    both(of_family)
}

fn of_family(v6: bool) -> Vec<Case> {
    let tcp = |port| Frame::new(v6, OFFICE, LB1, Transport::Tcp(1025, port, ACK));
    let dns = |length| Frame::new(v6, WEB1, LB1, Transport::Udp(1025, 53)).of_length(length);
    let at = if v6 { 18 } else { 16 };
    let long = tcp(443).of_length(9014);
    let total = if v6 { 9014 - 54 } else { 9014 - 14 };
    let said = |length: u16| patched(&long, at, &length.to_be_bytes());
    let mut cases = Vec::new();
    for length in [1514, 1515, 2048, 3000, 3500, 4096, 4097, 8192, 9000, 9014, 9018] {
        cases.push(case(
            &named(&format!("{length} bytes of TCP"), v6),
            vec![tcp(443).of_length(length).allowed("office")],
        ));
    }
    cases.extend([
        case(&named("9,014 bytes of UDP", v6), vec![dns(9014).allowed("dns")]),
        case(&named("9,014 bytes to the port after", v6), vec![tcp(444).of_length(9014).drops(Reason::NoRule)]),
        case(
            &named("9,014 bytes from a denied source", v6),
            vec![Frame::new(v6, ENEMY, LB1, Transport::Udp(1025, 53)).of_length(9014).denied("enemy")],
        ),
        one(&named("9,014 bytes that IP says to be one more", v6), said(total + 1), Reason::IpHeader),
        case(
            &named("9,014 bytes that IP says to be fewer", v6),
            vec![super::headers::passed_by_office(said(total - 1))],
        ),
        one(
            &named("9,014 bytes whose UDP says to be one more", v6),
            {
                let frame = dns(9014);
                let length = (9014 - frame.behind() + 1) as u16;
                patched(&frame, frame.behind() + 4, &length.to_be_bytes())
            },
            Reason::TransportHeader,
        ),
        case(
            &named("9,014 bytes under two tags", v6),
            vec![tcp(443).tag(0x88a8, 1).tag(0x8100, 2).of_length(9014).allowed("office")],
        ),
        case(
            &named("9,014 bytes of a flow do not fit its next link", v6),
            vec![
                opening(v6, 2000, "www", 8080, 0, WEB1),
                to_vip(v6, 2000, 8080, ACK)
                    .of_length(9014)
                    .answered(Told::TooBig(1500))
                    .counts("vip")
                    .given("www", v6, 0, 0),
            ],
        ),
        case(&named("1,514 bytes of a flow do", v6), {
            let ack = to_vip(v6, 2000, 8080, ACK).of_length(1514);
            let step = ack.leaves(&ack.to_backend(WEB1, 9080), Wire::Back, Reason::Flow);
            vec![opening(v6, 2000, "www", 8080, 0, WEB1), step.counts("vip").given("www", v6, 0, 0)]
        }),
        case(
            &named("9,014 bytes that open a flow", v6),
            vec![
                to_vip(v6, 2000, 8080, SYN)
                    .of_length(9014)
                    .answered(Told::TooBig(1500))
                    .counts("vip")
                    .given("www", v6, 0, 1),
            ],
        ),
        case(
            &named("9,014 bytes of a fragment", v6),
            vec![tcp(443).fragment(0, true).of_length(9014).drops(Reason::FragmentFirst)],
        ),
    ]);
    if v6 {
        cases.push(case(
            "9,014 bytes behind options",
            vec![tcp(443).chain(&[HopByHop(8), Destination(64)]).of_length(9014).allowed("office")],
        ));
    }
    cases
}
