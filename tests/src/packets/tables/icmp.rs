//! ICMP errors about flows: from the clients' side to the backend, from the backends' side to the client, and about no flow.
//!
//! The quoted packets are built, not translated: each checksum in them is computed from scratch on both sides.

use foobar_common::verdict::Reason;

use super::super::case::{Action, Case, GENERATION, Step, case};
use super::super::chain::Extension;
use super::super::frame::{ACK, Frame, PSH, Transport};
use super::super::hosts::{
    ADMIN, CLIENT, CLIENT2, EDGE, ENEMY, Host, LB1, OFFICE, SILENT, VIP, VLAN, WEB1, WEB2, Wire,
};
use super::{both, named};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = both(of_family);
    cases.push(
        case(
            "source quench is none of ours, IPv4",
            vec![{
                let error = Frame { transport: Transport::Icmp(4), ..from_router(false, &reply_seen(false, TCP)) };
                error.drops(Reason::NoRule)
            }],
        )
        .flow(&to_vip(false, TCP), "www", 0, GENERATION, 0),
    );
    cases.push(
        case("an error about UDP without a checksum leaves it without, IPv4", {
            let (seen, sent) = (Transport::UdpUnchecked(7007, PORT), Transport::UdpUnchecked(8007, PORT));
            let seen = Frame::new(false, VIP, CLIENT, seen);
            let sent = Frame::new(false, WEB1, CLIENT, sent);
            vec![to_backend(&from_router(false, &seen), &sent, WEB1).given("echo", false, 0, 0)]
        })
        .flow(&to_vip(false, UDP), "echo", 0, GENERATION, 0),
    );
    cases
}

/// A router on the clients' side.
const ROUTER: Host = CLIENT2;
/// A router on the backends' side.
const BEHIND: Host = ADMIN;
/// The client's port.
const PORT: u16 = 2000;

/// A service that errors are about: protocol, port of the VIP, port of the backends.
type Kind = (u8, u16, u16);
const TCP: Kind = (6, 8080, 9080);
const UDP: Kind = (17, 7007, 8007);
const DIRECT: Kind = (6, 8076, 8076);
const DIRECT_UDP: Kind = (17, 8077, 8077);

fn transport((protocol, ..): Kind, source: u16, destination: u16) -> Transport {
    if protocol == 6 { Transport::Tcp(source, destination, PSH | ACK) } else { Transport::Udp(source, destination) }
}

/// The client's packet.
fn to_vip(v6: bool, kind: Kind) -> Frame {
    Frame::new(v6, CLIENT, VIP, transport(kind, PORT, kind.1))
}

/// The client's packet as the backend gets it.
fn at_backend(v6: bool, kind: Kind, backend: Host) -> Frame {
    Frame::new(v6, CLIENT, backend, transport(kind, PORT, kind.2)).hops(60)
}

/// The reply as the backend has sent it.
fn reply(v6: bool, kind: Kind, backend: Host) -> Frame {
    Frame::new(v6, backend, CLIENT, transport(kind, kind.2, PORT)).hops(60)
}

/// The reply as the clients' side sees it.
fn reply_seen(v6: bool, kind: Kind) -> Frame {
    Frame::new(v6, VIP, CLIENT, transport(kind, kind.1, PORT)).hops(60)
}

/// How much an error quotes.
#[derive(Clone, Copy)]
enum Much {
    /// The whole packet.
    Whole,
    /// The IP header and so many bytes.
    Bytes(usize),
}

fn quote(frame: &Frame, much: Much) -> Vec<u8> {
    let bytes = frame.bytes();
    match much {
        Much::Whole => bytes[frame.network()..].to_vec(),
        Much::Bytes(count) => bytes[frame.network()..frame.behind() + count].to_vec(),
    }
}

/// The type that says: it does not fit, or does not arrive.
const fn unreachable(v6: bool) -> u8 {
    if v6 { 2 } else { 3 }
}

fn error(v6: bool, from: Host, to: Host, kind: u8, quoted: &Frame, much: Much) -> Frame {
    Frame::new(v6, from, to, Transport::Icmp(kind)).data(&quote(quoted, much))
}

