//! Tunnels: a packet reaches a backend behind a router in another packet, and one that comes here in one is judged without it.
//!
//! Outer headers and ICMP errors are built by etherparse.

use etherparse::{IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header};
use foobar_common::choose;
use foobar_common::verdict::Reason;

use super::super::answer::Told;
use super::super::case::{Action, Case, Step, Tunnel, case, dropped, passed};
use super::super::frame::{FIN, Frame, SYN, Transport};
use super::super::hosts::{
    ADMIN, CLIENT, CLIENT2, FAR_NARROW, FAR1, FAR2, Host, LB1, LB1_TOO, LB2, SILENT, VIP, VIP2, WEB3, Wire,
};
use super::super::shell::Key;
use super::one_way::OneWay;
use super::{both, named};

pub(super) fn cases() -> Vec<Case> {
    [both(sent), both(received), both(too_long)].concat()
}

const SERVICE: OneWay = OneWay { name: "tunnel", port: 8079, backends: [FAR1, FAR2], leaves };

/// Length of the header in front.
const fn header(v6: bool) -> usize {
    if v6 { 40 } else { 20 }
}

/// A packet in another one, from here to there; `tags` in front of it as in the frame.
fn wrapped(inner: &Frame, macs: ([u8; 6], [u8; 6]), from: Host, to: Host, mark: u32, class: u8) -> Vec<u8> {
    let bytes = inner.bytes();
    let packet = &bytes[inner.network()..];
    let mut frame = [macs.0, macs.1].concat();
    frame.extend(&bytes[12..inner.network()]);
    if inner.source.is_ipv6() {
        let outer = Ipv6Header {
            traffic_class: class,
            flow_label: Ipv6FlowLabel::try_new(mark & 0xf_ffff).expect("twenty bits"),
            payload_length: packet.len() as u16,
            next_header: IpNumber::IPV6,
            hop_limit: 64,
            source: from.v6.octets(),
            destination: to.v6.octets(),
        };
        frame.extend(outer.to_bytes());
    } else {
        let length = packet.len() as u16;
        let mut outer = Ipv4Header::new(length, 64, IpNumber::IPV4, from.v4.octets(), to.v4.octets()).expect("short");
        outer.identification = mark as u16;
        outer.dont_fragment = true;
        (outer.dscp, outer.ecn) = ((class >> 2).try_into().expect("six bits"), (class & 3).try_into().expect("two"));
        outer.header_checksum = outer.calc_header_checksum();
        frame.extend(outer.to_bytes());
    }
    frame.extend(packet);
    frame
}

/// By which routers know the flow.
fn mark(frame: &Frame) -> u32 {
    match Key::of(frame) {
        Key::V4(tuple) => choose::hash(&tuple),
        Key::V6(tuple) => choose::hash(&tuple),
    }
}

/// As it leaves the balancer for a backend.
fn tunnelled(frame: &Frame, backend: Host) -> Vec<u8> {
    let relayed = frame.relayed(backend);
    wrapped(&relayed, relayed.macs, LB1, backend, mark(frame), 0)
}

/// A client's packet leaves in a tunnel.
pub(super) fn leaves(frame: &Frame, backend: Host, reason: Reason) -> Step {
    frame.leaves(frame, backend.wire, reason).becomes(tunnelled(frame, backend)).by_tunnel(Tunnel::In)
}

/// What a balancer does.
fn sent(v6: bool) -> Vec<Case> {
    let name = |text: &str| named(text, v6);
    let datagram = Frame::new(v6, CLIENT, VIP, Transport::Udp(2000, SERVICE.port));
    let silent = Frame::new(v6, CLIENT, VIP, Transport::Tcp(2000, 8089, SYN));
    let direct = Frame::new(v6, CLIENT, VIP, Transport::Tcp(2000, 8070, SYN));
    let mut cases = SERVICE.cases(v6);
    cases.extend([
        case(&name("tunnel: a datagram"), {
            let step = leaves(&datagram, FAR1, Reason::NewFlow);
            vec![step.counts("vip-udp").given("tunnel-udp", v6, 0, 1)]
        }),
        case(&name("tunnel: the last hop but one"), {
            let last = SERVICE.segment(v6, 2000, SYN).hops(2);
            vec![leaves(&last, FAR1, Reason::NewFlow).counts("vip").given("tunnel", v6, 0, 1)]
        }),
        case(&name("tunnel: a next hop that is not known is the stack's to find"), {
            let hop = Frame { hops: silent.hops - 1, ..silent.clone() };
            let after = wrapped(&hop, silent.macs, LB1, SILENT, mark(&silent), 0);
            let step = passed(silent.ingress, silent.bytes(), Reason::Neighbour).becomes(after);
            vec![step.by_tunnel(Tunnel::In).counts("vip").given("tunnel-silent", v6, 0, 1)]
        }),
        case(&name("tunnel: under a VLAN tag"), {
            vec![SERVICE.segment(v6, 2000, SYN).tag(0x8100, 5).drops(Reason::TaggedService)]
        }),
        case(
            &name("direct: a backend behind a router"),
            vec![direct.drops(Reason::OffLink).counts("vip").given("direct-far", v6, 0, 1)],
        ),
    ]);
    cases
}

