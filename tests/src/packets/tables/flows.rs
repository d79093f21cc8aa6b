//! Flows: both directions, their ends, their generations.

use foobar_common::verdict::Reason;

use super::super::case::{Case, GENERATION, case};
use super::super::frame::{ACK, FIN, Frame, RST, SYN, Transport};
use super::super::hosts::{CLIENT, ENEMY, VIP, WEB1, WEB2, WEB3, Wire};
use super::services::{following, opening, replying, to_vip};
use super::{both, named};

pub(super) fn cases() -> Vec<Case> {
    both(of_family)
}

fn of_family(v6: bool) -> Vec<Case> {
    let open = || opening(v6, 2000, "www", 8080, 0, WEB1);
    let client = |flags| following(v6, 2000, flags, 0, WEB1);
    let server = |flags| replying(v6, 2000, flags, 0, WEB1);
    let again = || opening(v6, 2000, "www", 8080, 1, WEB2);
    let of = |name: &str, steps| case(&named(name, v6), steps);
    let syn_from = |host| Frame::new(v6, host, VIP, Transport::Tcp(2000, 8080, ACK));
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