/// A router on the clients' side complains about a reply.
fn from_router(v6: bool, quoted: &Frame) -> Frame {
    error(v6, ROUTER, VIP, unreachable(v6), quoted, Much::Whole)
}

/// An error as it leaves for a backend, about the packet that the backend has sent.
fn to_backend(error: &Frame, sent: &Frame, backend: Host) -> Step {
    to_backend_with(error, sent, backend, Much::Whole)
}

fn to_backend_with(error: &Frame, sent: &Frame, backend: Host, much: Much) -> Step {
    let after = Frame {
        macs: (backend.mac, backend.wire.mac()),
        destination: backend.address(error.source.is_ipv6()),
        hops: error.hops - 1,
        ..error.clone()
    };
    error.leaves(&after.data(&quote(sent, much)), backend.wire, Reason::IcmpError)
}

/// An error as it leaves for the client, from who the client takes its sender for, about the packet that the client has sent.
fn to_client(error: &Frame, from: Host, sent: &Frame, much: Much) -> Step {
    let v6 = error.source.is_ipv6();
    let after = Frame {
        macs: (CLIENT.mac, CLIENT.wire.mac()),
        source: from.address(v6),
        hops: error.hops - 1,
        ..error.clone()
    };
    error.leaves(&after.data(&quote(sent, much)), Wire::Front, Reason::IcmpError)
}

/// Every type of error of a family.
fn types(v6: bool) -> &'static [u8] {
    if v6 { &[1, 2, 3, 4] } else { &[3, 11, 12] }
}

fn of_family(v6: bool) -> Vec<Case> {
    [from_clients(v6), from_backends(v6), direct(v6), about_no_flow(v6), refused(v6)].concat()
}

fn from_clients(v6: bool) -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, kind, service) in [("TCP", TCP, "www"), ("UDP", UDP, "echo")] {
        for icmp in types(v6) {
            for (text, much) in [("8 bytes", Much::Bytes(8)), ("the whole packet", Much::Whole)] {
                let name = format!("an ICMP error of type {icmp} about a reply, {name}, {text} of it");
                let error = error(v6, ROUTER, VIP, *icmp, &reply_seen(v6, kind), much);
                let step = to_backend_with(&error, &reply(v6, kind, WEB2), WEB2, much).given(service, v6, 1, 0);
                cases.push(case(&named(&name, v6), vec![step]).flow(&to_vip(v6, kind), service, 1, GENERATION, 0));
            }
        }
    }
    // Up to the byte in front of TCP's checksum, and with it.
    for bytes in [16, 18, 20] {
        let (name, much) = (format!("an ICMP error with {bytes} bytes of TCP"), Much::Bytes(bytes));
        let error = error(v6, ROUTER, VIP, unreachable(v6), &reply_seen(v6, TCP), much);
        let step = to_backend_with(&error, &reply(v6, TCP, WEB2), WEB2, much).given("www", v6, 1, 0);
        cases.push(case(&named(&name, v6), vec![step]).flow(&to_vip(v6, TCP), "www", 1, GENERATION, 0));
    }
    cases.push({
        let name = "an ICMP error from the client itself";
        let error = error(v6, CLIENT, VIP, types(v6)[0], &reply_seen(v6, UDP), Much::Whole);
        let step = to_backend(&error, &reply(v6, UDP, WEB1), WEB1).given("echo", v6, 0, 0);
        case(&named(name, v6), vec![step]).flow(&to_vip(v6, UDP), "echo", 0, GENERATION, 0)
    });
    cases.push({
        let error = from_router(v6, &reply_seen(v6, TCP));
        let step = to_backend(&error, &reply(v6, TCP, WEB1), WEB1).given("www", v6, 0, 0);
        case(
            &named("an ICMP error from a network that is not routed back", v6),
            vec![Step {
                frame: Frame { source: OFFICE.address(v6), ..error.clone() }.bytes(),
                after: {
                    let sent = Frame {
                        macs: (WEB1.mac, WEB1.wire.mac()),
                        source: OFFICE.address(v6),
                        destination: WEB1.address(v6),
                        hops: error.hops - 1,
                        ..error
                    };
                    sent.data(&quote(&reply(v6, TCP, WEB1), Much::Whole)).bytes()
                },
                ..step
            }],
        )
        .flow(&to_vip(v6, TCP), "www", 0, GENERATION, 0)
    });
    cases.push({
        let edge: Kind = (6, 8087, 9087);
        let step = to_backend(&from_router(v6, &reply_seen(v6, edge)), &reply(v6, edge, EDGE), EDGE);
        case(&named("an ICMP error leaves by the way it came", v6), vec![step.given("edge", v6, 0, 0)]).flow(
            &to_vip(v6, edge),
            "edge",
            0,
            GENERATION,
            0,
        )
    });
    cases
}