/// What a packet is inside a tunnel to this server: as the other balancer has sent it.
fn inner(v6: bool, transport: Transport) -> Frame {
    Frame { ingress: Wire::Back, macs: (Wire::Back.mac(), LB2.mac), ..Frame::new(v6, CLIENT, VIP2, transport) }
}

fn outer_rule(v6: bool) -> &'static str {
    if v6 { "tunnels6" } else { "tunnels" }
}

/// A frame of any bytes from the other balancer.
fn arrives(frame: Vec<u8>, action: Action, reason: Reason) -> Step {
    Step { action, ..dropped(Wire::Back, frame, reason) }
}

/// It is taken out, and then this becomes of it.
fn taken_out(v6: bool, frame: Vec<u8>, inner: &Frame, action: Action, reason: Reason) -> Step {
    let after = inner.bytes();
    let out = Tunnel::Out(after.len());
    arrives(frame, action, reason).becomes(after).counts(outer_rule(v6)).by_tunnel(out)
}

/// With another protocol in its header.
fn renumbered(v6: bool, mut frame: Vec<u8>, protocol: u8) -> Vec<u8> {
    if v6 {
        frame[20] = protocol;
        return frame;
    }
    frame[23] = protocol;
    frame[24..26].fill(0);
    let sum = super::super::frame::checksum(&[&frame[14..34]]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame
}

/// What a backend does.
fn received(v6: bool) -> Vec<Case> {
    let one = |text: &str, step| case(&named(text, v6), vec![step]);
    let to_us = |frame: &Frame| wrapped(frame, frame.macs, LB2, LB1, 0x1234, 0);
    let syn = inner(v6, Transport::Tcp(2000, 8443, SYN));
    let ping = |to: Host| {
        let plain = Frame { ingress: Wire::Back, ..Frame::new(v6, ADMIN, to, Transport::Tcp(2000, 22, SYN)) };
        Frame { macs: syn.macs, ..plain }
    };
    let pass = |frame: &Frame, rule| taken_out(v6, to_us(frame), frame, Action::Pass, Reason::RuleAllow).counts(rule);
    let foreign = |frame: Vec<u8>| arrives(frame, Action::Drop, Reason::ForeignTunnel);
    let mut cases = vec![
        one("tunnel: out of it, and to the stack", pass(&syn, "tunnelled")),
        one("tunnel: out of it, a datagram", pass(&inner(v6, Transport::Udp(2000, 8443)), "tunnelled-udp")),
        one("tunnel: out of it, and no rule allows the port", {
            let other = inner(v6, Transport::Tcp(2000, 8444, SYN));
            taken_out(v6, to_us(&other), &other, Action::Drop, Reason::NoRule)
        }),
        one("tunnel: out of it, and a rule denies the sender", {
            let enemy = Frame { source: super::super::hosts::ENEMY.address(v6), ..syn.clone() };
            taken_out(v6, to_us(&enemy), &enemy, Action::Drop, Reason::RuleDeny).counts("enemy")
        }),
        one("tunnel: out of it, and its flags are of no stack", {
            let scan = inner(v6, Transport::Tcp(2000, 8443, SYN | FIN));
            taken_out(v6, to_us(&scan), &scan, Action::Drop, Reason::TcpFlags)
        }),
        one("tunnel: one that comes under a VLAN tag", pass(&syn.clone().tag(0x8100, 5), "tunnelled")),
        one(
            "tunnel: one that comes under two VLAN tags",
            pass(&syn.clone().tag(0x88a8, 5).tag(0x8100, 6), "tunnelled"),
        ),
        one("tunnel: another one inside, for the VIP", {
            let mut nested = inner(v6, Transport::Other(if v6 { 41 } else { 4 }));
            nested.data = syn.bytes()[14..].to_vec();
            taken_out(v6, to_us(&nested), &nested, Action::Drop, Reason::ForeignTunnel)
        }),
        one("tunnel: another one inside, for the server itself", {
            let nested = Frame { source: LB2.address(v6), destination: LB1.address(v6), ..syn.clone() };
            let twice = Frame { transport: Transport::Other(if v6 { 41 } else { 4 }), ..nested };
            let twice = Frame { data: syn.bytes()[14..].to_vec(), ..twice };
            arrives(to_us(&twice), Action::Drop, Reason::TunnelInner).counts(outer_rule(v6))
        }),
        one("tunnel: for no VIP, but the server's own ssh", {
            arrives(to_us(&ping(LB1)), Action::Drop, Reason::TunnelInner).counts(outer_rule(v6))
        }),
        one("tunnel: for the VIP next to it", {
            let other = Frame { destination: VIP.address(v6), ..syn.clone() };
            arrives(to_us(&other), Action::Drop, Reason::TunnelInner).counts(outer_rule(v6))
        }),
        one("tunnel: nothing inside", {
            let cut = to_us(&syn)[..14 + header(v6)].to_vec();
            let cut = shortened(v6, cut, 0);
            arrives(cut, Action::Drop, Reason::TunnelInner).counts(outer_rule(v6))
        }),
        one("tunnel: from a host that is no balancer", foreign(wrapped(&syn, syn.macs, CLIENT2, LB1, 0, 0))),
        one("tunnel: to another address of the server", foreign(wrapped(&syn, syn.macs, LB2, LB1_TOO, 0, 0))),
        one("tunnel: of the other family", foreign(renumbered(v6, to_us(&syn), if v6 { 4 } else { 41 }))),
        one("tunnel: of the site's own, by a rule, for the stack", {
            let frame = wrapped(&syn, syn.macs, WEB3, LB1, 0, 0);
            arrives(frame, Action::Pass, Reason::RuleAllow).counts(if v6 { "own-tunnel6" } else { "own-tunnel" })
        }),
    ];
    cases.extend(congested(v6, &syn));
    cases
}

/// The frame with an outer header that says it holds so many bytes.
fn shortened(v6: bool, mut frame: Vec<u8>, payload: u16) -> Vec<u8> {
    if v6 {
        frame[18..20].copy_from_slice(&payload.to_be_bytes());
        return frame;
    }
    frame[16..18].copy_from_slice(&(20 + payload).to_be_bytes());
    renumbered(v6, frame, 4)
}

/// Congestion on the way through the tunnel (RFC 6040).
fn congested(v6: bool, syn: &Frame) -> Vec<Case> {
    let marked = |class: u8| classed(v6, syn.bytes(), class);
    let tunnel = |outer: u8, inner: u8| {
        let mut frame = wrapped(syn, syn.macs, LB2, LB1, 0, outer);
        frame.truncate(14 + header(v6));
        frame.extend(&marked(inner)[14..]);
        frame
    };
    let told = |outer: u8, inner: u8, after: u8| {
        taken_out(v6, tunnel(outer, inner), syn, Action::Pass, Reason::RuleAllow)
            .counts("tunnelled")
            .becomes(marked(after))
    };
    vec![
        case(
            &named("tunnel: congestion is told to who understands it", v6),
            vec![told(3, 2, 3), told(3, 1, 3), told(3, 3, 3), told(2, 2, 2), told(0, 1, 1), told(0xb9, 0xb8, 0xb8)],
        ),
        case(
            &named("tunnel: congestion loses the packet of who does not", v6),
            vec![arrives(tunnel(3, 0), Action::Drop, Reason::TunnelInner).counts(outer_rule(v6))],
        ),
    ]
}

/// A frame with another class of traffic, and the checksum that belongs to it.
fn classed(v6: bool, mut frame: Vec<u8>, class: u8) -> Vec<u8> {
    if v6 {
        frame[14] = 0x60 | class >> 4;
        frame[15] = frame[15] & 0x0f | class << 4;
        return frame;
    }
    frame[15] = class;
    let protocol = frame[23];
    renumbered(v6, frame, protocol)
}

/// A segment for a backend behind a narrow way, whose IP packet has so many bytes.
fn long(v6: bool, source: u16, length: usize) -> Frame {
    Frame::new(v6, CLIENT, VIP, Transport::Tcp(source, 8090, SYN)).data(&vec![7; length - header(v6) - 20])
}

/// Packets for which the tunnel has no room.
fn too_long(v6: bool) -> Vec<Case> {
    let name = |text: &str| named(text, v6);
    let room = 1400 - header(v6);
    let answered = |frame: &Frame, connections| {
        frame.answered(Told::TooBig(room as u16)).counts("vip").given("tunnel-narrow", v6, 0, connections)
    };
    let mut cases = vec![
        case(&name("tunnel: a packet that just fits"), {
            let fitting = long(v6, 2000, room);
            vec![leaves(&fitting, FAR_NARROW, Reason::NewFlow).counts("vip").given("tunnel-narrow", v6, 0, 1)]
        }),
        case(&name("tunnel: a packet one byte too long"), vec![answered(&long(v6, 2000, room + 1), 1)]),
        case(&name("tunnel: a packet of 1,500 bytes on links of as many"), {
            let full = SERVICE.segment(v6, 2000, SYN).data(&vec![7; 1500 - header(v6) - 20]);
            let told = Told::TooBig(1500 - header(v6) as u16);
            vec![full.answered(told).counts("vip").given("tunnel", v6, 0, 1)]
        }),
    ];
    if !v6 {
        cases.push(case("tunnel: too long, and might be cut", {
            let frame = Frame { fragment: 0, ..long(v6, 2000, room + 1) };
            vec![frame.drops(Reason::TooBig).counts("vip").given("tunnel-narrow", v6, 0, 1)]
        }));
    }
    cases
}
