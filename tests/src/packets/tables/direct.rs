//! Direct server return: a packet reaches a backend as it is, and the answer never comes by here.

use foobar_common::abi::FlowTable;
use foobar_common::verdict::Reason;

use super::super::case::{Case, Step, case};
use super::super::frame::{ACK, Frame, SYN, Transport};
use super::super::hosts::{CLIENT, Host, VIP, WEB1, WEB2};
use super::one_way::OneWay;
use super::{both, named};

pub(super) fn cases() -> Vec<Case> {
    both(of_family)
}

const SERVICE: OneWay = OneWay { name: "direct", port: 8076, backends: [WEB1, WEB2], leaves };

/// With other MAC addresses and one hop less.
fn leaves(frame: &Frame, backend: Host, reason: Reason) -> Step {
    frame.leaves(&frame.relayed(backend), backend.wire, reason)
}

fn of_family(v6: bool) -> Vec<Case> {
    let name = |text: &str| named(text, v6);
    let datagram = Frame::new(v6, CLIENT, VIP, Transport::Udp(2000, 8077));
    let silent = Frame::new(v6, CLIENT, VIP, Transport::Tcp(2000, 8078, SYN));
    let mut cases = SERVICE.cases(v6);
    cases.extend([
        case(
            &name("direct: the client's ACK establishes, whose answer nobody has seen"),
            vec![SERVICE.opening(v6, 2000, 0), SERVICE.following(v6, 2000, ACK, 0)],
        )
        .ends_in(&SERVICE.segment(v6, 2000, ACK), FlowTable::Established),
        case(
            &name("direct: a SYN alone stays half open"),
            vec![SERVICE.opening(v6, 2000, 0), SERVICE.following(v6, 2000, SYN, 0)],
        )
        .ends_in(&SERVICE.segment(v6, 2000, SYN), FlowTable::HalfOpen),
        case(
            &name("direct: a datagram"),
            vec![leaves(&datagram, WEB1, Reason::NewFlow).counts("vip-udp").given("direct-udp", v6, 0, 1)],
        ),
        case(
            &name("direct: a backend whose MAC address nobody knows"),
            vec![silent.drops(Reason::NoNeighbour).counts("vip").given("direct-silent", v6, 0, 1)],
        ),
        case(&name("direct: an answer that comes by here all the same"), {
            vec![Frame::new(v6, WEB1, CLIENT, Transport::Tcp(SERVICE.port, 2000, SYN | ACK)).drops(Reason::NoRule)]
        }),
    ]);
    cases
}
