//! Connections that backends do not take: a reset in answer to a SYN, and nothing that a client could bring about.

use foobar_common::verdict::Reason;

use super::super::case::{Case, Step, case};
use super::super::frame::{ACK, FIN, Frame, RST, SYN, Transport};
use super::super::hosts::{CLIENT, Host, VIP, WEB1, WEB2, Wire};
use super::services::{opening, to_vip};
use super::{both, named};

pub(super) fn cases() -> Vec<Case> {
    both(of_family)
}

/// Members of the service, which takes them in turn.
const HOSTS: [Host; 2] = [WEB1, WEB2];
/// Number that the backends say.
const SAID: u32 = 0x0102_0304;

fn of_family(v6: bool) -> Vec<Case> {
    let open = |source, member: u32| opening(v6, source, "www", 8080, member, HOSTS[member as usize]);
    let answer = |source, member: u32, flags| {
        let frame =
            Frame::new(v6, HOSTS[member as usize], CLIENT, Transport::Tcp(9080, source, flags)).numbers(SAID, 1);
        let sent = frame.to_client(VIP, 8080, CLIENT);
        frame.leaves(&sent, Wire::Front, Reason::FlowReply).given("www", v6, member, 0)
    };
    let client = |source, member: u32, flags| {
        let frame = to_vip(v6, source, 8080, flags).numbers(1, SAID + 1);
        let sent = frame.to_backend(HOSTS[member as usize], 9080);
        frame.leaves(&sent, Wire::Back, Reason::Flow).counts("vip").given("www", v6, member, 0)
    };
    let refusal = |source, member| answer(source, member, RST | ACK);
    let of = |name: &str, steps: Vec<Step>| case(&named(&format!("failures: {name}"), v6), steps);
    vec![
        of("a refusal that is sent twice is one", vec![open(2000, 0), refusal(2000, 0).refused(), refusal(2000, 0)]),
        of(
            "each backend has its own row",
            vec![
                open(2000, 0),
                open(2001, 1),
                refusal(2000, 0).refused(),
                refusal(2001, 1).refused(),
                open(2002, 0),
                refusal(2002, 0).refused(),
                open(2003, 1),
                open(2004, 0),
                answer(2004, 0, SYN | ACK).ends_row(2),
                answer(2003, 1, SYN | ACK).ends_row(1),
            ],
        ),
        of(
            "an answer that is sent twice ends a row once",
            vec![
                open(2000, 0),
                open(2001, 1),
                open(2002, 0),
                answer(2000, 0, SYN | ACK),
                refusal(2002, 0).refused(),
                answer(2000, 0, SYN | ACK),
            ],
        ),
        of("a SYN sent again is refused again", {
            vec![open(2000, 0), refusal(2000, 0).refused(), open(2000, 1), refusal(2000, 1).refused()]
        }),
        of("a reset without ACK answers no SYN", vec![open(2000, 0), answer(2000, 0, RST)]),
        of("a reset after the answer", vec![open(2000, 0), answer(2000, 0, SYN | ACK), refusal(2000, 0)]),
        of("a reset of what was established", {
            vec![open(2000, 0), answer(2000, 0, SYN | ACK), client(2000, 0, ACK), refusal(2000, 0)]
        }),
        of("a client's own reset", vec![open(2000, 0), client(2000, 0, RST | ACK), refusal(2000, 0)]),
        of("a client's FIN", vec![open(2000, 0), client(2000, 0, FIN | ACK), refusal(2000, 0).refused()]),
        of("a reset of no flow", {
            vec![Frame::new(v6, WEB1, CLIENT, Transport::Tcp(9080, 2000, RST | ACK)).drops(Reason::NoRule)]
        }),
    ]
}
