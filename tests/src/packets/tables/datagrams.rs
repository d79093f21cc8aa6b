//! UDP: flows without handshakes, and the two special checksums.

use foobar_common::verdict::Reason;

use super::super::case::{Case, GENERATION, Step, case};
use super::super::frame::{Frame, Transport};
use super::super::hosts::{CLIENT, Host, VIP, WEB1, WEB2, Wire};
use super::{both, named};

const IDLE_NS: u64 = 31_000_000_000;

pub(super) fn cases() -> Vec<Case> {
    let unchecked = Frame::new(false, CLIENT, VIP, Transport::UdpUnchecked(3000, 7007));
    let answer = Frame::new(false, WEB1, CLIENT, Transport::UdpUnchecked(8007, 3000));
    let mut cases = both(of_family);
    cases.push(case(
        "UDP without a checksum stays without, IPv4",
        vec![
            sent(&unchecked, Reason::NewFlow, 0, WEB1, 1),
            answer
                .leaves(&answer.to_client(VIP, 7007, CLIENT), Wire::Front, Reason::FlowReply)
                .given("echo", false, 0, 0),
        ],
    ));
    cases
}

fn asked(v6: bool, source: u16) -> Frame {
    Frame::new(v6, CLIENT, VIP, Transport::Udp(source, 7007))
}

fn sent(frame: &Frame, reason: Reason, member: u32, host: Host, connections: u64) -> Step {
    let v6 = frame.source.is_ipv6();
    let rule = if reason == Reason::NewFlow { "vip-udp" } else { "vip" };
    frame.leaves(&frame.to_backend(host, 8007), Wire::Back, reason).counts(rule).given("echo", v6, member, connections)
}

/// The frame whose checksum behind the balancer computes to zero, which is sent as ones.
fn zero_behind(v6: bool) -> Frame {
    let checksum_of = |frame: &Frame| {
        let bytes = frame.to_backend(WEB1, 8007).bytes();
        u16::from_be_bytes([bytes[frame.behind() + 6], bytes[frame.behind() + 7]])
    };
    // What is added to the data is taken from the checksum.
    let plain = asked(v6, 3000).data(&[0, 0]);
    let frame = plain.clone().data(&checksum_of(&plain).to_be_bytes());
    assert_eq!(checksum_of(&frame), 0xffff, "the data was chosen for it");
    frame
}

fn of_family(v6: bool) -> Vec<Case> {
    let of = |name: &str, steps| case(&named(name, v6), steps);
    let reply = Frame::new(v6, WEB1, CLIENT, Transport::Udp(8007, 3000));
    let answered =
        || reply.leaves(&reply.to_client(VIP, 7007, CLIENT), Wire::Front, Reason::FlowReply).given("echo", v6, 0, 0);
    let first = || sent(&asked(v6, 3000), Reason::NewFlow, 0, WEB1, 1);
    let next = || {
        let frame = asked(v6, 3000);
        let step = frame.leaves(&frame.to_backend(WEB1, 8007), Wire::Back, Reason::Flow);
        step.counts("vip-udp").given("echo", v6, 0, 0)
    };
    vec![
        of("a UDP flow in both directions", vec![first(), answered(), next(), answered()]),
        of("UDP flows in turn", vec![first(), sent(&asked(v6, 3001), Reason::NewFlow, 1, WEB2, 1)]),
        of(
            "UDP, the port after the service's",
            vec![Frame::new(v6, CLIENT, VIP, Transport::Udp(3000, 7008)).drops(Reason::NoRule)],
        ),
        of(
            "UDP at a TCP service's port",
            vec![Frame::new(v6, CLIENT, VIP, Transport::Udp(3000, 8080)).drops(Reason::NoRule)],
        ),
        of("a UDP checksum that becomes zero is ones", vec![sent(&zero_behind(v6), Reason::NewFlow, 0, WEB1, 1)]),
        of("a UDP flow after 20 s is the same", vec![sent(&asked(v6, 3000), Reason::Flow, 1, WEB2, 0)]).flow(
            &asked(v6, 3000),
            "echo",
            1,
            GENERATION,
            20_000_000_000,
        ),
        of("a UDP flow after 31 s is another", vec![sent(&asked(v6, 3000), Reason::NewFlow, 0, WEB1, 1)]).flow(
            &asked(v6, 3000),
            "echo",
            1,
            GENERATION,
            IDLE_NS,
        ),
    ]
}
