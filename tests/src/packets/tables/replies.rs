//! Replies that are told apart by entries of their own: several VIPs before one endpoint, and sources of the balancer's own.

use std::collections::HashMap;

use foobar_common::abi::FlowTable;
use foobar_common::address::{Address, Be16, Tuple};
use foobar_common::choose::hash;
use foobar_common::verdict::Reason;

use super::super::case::{Case, Step, case};
use super::super::frame::{ACK, FIN, Frame, PSH, RST, SYN, Transport};
use super::super::hosts::{CLIENT, ENEMY, Host, SOURCE, SOURCE2, VIP, WEB1, WEB2, WEB3, Wire};
use super::{both, named};

pub(super) fn cases() -> Vec<Case> {
    [both(vips), both(sources), both(datagrams), both(exhausted), unchecked()].concat()
}

/// Number that backends choose in these cases.
const SAID: u32 = 0x0102_0304;
/// Backends' port of `many` and `shared`, and of `pooled`.
const MANY: u16 = 9060;
const POOLED: u16 = 9063;
/// What the packet path says of the ports that it gives: from the first, so many, and so many are tried.
const FIRST: u32 = 1024;
const PORTS: u32 = 64_512;
const TRIES: u32 = 64;

/// A client's segment to a port of the VIP.
fn asks(v6: bool, source: u16, port: u16, flags: u8) -> Frame {
    Frame::new(v6, CLIENT, VIP, Transport::Tcp(source, port, flags)).numbers(1, SAID + 1)
}