fn from_backends(v6: bool) -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, kind, service) in [("TCP", TCP, "www"), ("UDP", UDP, "echo")] {
        for icmp in types(v6) {
            for (text, much) in [("8 bytes", Much::Bytes(8)), ("the whole packet", Much::Whole)] {
                for (who, from, seen) in [("a backend", WEB1, VIP), ("a router in front of it", BEHIND, BEHIND)] {
                    let name = format!("an ICMP error of type {icmp} from {who}, {name}, {text}");
                    let error = error(v6, from, CLIENT, *icmp, &at_backend(v6, kind, WEB1), much);
                    let step = to_client(&error, seen, &to_vip(v6, kind).hops(60), much).given(service, v6, 0, 0);
                    cases.push(case(&named(&name, v6), vec![step]).flow(&to_vip(v6, kind), service, 0, GENERATION, 0));
                }
            }
        }
    }
    cases
}

fn direct(v6: bool) -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, kind, service) in [("TCP", DIRECT, "direct"), ("UDP", DIRECT_UDP, "direct-udp")] {
        for icmp in types(v6) {
            for (text, much) in [("8 bytes", Much::Bytes(8)), ("the whole packet", Much::Whole)] {
                let name = format!("direct: an ICMP error of type {icmp} about a reply, {name}, {text}");
                let error = error(v6, ROUTER, VIP, *icmp, &reply_seen(v6, kind), much);
                let step = error.leaves(&error.relayed(WEB2), WEB2.wire, Reason::IcmpError).given(service, v6, 1, 0);
                cases.push(case(&named(&name, v6), vec![step]).flow(&to_vip(v6, kind), service, 1, GENERATION, 0));
            }
        }
    }
    cases.push({
        let silent: Kind = (6, 8078, 8078);
        let step = from_router(v6, &reply_seen(v6, silent)).drops(Reason::NoNeighbour).given("direct-silent", v6, 0, 0);
        case(&named("direct: an ICMP error to a backend whose MAC address nobody knows", v6), vec![step]).flow(
            &to_vip(v6, silent),
            "direct-silent",
            0,
            GENERATION,
            0,
        )
    });
    cases
}

/// With a flow of the client to the first backend.
fn beside_a_flow(v6: bool, name: &str, error: &Frame) -> Case {
    case(&named(name, v6), vec![error.drops(Reason::NoRule)]).flow(&to_vip(v6, TCP), "www", 0, GENERATION, 0)
}

