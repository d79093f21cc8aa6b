//! Direct server return: a packet reaches a backend as it is, and the answer never comes by here.

use foobar_common::abi::FlowTable;
use foobar_common::verdict::Reason;

use super::super::answer::Told;
use super::super::case::{Case, Step, case};
use super::super::frame::{ACK, FIN, Frame, RST, SYN, Transport};
use super::super::hosts::{CLIENT, Host, VIP, WEB1, WEB2};
use super::{both, named};

pub(super) fn cases() -> Vec<Case> {
    both(of_family)
}

const PORT: u16 = 8076;

fn segment(v6: bool, source: u16, flags: u8) -> Frame {
    Frame::new(v6, CLIENT, VIP, Transport::Tcp(source, PORT, flags))
}

fn opening(v6: bool, source: u16, member: u32, host: Host) -> Step {
    let syn = segment(v6, source, SYN);
    syn.leaves(&syn.relayed(host), host.wire, Reason::NewFlow).counts("vip").given("direct", v6, member, 1)
}

fn following(v6: bool, source: u16, flags: u8, member: u32, host: Host) -> Step {
    let segment = segment(v6, source, flags);
    segment.leaves(&segment.relayed(host), host.wire, Reason::Flow).counts("vip").given("direct", v6, member, 0)
}

fn of_family(v6: bool) -> Vec<Case> {
    let name = |text: &str| named(text, v6);
    let datagram = Frame::new(v6, CLIENT, VIP, Transport::Udp(2000, 8077));
    let silent = Frame::new(v6, CLIENT, VIP, Transport::Tcp(2000, 8078, SYN));
    vec![
        case(&name("direct: nothing but MAC addresses and hops"), vec![opening(v6, 2000, 0, WEB1)]),
        case(
            &name("direct: round robin, and each flow to its own"),
            vec![
                opening(v6, 2000, 0, WEB1),
                opening(v6, 2001, 1, WEB2),
                following(v6, 2000, ACK, 0, WEB1),
                following(v6, 2001, ACK, 1, WEB2),
                opening(v6, 2002, 0, WEB1),
            ],
        ),
        case(
            &name("direct: the client's ACK establishes, whose answer nobody has seen"),
            vec![opening(v6, 2000, 0, WEB1), following(v6, 2000, ACK, 0, WEB1)],
        )
        .ends_in(&segment(v6, 2000, ACK), FlowTable::Established),
        case(
            &name("direct: a SYN alone stays half open"),
            vec![opening(v6, 2000, 0, WEB1), following(v6, 2000, SYN, 0, WEB1)],
        )
        .ends_in(&segment(v6, 2000, SYN), FlowTable::HalfOpen),
        case(
            &name("direct: the port is used again after the client's FIN"),
            vec![
                opening(v6, 2000, 0, WEB1),
                following(v6, 2000, ACK, 0, WEB1),
                following(v6, 2000, FIN | ACK, 0, WEB1),
                following(v6, 2000, ACK, 0, WEB1),
                opening(v6, 2000, 1, WEB2),
            ],
        ),
        case(
            &name("direct: after a reset"),
            vec![opening(v6, 2000, 0, WEB1), following(v6, 2000, RST, 0, WEB1), opening(v6, 2000, 1, WEB2)],
        ),
        case(&name("direct: an ACK without a flow"), vec![segment(v6, 2000, ACK).drops(Reason::NoFlow).counts("vip")]),
        case(
            &name("direct: a datagram"),
            vec![datagram.leaves(&datagram.relayed(WEB1), WEB1.wire, Reason::NewFlow).counts("vip-udp").given(
                "direct-udp",
                v6,
                0,
                1,
            )],
        ),
        case(
            &name("direct: a backend whose MAC address nobody knows"),
            vec![silent.drops(Reason::NoNeighbour).counts("vip").given("direct-silent", v6, 0, 1)],
        ),
        case(&name("direct: the last hop"), {
            let last = Frame { hops: 1, ..segment(v6, 2000, SYN) };
            vec![last.answered(Told::HopsUsedUp).counts("vip").given("direct", v6, 0, 1)]
        }),
        case(&name("direct: an answer that comes by here all the same"), {
            vec![Frame::new(v6, WEB1, CLIENT, Transport::Tcp(PORT, 2000, SYN | ACK)).drops(Reason::NoRule)]
        }),
    ]
}
