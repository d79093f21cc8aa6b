//! Flows: both directions, their ends, their generations.

use foobar_common::abi::FlowTable;
use foobar_common::verdict::Reason;

use super::super::case::{Case, GENERATION, case};
use super::super::frame::{ACK, FIN, Frame, PSH, RST, SYN, Transport};
use super::super::hosts::{CLIENT, ENEMY, VIP, WEB1, WEB2, WEB3, Wire};
use super::services::{following, opening, replying, to_vip};
use super::{both, named};

pub(super) fn cases() -> Vec<Case> {
    [both(of_family), both(before), both(handshakes)].concat()
}

/// A flow is half open until its client acknowledges what the backend has said.
fn handshakes(v6: bool) -> Vec<Case> {
    use FlowTable::{Datagrams, Established, HalfOpen};
    const SAID: u32 = 0x0102_0304;
    let syn = || opening(v6, 2000, "www", 8080, 0, WEB1);
    let answer = |sequence: u32, flags| {
        let frame = Frame::new(v6, WEB1, CLIENT, Transport::Tcp(9080, 2000, flags)).numbers(sequence, 1);
        let sent = frame.to_client(VIP, 8080, CLIENT);
        frame.leaves(&sent, Wire::Front, Reason::FlowReply).given("www", v6, 0, 0)
    };
    let client = |number: u32, flags| {
        let frame = to_vip(v6, 2000, 8080, flags).numbers(1, number);
        let sent = frame.to_backend(WEB1, 9080);
        frame.leaves(&sent, Wire::Back, Reason::Flow).counts("vip").given("www", v6, 0, 0)
    };
    let datagram = Frame::new(v6, CLIENT, VIP, Transport::Udp(3000, 7007));
    let (both, key) = (SYN | ACK, to_vip(v6, 2000, 8080, SYN));
    let of = |name: &str, steps, table| case(&named(&format!("handshake: {name}"), v6), steps).ends_in(&key, table);
    vec![
        of("a SYN alone", vec![syn()], HalfOpen),
        of("without the client's answer", vec![syn(), answer(SAID, both)], HalfOpen),
        of("whole", vec![syn(), answer(SAID, both), client(SAID + 1, ACK)], Established),
        of("whole with data", vec![syn(), answer(SAID, both), client(SAID + 1, ACK | PSH)], Established),
        of(
            "the answer sent twice",
            vec![syn(), answer(SAID, both), answer(SAID, both), client(SAID + 1, ACK)],
            Established,
        ),
        of("the SYN sent twice", vec![syn(), client(0, SYN), answer(SAID, both), client(SAID + 1, ACK)], Established),
        of("the number before", vec![syn(), answer(SAID, both), client(SAID, ACK)], HalfOpen),
        of("the number after", vec![syn(), answer(SAID, both), client(SAID + 2, ACK)], HalfOpen),
        of(
            "a wrong number, then the right one",
            vec![syn(), answer(SAID, both), client(7, ACK), client(SAID + 1, ACK)],
            Established,
        ),
        of("a number that the backend has not said", vec![syn(), client(1, ACK)], HalfOpen),
        of("a number that wraps", vec![syn(), answer(u32::MAX, both), client(0, ACK)], Established),
        of("an answer without SYN says no number", vec![syn(), answer(SAID, ACK), client(SAID + 1, ACK)], HalfOpen),
        of("the right number in a SYN", vec![syn(), answer(SAID, both), client(SAID + 1, SYN)], HalfOpen),
        of("refused by the backend", vec![syn(), answer(0, RST | ACK).refused()], HalfOpen),
        case(
            &named("handshake: UDP has none", v6),
            vec![
                datagram
                    .leaves(&datagram.to_backend(WEB1, 8007), Wire::Back, Reason::NewFlow)
                    .counts("vip-udp")
                    .given("echo", v6, 0, 1),
            ],
        )
        .ends_in(&datagram, Datagrams),
    ]
}

