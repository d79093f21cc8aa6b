//! Schedules: which member a new connection is given to, by weights, flows, hash, affinity and room.

use foobar_common::address::{Address, Be16, Tuple};
use foobar_common::choose::hash;
use foobar_common::verdict::Reason;

use super::super::case::{Case, Step, case};
use super::super::frame::{Frame, RST, SYN, Transport};
use super::super::hosts::{CLIENT, CLIENT2, Host, VIP, WEB1, WEB2, WEB3};
use super::services::opening;
use super::{both, named};

const SECOND_NS: u64 = 1_000_000_000;
const HOSTS: [Host; 3] = [WEB1, WEB2, WEB3];

pub(super) fn cases() -> Vec<Case> {
    both(of_family)
}

/// A SYN from a client's port that is given to a member.
fn given(v6: bool, client: Host, source: u16, (service, port): (&str, u16), member: u32) -> Step {
    let host = HOSTS[member as usize];
    let syn = Frame::new(v6, client, VIP, Transport::Tcp(source, port, SYN));
    let sent = syn.to_backend(host, port + 1000);
    syn.leaves(&sent, host.wire, Reason::NewFlow).counts("vip").given(service, v6, member, 1)
}

/// A client's reset, by the flow.
fn reset(v6: bool, source: u16, (service, port): (&str, u16), member: u32) -> Step {
    let host = HOSTS[member as usize];
    let segment = Frame::new(v6, CLIENT, VIP, Transport::Tcp(source, port, RST));
    let sent = segment.to_backend(host, port + 1000);
    segment.leaves(&sent, host.wire, Reason::Flow).counts("vip").given(service, v6, member, 0)
}

fn of_family(v6: bool) -> Vec<Case> {
    const WEIGHTED: (&str, u16) = ("weighted", 8071);
    const LEAST: (&str, u16) = ("least", 8072);
    const STICKY: (&str, u16) = ("sticky", 8074);
    const LIMITED: (&str, u16) = ("limited", 8075);
    let name = |text: &str| named(text, v6);
    let new = |source, service, member| given(v6, CLIENT, source, service, member);
    let full = |source| {
        let syn = Frame::new(v6, CLIENT, VIP, Transport::Tcp(source, LIMITED.1, SYN));
        syn.drops(Reason::BackendsFull).counts("vip")
    };
    vec![
        case(&name("weights over two cycles"), {
            [0, 0, 0, 1, 0, 0, 0, 1].iter().zip(2000..).map(|(member, port)| new(port, WEIGHTED, *member)).collect()
        }),
        case(
            &name("the fewest connections, from the cursor on"),
            vec![
                new(2000, LEAST, 0),
                new(2001, LEAST, 1),
                new(2002, LEAST, 2),
                reset(v6, 2001, LEAST, 1),
                new(2003, LEAST, 1),
                reset(v6, 2002, LEAST, 2),
                reset(v6, 2000, LEAST, 0),
                // The cursor stands at the second, which has one; the third and the first have none.
                new(2004, LEAST, 2),
                new(2005, LEAST, 0),
            ],
        ),
        case(
            &name("a reset is counted once"),
            vec![
                new(2000, LEAST, 0),
                reset(v6, 2000, LEAST, 0),
                reset(v6, 2000, LEAST, 0),
                // Both would be below zero, were it counted twice.
                new(2001, LEAST, 1),
                new(2002, LEAST, 2),
                new(2003, LEAST, 0),
            ],
        ),
        case(&name("by the client's address and port"), {
            (2000..2008).map(|source| new(source, ("hashed", 8073), hashed(v6, source))).collect()
        }),
        case(
            &name("a client stays with its backend"),
            vec![
                new(2000, STICKY, 0),
                new(2001, STICKY, 0),
                given(v6, CLIENT2, 2000, STICKY, 1),
                new(2002, STICKY, 0),
                given(v6, CLIENT2, 2001, STICKY, 1),
            ],
        ),
        case(
            &name("affinity ends after silence"),
            vec![
                new(2000, STICKY, 0),
                new(2001, STICKY, 0).later(600 * SECOND_NS),
                new(2002, STICKY, 1).later(601 * SECOND_NS),
                new(2003, STICKY, 1),
            ],
        ),
        case(
            &name("no more connections than a backend may have"),
            vec![
                new(2000, LIMITED, 0),
                new(2001, LIMITED, 1),
                new(2002, LIMITED, 0),
                reset(v6, 2001, LIMITED, 1),
                // The second's turn, and then the first has no room.
                new(2003, LIMITED, 1),
                new(2004, LIMITED, 1),
                full(2005),
                full(2006),
                reset(v6, 2000, LIMITED, 0),
                new(2007, LIMITED, 0),
                full(2008),
            ],
        ),
        case(&name("weights leave the other services alone"), {
            vec![new(2000, WEIGHTED, 0), opening(v6, 2000, "www", 8080, 0, WEB1), new(2001, WEIGHTED, 0)]
        }),
    ]
}

/// Where the ring of three places leads a client's port. That the hash spreads is tested beside it; here, that it alone decides.
fn hashed(v6: bool, source_port: u16) -> u32 {
    let ports = (Be16::new(source_port), Be16::new(8073));
    let hash = if v6 {
        hash(&Tuple::new((Address::from(CLIENT.v6), Address::from(VIP.v6)), ports, 6))
    } else {
        hash(&Tuple::new((Address::from(CLIENT.v4), Address::from(VIP.v4)), ports, 6))
    };
    hash % 3
}