/// A service, the VIP's port, the member and its host.
#[derive(Clone, Copy)]
struct To(&'static str, u16, u32, Host);

/// A client's segment, as its service's member gets it from the client itself.
fn goes(v6: bool, source: u16, flags: u8, to: To, reason: Reason) -> Step {
    let To(service, port, member, host) = to;
    let frame = asks(v6, source, port, flags);
    let step = frame.leaves(&frame.to_backend(host, MANY), Wire::Back, reason).counts("vip");
    step.given(service, v6, member, u64::from(reason == Reason::NewFlow))
}

/// A member's answer, as the client gets it.
fn answers(v6: bool, source: u16, flags: u8, To(service, port, member, host): To) -> Step {
    let frame = Frame::new(v6, host, CLIENT, Transport::Tcp(MANY, source, flags)).numbers(SAID, 2);
    let sent = frame.to_client(VIP, port, CLIENT);
    frame.leaves(&sent, Wire::Front, Reason::FlowReply).given(service, v6, member, 0)
}

/// Several VIPs of one service, and two services, before the same endpoints.
fn vips(v6: bool) -> Vec<Case> {
    let of = |name: &str, steps| case(&named(&format!("several VIPs: {name}"), v6), steps);
    let open = |source, to| goes(v6, source, SYN, to, Reason::NewFlow);
    let next = |source, flags, to| goes(v6, source, flags, to, Reason::Flow);
    let answer = |source, flags, to| answers(v6, source, flags, to);
    let (first, second) = (To("many", 8060, 0, WEB1), To("many", 8061, 1, WEB2));
    let (second_at_web1, third) = (To("many", 8061, 0, WEB1), To("shared", 8062, 0, WEB1));
    let shake = |source, to| vec![open(source, to), answer(source, SYN | ACK, to), next(source, ACK, to)];
    let close = |source, to| vec![next(source, FIN | ACK, to), answer(source, FIN | ACK, to), next(source, ACK, to)];
    let drops = |source, port, reason| asks(v6, source, port, SYN).drops(reason).counts("vip");
    vec![
        of("a connection in both directions", [shake(2000, first), vec![answer(2000, ACK | PSH, first)]].concat())
            .ends_in(&asks(v6, 2000, 8060, ACK), FlowTable::Established)
            .leaves_replies(1),
        of(
            "each reply bears the VIP that its client asked",
            vec![
                open(2000, first),
                open(2001, second),
                open(2002, second_at_web1),
                answer(2002, SYN | ACK, second_at_web1),
                answer(2001, SYN | ACK, second),
                answer(2000, SYN | ACK, first),
            ],
        )
        .leaves_replies(3),
        of(
            "two services at one endpoint",
            vec![open(2000, first), open(2001, third), answer(2001, SYN | ACK, third), answer(2000, SYN | ACK, first)],
        ),
        of(
            "a client's port by two VIPs goes to two backends",
            vec![
                open(2000, first),
                open(2001, To("many", 8060, 1, WEB2)),
                // The first one's turn, which talks to this port already.
                open(2000, second),
                answer(2000, SYN | ACK, first),
                answer(2000, SYN | ACK, second),
            ],
        )
        .leaves_replies(3),
        of(
            "a client's port by more VIPs than there are backends",
            vec![
                open(2000, first),
                open(2000, second),
                drops(2000, 8062, Reason::ReplyTaken),
                open(2001, To("shared", 8062, 1, WEB2)),
                answer(2000, ACK, first),
            ],
        )
        .leaves_replies(3),
        of(
            "also when the others are established",
            [shake(2000, first), shake(2000, second), vec![drops(2000, 8062, Reason::ReplyTaken)]].concat(),
        )
        .leaves_replies(2),
        of(
            "both close, and the port is used again",
            [
                shake(2000, first),
                close(2000, first),
                vec![open(2000, To("many", 8060, 1, WEB2)), answer(2000, SYN | ACK, To("many", 8060, 1, WEB2))],
                vec![Frame::new(v6, WEB1, CLIENT, Transport::Tcp(MANY, 2000, ACK)).drops(Reason::NoRule)],
            ]
            .concat(),
        )
        .leaves_replies(1),
        of(
            "a port that was closed by one VIP is free for another",
            [
                shake(2000, first),
                close(2000, first),
                vec![open(2000, To("many", 8060, 1, WEB2)), open(2000, third), answer(2000, SYN | ACK, third)],
            ]
            .concat(),
        ),
        of(
            "a reset, half open, and the port is used again at the same backend",
            vec![
                open(2000, first),
                open(2001, To("many", 8060, 1, WEB2)),
                answer(2000, RST | ACK, first).refused(),
                open(2000, first),
                answer(2000, SYN | ACK, first).ends_row(1),
            ],
        )
        .leaves_replies(2),
        of(
            "a SYN sent again moves nothing",
            vec![open(2000, first), next(2000, SYN, first), open(2001, second), answer(2000, SYN | ACK, first)],
        )
        .leaves_replies(2),
        of(
            "the neighbours of a reply",
            vec![
                open(2000, first),
                Frame::new(v6, WEB2, CLIENT, Transport::Tcp(MANY, 2000, ACK)).drops(Reason::NoRule),
                Frame::new(v6, WEB1, CLIENT, Transport::Tcp(MANY + 1, 2000, ACK)).drops(Reason::NoRule),
                Frame::new(v6, WEB1, CLIENT, Transport::Tcp(MANY, 2001, ACK)).drops(Reason::NoRule),
                Frame::new(v6, WEB3, CLIENT, Transport::Tcp(MANY, 2000, ACK)).drops(Reason::NoRule),
            ],
        ),
    ]
}

/// The port that a client's flow is given at a try, of a service with so many sources, and the source by its number.
fn given(v6: bool, client: Host, source: u16, sources: u32, attempt: u32) -> (u32, u16) {
    let ports = (Be16::new(source), Be16::new(0));
    let hash = if v6 {
        hash(&Tuple::new((Address::from(client.v6), Address::from(VIP.v6)), ports, 6))
    } else {
        hash(&Tuple::new((Address::from(client.v4), Address::from(VIP.v4)), ports, 6))
    };
    let all = u64::from(sources * PORTS);
    let place = (u64::from(hash) + u64::from(attempt) * u64::from((hash >> 23) + 1)) % all;
    ((place / u64::from(PORTS)) as u32, (u64::from(FIRST) + place % u64::from(PORTS)) as u16)
}

/// A client's segment to `pooled`, as its backend gets it from a port of the source.
fn pooled(v6: bool, (source, port): (u16, u16), given: u16, flags: u8, reason: Reason) -> Step {
    let frame = asks(v6, source, port, flags);
    let sent = frame.to_backend(WEB1, POOLED).seen_from(SOURCE, given);
    let step = frame.leaves(&sent, Wire::Back, reason).counts("vip");
    step.given("pooled", v6, 0, u64::from(reason == Reason::NewFlow))
}

/// The backend's answer to that port, as the client gets it.
fn returned(v6: bool, (source, port): (u16, u16), given: u16, flags: u8) -> Step {
    let frame = Frame::new(v6, WEB1, SOURCE, Transport::Tcp(POOLED, given, flags)).numbers(SAID, 2);
    let sent = frame.to_client(VIP, port, CLIENT).sent_on_to(CLIENT, source);
    frame.leaves(&sent, Wire::Front, Reason::FlowReply).given("pooled", v6, 0, 0)
}

fn sources(v6: bool) -> Vec<Case> {
    let of = |name: &str, steps| case(&named(&format!("sources: {name}"), v6), steps);
    let port = given(v6, CLIENT, 2000, 1, 0).1;
    let (ends, beside) = ((2000, 8063), (2000, 8064));
    let syn = |given| pooled(v6, ends, given, SYN, Reason::NewFlow);
    let next = |given, flags| pooled(v6, ends, given, flags, Reason::Flow);
    let back = |given, flags| returned(v6, ends, given, flags);
    let whole = || vec![syn(port), back(port, SYN | ACK), next(port, ACK)];
    let closed = || vec![next(port, FIN | ACK), back(port, FIN | ACK), next(port, ACK)];
    let to_source = |host, from, to| Frame::new(v6, host, SOURCE, Transport::Tcp(from, to, ACK)).drops(Reason::NoRule);
    let second = given(v6, CLIENT, 2000, 1, 1).1;
    vec![
        of("a connection in both directions", [whole(), vec![back(port, ACK | PSH), next(port, ACK | PSH)]].concat())
            .ends_in(&asks(v6, 2000, 8063, ACK), FlowTable::Established)
            .leaves_replies(1),
        of("closed from both sides, the last ACK still goes its way", [whole(), closed()].concat()).leaves_replies(1),
        of(
            "after a close the port is free again",
            [whole(), closed(), vec![syn(port), back(port, SYN | ACK)]].concat(),
        )
        .leaves_replies(1),
        of(
            "after a reset the port is free again",
            [whole(), vec![back(port, RST | ACK), syn(port), back(port, SYN | ACK)]].concat(),
        )
        .leaves_replies(1),
        of("a SYN sent again keeps its port", vec![syn(port), next(port, SYN), back(port, SYN | ACK)])
            .leaves_replies(1),
        of(
            "a port that is in use is passed over",
            vec![
                syn(port),
                pooled(v6, beside, second, SYN, Reason::NewFlow),
                returned(v6, beside, second, SYN | ACK),
                back(port, SYN | ACK),
            ],
        )
        .leaves_replies(2),
        of(
            "also when its flow is established",
            [
                whole(),
                vec![pooled(v6, beside, second, SYN, Reason::NewFlow), returned(v6, beside, second, SYN | ACK)],
                vec![back(port, ACK)],
            ]
            .concat(),
        )
        .leaves_replies(2),
        of(
            "the neighbours of a reply",
            vec![
                syn(port),
                to_source(WEB1, POOLED, port.wrapping_add(1)),
                to_source(WEB1, POOLED + 1, port),
                to_source(WEB2, POOLED, port),
                Frame::new(v6, WEB1, CLIENT, Transport::Tcp(POOLED, 2000, ACK)).drops(Reason::NoRule),
                Frame::new(v6, WEB1, SOURCE2, Transport::Tcp(POOLED, port, ACK)).drops(Reason::NoRule),
            ],
        ),
        of(
            "a client to a source address",
            vec![Frame::new(v6, CLIENT, SOURCE, Transport::Tcp(2000, port, SYN)).drops(Reason::NoRule)],
        ),
        of(
            "a client that is denied takes no port",
            vec![Frame::new(v6, ENEMY, VIP, Transport::Tcp(2000, 8063, SYN)).denied("enemy")],
        )
        .leaves_replies(0),
        of("an ACK without a flow takes no port", vec![asks(v6, 2000, 8063, ACK).drops(Reason::NoFlow).counts("vip")])
            .leaves_replies(0),
        of(
            "two addresses",
            (2000..2012)
                .zip([(0, WEB1), (1, WEB2)].into_iter().cycle())
                .map(|(source, member)| two(v6, source, member))
                .collect(),
        )
        .leaves_replies(12),
    ]
}

/// A connection to `pooled-two`, by one of its sources.
fn two(v6: bool, source: u16, (member, host): (u32, Host)) -> Step {
    let (address, port) = given(v6, CLIENT, source, 2, 0);
    let frame = asks(v6, source, 8065, SYN);
    let sent = frame.to_backend(host, 9065).seen_from([SOURCE, SOURCE2][address as usize], port);
    frame.leaves(&sent, Wire::Back, Reason::NewFlow).counts("vip").given("pooled-two", v6, member, 1)
}

/// A client whose every try meets a port that another client has: all of them are chosen by what they are given first. Of
/// half-open connections it takes one, of established ones none.
fn exhausted(v6: bool) -> Vec<Case> {
    let tries: Vec<u16> = (0..TRIES).map(|attempt| given(v6, CLIENT, 2000, 1, attempt).1).collect();
    let others = (100..=254).flat_map(|last| (1..=u16::MAX).map(move |source| (neighbour(last), source)));
    let mut by_port: HashMap<u16, (Host, u16)> = HashMap::new();
    for (client, source) in others {
        let port = given(v6, client, source, 1, 0).1;
        if tries.contains(&port) {
            by_port.entry(port).or_insert((client, source));
            if by_port.len() == tries.len() {
                break;
            }
        }
    }
    assert_eq!(by_port.len(), tries.len(), "a client for each port");
    let asks_too = |port: &u16, given: u16, flags, reason| {
        let (client, source) = by_port[port];
        let frame = Frame::new(v6, client, VIP, Transport::Tcp(source, 8063, flags)).numbers(1, SAID + 1);
        let sent = frame.to_backend(WEB1, POOLED).seen_from(SOURCE, given);
        let step = frame.leaves(&sent, Wire::Back, reason).counts("vip");
        step.given("pooled", v6, 0, u64::from(reason == Reason::NewFlow))
    };
    let opens = |port: &u16| asks_too(port, *port, SYN, Reason::NewFlow);
    let establishes = |port: &u16| {
        let (client, source) = by_port[port];
        let frame = Frame::new(v6, WEB1, SOURCE, Transport::Tcp(POOLED, *port, SYN | ACK)).numbers(SAID, 2);
        let sent = frame.to_client(VIP, 8063, CLIENT).sent_on_to(client, source);
        // Nobody knows the MAC address of these clients.
        let answer = frame.handed_up(&frame.left(sent)).given("pooled", v6, 0, 0);
        vec![opens(port), answer, asks_too(port, *port, ACK, Reason::Flow)]
    };
    let whole = |port: u16| {
        let ends = (2000, 8063);
        let syn = pooled(v6, ends, port, SYN, Reason::NewFlow);
        vec![syn, returned(v6, ends, port, SYN | ACK), pooled(v6, ends, port, ACK, Reason::Flow)]
    };
    let lost = |port: &u16, flags| {
        let (client, source) = by_port[port];
        Frame::new(v6, client, VIP, Transport::Tcp(source, 8063, flags)).drops(Reason::NoFlow).counts("vip")
    };
    let again = |port: &u16| {
        let (client, source) = by_port[port];
        let free = (1..TRIES).map(|attempt| given(v6, client, source, 1, attempt).1).find(|port| !tries.contains(port));
        asks_too(port, free.expect("a free port"), SYN, Reason::NewFlow)
    };
    let refused = || asks(v6, 2000, 8063, SYN).drops(Reason::SourcePorts).counts("vip");
    let refused_too = asks(v6, 2000, 8064, SYN).drops(Reason::SourcePorts).counts("vip");
    let half_open: Vec<Step> = tries.iter().map(opens).collect();
    let established: Vec<Step> = tries.iter().flat_map(establishes).collect();
    let all_but_30th =
        tries.iter().enumerate().flat_map(|(n, port)| if n == 30 { vec![opens(port)] } else { establishes(port) });
    let (last, but_last) = (tries[tries.len() - 1], &tries[..tries.len() - 1]);
    let of = |name: &str, steps| case(&named(&format!("sources: {name}"), v6), steps);
    vec![
        of("every port that is tried is in use", [established, vec![refused(), refused()]].concat())
            .leaves_replies(tries.len()),
        of(
            "one of them by a half-open connection",
            [all_but_30th.collect(), whole(tries[30]), vec![refused_too]].concat(),
        )
        .leaves_replies(tries.len()),
        of(
            "a half-open connection gives way, and is lost",
            [half_open, whole(tries[0]), vec![lost(&tries[0], ACK), again(&tries[0])]].concat(),
        )
        .leaves_replies(tries.len() + 1),
        of("the last port that is tried is free", {
            let all_but_one: Vec<Step> = but_last.iter().map(opens).collect();
            [all_but_one, vec![pooled(v6, (2000, 8063), last, SYN, Reason::NewFlow)]].concat()
        })
        .leaves_replies(tries.len()),
    ]
}

/// A host of the clients' network.
const fn neighbour(last: u8) -> Host {
    use std::net::{Ipv4Addr, Ipv6Addr};
    CLIENT.at(Ipv4Addr::new(203, 0, 113, last), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last as u16))
}