fn of_family(v6: bool) -> Vec<Case> {
    let open = || opening(v6, 2000, "www", 8080, 0, WEB1);
    let client = |flags| following(v6, 2000, flags, 0, WEB1);
    let server = |flags| replying(v6, 2000, flags, 0, WEB1);
    let again = || opening(v6, 2000, "www", 8080, 1, WEB2);
    let of = |name: &str, steps| case(&named(name, v6), steps);
    vec![
        of("a connection in both directions", vec![open(), server(SYN | ACK), client(ACK), server(ACK)]),
        of(
            "both close, and the port is used again",
            vec![open(), client(FIN | ACK), server(FIN | ACK), client(ACK), again()],
        ),
        of("one closes, and a SYN stays with its flow", vec![open(), client(FIN | ACK), client(SYN)]),
        of("the backend closes, and a SYN stays with its flow", vec![open(), server(FIN | ACK), client(SYN)]),
        of("the client resets, and the port is used again", vec![open(), client(RST), again()]),
        of("the backend resets, and the port is used again", vec![open(), server(RST), again()]),
        of(
            "both have closed, and a late ACK still finds its backend",
            vec![open(), client(FIN | ACK), server(FIN | ACK), client(ACK)],
        ),
        of(
            "a reply from another backend is none",
            vec![
                open(),
                Frame::new(v6, WEB2, CLIENT, Transport::Tcp(9080, 2000, ACK)).drops(Reason::NoRule),
                Frame::new(v6, WEB1, CLIENT, Transport::Tcp(9081, 2000, ACK)).drops(Reason::NoRule),
                Frame::new(v6, WEB1, CLIENT, Transport::Tcp(9080, 2001, ACK)).drops(Reason::NoRule),
            ],
        ),
        of(
            "a reply under a tag",
            vec![
                open(),
                Frame::new(v6, WEB1, CLIENT, Transport::Tcp(9080, 2000, ACK))
                    .tag(0x8100, 3)
                    .drops(Reason::TaggedService),
            ],
        ),
        of(
            "a flow's packet under a tag",
            vec![open(), to_vip(v6, 2000, 8080, ACK).tag(0x8100, 3).drops(Reason::TaggedService)],
        ),
    ]
}

/// Flows that were there before the first packet, of this generation of rules and of older ones.
fn before(v6: bool) -> Vec<Case> {
    let of = |name: &str, steps| case(&named(name, v6), steps);
    let syn_from = |host| Frame::new(v6, host, VIP, Transport::Tcp(2000, 8080, ACK));
    vec![
        of("a flow that was there before", vec![following(v6, 2000, ACK, 1, WEB2)]).flow(
            &to_vip(v6, 2000, 8080, ACK),
            "www",
            1,
            GENERATION,
            0,
        ),
        of(
            "a flow of an older generation, still allowed",
            vec![following(v6, 2000, ACK, 1, WEB2), following(v6, 2000, ACK, 1, WEB2)],
        )
        .flow(&to_vip(v6, 2000, 8080, ACK), "www", 1, GENERATION - 1, 0),
        of("a flow of an older generation, now denied", vec![syn_from(ENEMY).denied("enemy")]).flow(
            &syn_from(ENEMY),
            "www",
            1,
            GENERATION - 1,
            0,
        ),
        of("a flow to a backend that is gone", vec![to_vip(v6, 2000, 8080, ACK).drops(Reason::NoFlow).counts("vip")])
            .flow(&to_vip(v6, 2000, 8080, ACK), "www", 3, GENERATION, 0),
        of(
            "a reply by a flow of an older generation",
            vec![
                Frame::new(v6, WEB3, CLIENT, Transport::Tcp(9082, 2000, ACK))
                    .leaves(
                        &Frame::new(v6, WEB3, CLIENT, Transport::Tcp(9082, 2000, ACK)).to_client(VIP, 8082, CLIENT),
                        Wire::Front,
                        Reason::FlowReply,
                    )
                    .given("three", v6, 2, 0),
            ],
        )
        .flow(&to_vip(v6, 2000, 8082, ACK), "three", 2, GENERATION - 1, 0),
    ]
}
