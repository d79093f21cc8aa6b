//! Services: whom a new connection is given to, and what is not served.

use foobar_common::verdict::Reason;

use super::super::case::{Case, Step, case};
use super::super::frame::{ACK, FIN, Frame, RST, SYN, Transport};
use super::super::hosts::{CLIENT, CLIENT2, EDGE, Host, LB1, VIP, WEB1, WEB2, WEB3, Wire};
use super::{both, named};

pub(super) fn cases() -> Vec<Case> {
    both(of_family)
}

/// A client's segment to the VIP.
pub(super) fn to_vip(v6: bool, source: u16, port: u16, flags: u8) -> Frame {
    Frame::new(v6, CLIENT, VIP, Transport::Tcp(source, port, flags))
}

/// A SYN that opens a connection to a member of a service.
pub(super) fn opening(v6: bool, source: u16, service: &str, port: u16, member: u32, host: Host) -> Step {
    let syn = to_vip(v6, source, port, SYN);
    let sent = syn.to_backend(host, port + 1000);
    syn.leaves(&sent, host.wire, Reason::NewFlow).counts("vip").given(service, v6, member, 1)
}

/// A client's later segment, by the flow.
pub(super) fn following(v6: bool, source: u16, flags: u8, member: u32, host: Host) -> Step {
    let segment = to_vip(v6, source, 8080, flags);
    let sent = segment.to_backend(host, 9080);
    segment.leaves(&sent, host.wire, Reason::Flow).counts("vip").given("www", v6, member, 0)
}

/// A backend's segment back to the client.
pub(super) fn replying(v6: bool, port: u16, flags: u8, member: u32, host: Host) -> Step {
    let reply = Frame::new(v6, host, CLIENT, Transport::Tcp(9080, port, flags));
    let sent = reply.to_client(VIP, 8080, CLIENT);
    reply.leaves(&sent, Wire::Front, Reason::FlowReply).given("www", v6, member, 0)
}

fn of_family(v6: bool) -> Vec<Case> {
    let one = |name: &str, step| case(&named(name, v6), vec![step]);
    let none = Reason::NoFlow;
    vec![
        one("a new connection", opening(v6, 2000, "www", 8080, 0, WEB1)),
        case(
            &named("round robin over two", v6),
            vec![
                opening(v6, 2000, "www", 8080, 0, WEB1),
                opening(v6, 2001, "www", 8080, 1, WEB2),
                opening(v6, 2002, "www", 8080, 0, WEB1),
                opening(v6, 2003, "www", 8080, 1, WEB2),
            ],
        ),
        case(
            &named("round robin over three", v6),
            vec![
                opening(v6, 2000, "three", 8082, 0, WEB1),
                opening(v6, 2001, "three", 8082, 1, WEB2),
                opening(v6, 2002, "three", 8082, 2, WEB3),
                opening(v6, 2003, "three", 8082, 0, WEB1),
            ],
        ),
        case(
            &named("services have cursors of their own", v6),
            vec![
                opening(v6, 2000, "www", 8080, 0, WEB1),
                opening(v6, 2000, "three", 8082, 0, WEB1),
                opening(v6, 2001, "www", 8080, 1, WEB2),
            ],
        ),
        case(
            &named("a SYN sent again moves nothing", v6),
            vec![
                opening(v6, 2000, "www", 8080, 0, WEB1),
                following(v6, 2000, SYN, 0, WEB1),
                following(v6, 2000, SYN, 0, WEB1),
                opening(v6, 2001, "www", 8080, 1, WEB2),
            ],
        ),
        one("a backend on the client's side", opening(v6, 2000, "edge", 8087, 0, EDGE)),
        one("no backend", to_vip(v6, 2000, 8083, SYN).drops(Reason::NoBackend).counts("vip")),
        one("a local service is none on the wire", to_vip(v6, 2000, 8088, SYN).allowed("vip")),
        one("the port after the last that is allowed", to_vip(v6, 2000, 8091, SYN).drops(Reason::NoRule)),
        one("a port that is allowed and not served", to_vip(v6, 2000, 8081, SYN).allowed("vip")),
        one("the service's port at another address", {
            Frame::new(v6, CLIENT, LB1, Transport::Tcp(2000, 8080, SYN)).drops(Reason::NoRule)
        }),
        one("a denied port of the VIP", {
            Frame::new(v6, CLIENT2, VIP, Transport::Tcp(2000, 8091, SYN)).denied("vip-flood")
        }),
        one("a client that is denied", {
            Frame::new(v6, super::super::hosts::ENEMY, VIP, Transport::Tcp(2000, 8080, SYN)).denied("enemy")
        }),
        one("an ACK without a flow", to_vip(v6, 2000, 8080, ACK).drops(none).counts("vip")),
        one("a FIN without a flow", to_vip(v6, 2000, 8080, FIN | ACK).drops(none).counts("vip")),
        one("a RST without a flow", to_vip(v6, 2000, 8080, RST).drops(none).counts("vip")),
        one("a SYN with FIN opens nothing", to_vip(v6, 2000, 8080, SYN | FIN).drops(Reason::TcpFlags)),
        one("a SYN with ACK opens nothing", to_vip(v6, 2000, 8080, SYN | ACK).drops(none).counts("vip")),
        one("a service's packet under a tag", {
            to_vip(v6, 2000, 8080, SYN).tag(0x8100, 5).drops(Reason::TaggedService)
        }),
        one("a backend's packet without a flow", {
            Frame::new(v6, WEB1, CLIENT, Transport::Tcp(9080, 2000, ACK)).drops(Reason::NoRule)
        }),
    ]
}