/// A datagram to `pooled-udp`, and its answer.
fn datagram(frame: &Frame, port: u16, reason: Reason, (member, host): (u32, Host)) -> Step {
    let sent = frame.to_backend(host, 8010).seen_from(SOURCE, port);
    let step = frame.leaves(&sent, Wire::Back, reason).counts("vip-udp");
    step.given("pooled-udp", frame.source.is_ipv6(), member, u64::from(reason == Reason::NewFlow))
}

fn datagram_back(frame: &Frame, source: u16, member: u32) -> Step {
    let sent = frame.to_client(VIP, 7010, CLIENT).sent_on_to(CLIENT, source);
    frame.leaves(&sent, Wire::Front, Reason::FlowReply).given("pooled-udp", frame.source.is_ipv6(), member, 0)
}

fn datagrams(v6: bool) -> Vec<Case> {
    let of = |name: &str, steps| case(&named(&format!("sources: {name}"), v6), steps);
    let ask = |source| Frame::new(v6, CLIENT, VIP, Transport::Udp(source, 7010));
    let (port, other) = (given(v6, CLIENT, 3000, 1, 0).1, given(v6, CLIENT, 3001, 1, 0).1);
    let back = Frame::new(v6, WEB1, SOURCE, Transport::Udp(8010, port));
    vec![
        of(
            "datagrams in both directions",
            vec![
                datagram(&ask(3000), port, Reason::NewFlow, (0, WEB1)),
                datagram_back(&back, 3000, 0),
                datagram(&ask(3000), port, Reason::Flow, (0, WEB1)),
                datagram(&ask(3001), other, Reason::NewFlow, (1, WEB2)),
                datagram_back(&back, 3000, 0),
            ],
        )
        .ends_in(&ask(3000), FlowTable::Datagrams)
        .leaves_replies(2),
        of(
            "a datagram's answer from another backend",
            vec![
                datagram(&ask(3000), port, Reason::NewFlow, (0, WEB1)),
                Frame::new(v6, WEB2, SOURCE, Transport::Udp(8010, port)).drops(Reason::NoRule),
            ],
        ),
        of(
            "datagrams after 31 s are another flow, by the same port",
            vec![
                datagram(&ask(3000), port, Reason::NewFlow, (0, WEB1)),
                datagram(&ask(3000), port, Reason::NewFlow, (1, WEB2)).later(31_000_000_000),
            ],
        )
        .leaves_replies(1),
    ]
}

/// UDP without a checksum stays without, whatever changes.
fn unchecked() -> Vec<Case> {
    let ask = Frame::new(false, CLIENT, VIP, Transport::UdpUnchecked(3000, 7010));
    let port = given(false, CLIENT, 3000, 1, 0).1;
    let back = Frame::new(false, WEB1, SOURCE, Transport::UdpUnchecked(8010, port));
    let steps = vec![datagram(&ask, port, Reason::NewFlow, (0, WEB1)), datagram_back(&back, 3000, 0)];
    vec![case("sources: UDP without a checksum stays without, IPv4", steps)]
}