fn about_no_flow(v6: bool) -> Vec<Case> {
    let seen = reply_seen(v6, TCP);
    let from = |quoted: &Frame| from_router(v6, quoted);
    let cut = |bytes| error(v6, ROUTER, VIP, unreachable(v6), &seen, Much::Bytes(bytes));
    let other_port = Frame { transport: Transport::Tcp(8080, PORT + 1, ACK), ..seen.clone() };
    let sent = at_backend(v6, TCP, WEB1);
    let mut cases = vec![
        case(&named("an ICMP error without a flow", v6), vec![from(&seen).drops(Reason::NoRule)]),
        beside_a_flow(v6, "an ICMP error about the client's next port", &from(&other_port)),
        beside_a_flow(
            v6,
            "an ICMP error about another client",
            &from(&Frame { destination: CLIENT2.address(v6), ..seen.clone() }),
        ),
        beside_a_flow(v6, "an ICMP error about the packet in the other direction", &from(&to_vip(v6, TCP))),
        beside_a_flow(
            v6,
            "an ICMP error to another address than the packet's sender",
            &Frame { destination: LB1.address(v6), ..from(&seen) },
        ),
        beside_a_flow(v6, "an ICMP error that quotes seven bytes", &cut(7)),
        beside_a_flow(
            v6,
            "an ICMP error that quotes half an IP header",
            &from(&seen).data(&quote(&seen, Much::Whole)[..12]),
        ),
        beside_a_flow(
            v6,
            "an ICMP error about another protocol",
            &from(&Frame { transport: Transport::Other(132), ..seen.clone() }),
        ),
        beside_a_flow(v6, "an ICMP error about a later fragment", &from(&seen.clone().fragment(4, false))),
        beside_a_flow(
            v6,
            "an ICMP error from a backend that the flow is not with",
            &error(v6, WEB2, CLIENT, types(v6)[0], &at_backend(v6, TCP, WEB2), Much::Whole),
        ),
        beside_a_flow(
            v6,
            "an ICMP error from the backends' side to another client",
            &Frame { destination: CLIENT2.address(v6), ..error(v6, WEB1, CLIENT, types(v6)[0], &sent, Much::Whole) },
        ),
    ];
    if v6 {
        let behind = seen.clone().behind_too(Extension::Destination(8));
        cases.push(beside_a_flow(v6, "an ICMP error about a packet with extension headers", &from(&behind)));
    } else {
        let behind = seen.clone().options(&[1, 1, 1, 1]);
        cases.push(beside_a_flow(v6, "an ICMP error about a packet with IPv4 options", &from(&behind)));
    }
    cases
}

/// So many at once are delivered, and no more; a thousand a second.
fn limited(v6: bool) -> Case {
    const AT_ONCE: usize = 200;
    let error = from_router(v6, &reply_seen(v6, TCP));
    let step = || to_backend(&error, &reply(v6, TCP, WEB1), WEB1).given("www", v6, 0, 0);
    let dropped = || error.drops(Reason::IcmpLimit);
    let mut steps: Vec<Step> = (0..AT_ONCE).map(|_| step()).collect();
    steps.extend([dropped(), dropped().later(900_000), step().later(100_000), dropped()]);
    case(&named("ICMP errors above a service's limit", v6), steps).flow(&to_vip(v6, TCP), "www", 0, GENERATION, 0)
}

fn refused(v6: bool) -> Vec<Case> {
    let about =
        |name: &str, steps: Vec<Step>| case(&named(name, v6), steps).flow(&to_vip(v6, TCP), "www", 0, GENERATION, 0);
    let plain = from_router(v6, &reply_seen(v6, TCP));
    let silent: Kind = (6, 8085, 9085);
    let sent = to_backend(&from_router(v6, &reply_seen(v6, silent)), &reply(v6, silent, SILENT), SILENT);
    vec![
        limited(v6),
        about(
            "an ICMP error from who is denied",
            vec![Frame { source: ENEMY.address(v6), ..plain.clone() }.denied("enemy")],
        ),
        about(
            "an ICMP error on its last hop",
            vec![{ plain.clone().hops(1).drops(Reason::TimeExceeded).given("www", v6, 0, 0) }],
        ),
        about("an ICMP error from a VLAN leaves without its tag", {
            let frame = plain.clone().tag(VLAN.0, VLAN.1).bytes();
            let step = to_backend(&plain, &reply(v6, TCP, WEB1), WEB1).given("www", v6, 0, 0);
            vec![Step { frame, ingress: Wire::Back, ..step }]
        }),
        about("an ICMP error under a tag", vec![plain.clone().tag(0x8100, 5).drops(Reason::TaggedService)]),
        case(
            &named("an ICMP error to a backend whose MAC address nobody knows is left to the stack", v6),
            vec![Step {
                action: Action::Pass,
                reason: Reason::Neighbour,
                after: {
                    let error = from_router(v6, &reply_seen(v6, silent));
                    let host = SILENT;
                    let after = Frame { destination: host.address(v6), ..error };
                    after.data(&quote(&reply(v6, silent, host), Much::Whole)).bytes()
                },
                ..sent.given("silent", v6, 0, 0)
            }],
        )
        .flow(&to_vip(v6, silent), "silent", 0, GENERATION, 0),
    ]
}
