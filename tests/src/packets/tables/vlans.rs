//! VLANs: services from under a tag and to backends under one, for which the tag is pushed, pulled or replaced.

use foobar_common::verdict::Reason;

use super::super::answer::Told;
use super::super::case::{Action, Case, Step, case};
use super::super::frame::{ACK, Frame, SYN, Transport};
use super::super::hosts::{CLIENT, FAR1, INSIDER, LB1, SILENT, VIP, VLAN, VLAN2, WEB1, WEB4, Wire};
use super::super::world::RuleSet;
use super::{both, named, tunnel};

pub(super) fn cases() -> Vec<Case> {
    both(of_family)
}

/// A VLAN that the balancer has no device for.
const UNKNOWN: (u16, u16) = (VLAN.0, 201);
/// Priority 5, and may be dropped first.
const PRIORITY: u16 = 0xb000;

impl Frame {
    /// As it comes on the balancer's wire to the servers, under a tag.
    fn under(mut self, (kind, vlan): (u16, u16)) -> Self {
        self.ingress = Wire::Back;
        self.tag(kind, vlan)
    }

    /// With these tags.
    fn retagged(mut self, tags: &[(u16, u16)]) -> Self {
        self.tags = tags.to_vec();
        self
    }
}

/// Of the client in the VLAN, without its tag.
fn inside(v6: bool, port: u16, flags: u8) -> Frame {
    Frame::new(v6, INSIDER, VIP, Transport::Tcp(2000, port, flags))
}

fn outside(v6: bool, port: u16, flags: u8) -> Frame {
    Frame::new(v6, CLIENT, VIP, Transport::Tcp(2000, port, flags))
}

/// From a client to the first member of a service.
fn sent(frame: &Frame, after: &Frame, egress: Wire, service: &str, connections: u64) -> Step {
    let reason = if connections == 1 { Reason::NewFlow } else { Reason::Flow };
    frame.leaves(after, egress, reason).counts("vip").given(service, frame.source.is_ipv6(), 0, connections)
}

fn of_family(v6: bool) -> Vec<Case> {
    [pulled(v6), pushed(v6), kept(v6), refused(v6)].concat()
}

/// From under a tag to backends and clients without one.
fn pulled(v6: bool) -> Vec<Case> {
    let name = |text: &str| named(&format!("VLAN: {text}"), v6);
    let (syn, ack) = (inside(v6, 8080, SYN), inside(v6, 8080, ACK));
    let to_web = |frame: &Frame, connections| {
        sent(&frame.clone().under(VLAN), &frame.to_backend(WEB1, 9080), Wire::Back, "www", connections)
    };
    let direct = inside(v6, 8076, SYN);
    vec![
        case(&name("its tag is pulled"), vec![to_web(&syn, 1), to_web(&ack, 0), to_web(&ack, 0)]),
        case(
            &name("of 802.1ad"),
            vec![sent(&syn.clone().under(VLAN2), &syn.to_backend(WEB1, 9080), Wire::Back, "www", 1)],
        ),
        case(&name("direct: its tag is pulled"), {
            vec![sent(&direct.clone().under(VLAN), &direct.relayed(WEB1), Wire::Back, "direct", 1)]
        }),
        case(&name("tunnel: its tag is pulled"), {
            let step = tunnel::leaves(&inside(v6, 8079, SYN), FAR1, Reason::NewFlow);
            let (frame, ingress) = (under_tag(&step.frame), Wire::Back);
            vec![Step { frame, ingress, ..step }.counts("vip").given("tunnel", v6, 0, 1)]
        }),
        case(&name("a tag of nothing but priority"), {
            let syn = Frame { ingress: Wire::Back, ..outside(v6, 8080, SYN) };
            vec![sent(&syn.clone().tag(VLAN.0, PRIORITY), &syn.to_backend(WEB1, 9080), Wire::Back, "www", 1)]
        }),
        case(&name("a reply from under a tag"), {
            let (syn, ack) = (outside(v6, 8066, SYN), outside(v6, 8066, ACK));
            let reply = Frame::new(v6, WEB4, CLIENT, Transport::Tcp(9066, 2000, SYN | ACK));
            let after = reply.to_client(VIP, 8066, CLIENT);
            let replied = reply.clone().under(VLAN).leaves(&after, Wire::Front, Reason::FlowReply);
            vec![to_vlan(&syn, 1), replied.given("vlan", v6, 0, 0).ends_row(0), to_vlan(&ack, 0)]
        }),
    ]
}

/// A client's packet on its way to the backend in the VLAN.
fn to_vlan(frame: &Frame, connections: u64) -> Step {
    sent(frame, &frame.to_backend(WEB4, 9066).retagged(&[VLAN]), Wire::Back, "vlan", connections)
}

/// To backends and clients under a tag, from under none or another one.
fn pushed(v6: bool) -> Vec<Case> {
    let name = |text: &str| named(&format!("VLAN: {text}"), v6);
    let (syn, ack) = (outside(v6, 8066, SYN), outside(v6, 8066, ACK));
    let direct = outside(v6, 8067, SYN);
    vec![
        case(&name("a tag is pushed"), vec![to_vlan(&syn, 1), to_vlan(&ack, 0), to_vlan(&ack, 0)]),
        case(&name("direct: a tag is pushed"), {
            vec![sent(&direct, &direct.relayed(WEB4).retagged(&[VLAN]), Wire::Back, "vlan-direct", 1)]
        }),
        case(&name("its tag is replaced"), vec![to_vlan(&syn.clone().under(VLAN2), 1), to_vlan(&ack.under(VLAN2), 0)]),
        case(&name("direct: its tag is replaced"), {
            let after = direct.relayed(WEB4).retagged(&[VLAN]);
            vec![sent(&direct.clone().under(VLAN2), &after, Wire::Back, "vlan-direct", 1)]
        }),
        case(&name("tunnel: a tag is pushed"), {
            let syn = outside(v6, 8068, SYN);
            let step = tunnel::leaves(&syn, WEB4, Reason::NewFlow).counts("vip").given("vlan-tunnel", v6, 0, 1);
            vec![Step { after: under_tag(&step.after), ..step }]
        }),
        case(&name("a reply to under a tag"), {
            let syn = inside(v6, 8080, SYN);
            let reply = Frame::new(v6, WEB1, INSIDER, Transport::Tcp(9080, 2000, SYN | ACK));
            let after = reply.to_client(VIP, 8080, INSIDER).retagged(&[VLAN]);
            vec![
                sent(&syn.clone().under(VLAN), &syn.to_backend(WEB1, 9080), Wire::Back, "www", 1),
                reply.leaves(&after, Wire::Back, Reason::FlowReply).given("www", v6, 0, 0).ends_row(0),
            ]
        }),
    ]
}

/// Packets that keep their tag: those that stay in their VLAN, those that the stack forwards, answers.
fn kept(v6: bool) -> Vec<Case> {
    let name = |text: &str| named(&format!("VLAN: {text}"), v6);
    let tagged = |vlan| (VLAN.0, vlan);
    vec![
        case(&name("its tag and priority stay"), {
            let syn = inside(v6, 8066, SYN);
            let (kind, vlan) = tagged(VLAN.1 | PRIORITY);
            let after = syn.to_backend(WEB4, 9066).retagged(&[(kind, vlan)]);
            vec![sent(&syn.under((kind, vlan)), &after, Wire::Back, "vlan", 1)]
        }),
        case(&name("without a neighbour it is left to the stack as it came"), {
            let syn = inside(v6, 8085, SYN).under(VLAN);
            vec![syn.handed_up(&syn.left_to_stack(SILENT, 9085)).counts("vip").given("silent", v6, 0, 1)]
        }),
        case(&name("its answer goes back under its tag"), {
            let syn = inside(v6, 8080, SYN).hops(1);
            let told = syn.answered(Told::HopsUsedUp).counts("vip").given("www", v6, 0, 1);
            let (frame, after) = (under_tag(&told.frame), under_tag(&told.after));
            vec![Step { frame, after, ingress: Wire::Back, action: Action::Forward(Wire::Back), ..told }]
        }),
        case(&name("sources are routed back by the device of their VLAN"), {
            let syn = inside(v6, 8080, SYN);
            vec![
                sent(&syn.clone().under(VLAN), &syn.to_backend(WEB1, 9080), Wire::Back, "www", 1),
                Frame { ingress: Wire::Back, ..inside(v6, 8082, SYN) }.drops(Reason::ReversePath),
                inside(v6, 8082, SYN).under(VLAN2).drops(Reason::ReversePath),
            ]
        })
        .rules(RuleSet::Strict),
    ]
}

/// A frame under the tag of the VLAN.
fn under_tag(frame: &[u8]) -> Vec<u8> {
    [&frame[..12], &VLAN.0.to_be_bytes(), &VLAN.1.to_be_bytes(), &frame[12..]].concat()
}

fn refused(v6: bool) -> Vec<Case> {
    let name = |text: &str| named(&format!("VLAN: {text}"), v6);
    let (syn, ack) = (outside(v6, 8066, SYN), outside(v6, 8066, ACK));
    let drops = |frame: &Frame| frame.drops(Reason::TaggedService);
    vec![
        case(&name("one without a device"), vec![drops(&syn.clone().under(UNKNOWN))]),
        case(&name("its number under the other EtherType"), vec![drops(&syn.clone().under((VLAN2.0, VLAN.1)))]),
        case(&name("its tag on another wire"), vec![drops(&syn.clone().tag(VLAN.0, VLAN.1))]),
        case(&name("two tags"), vec![drops(&syn.clone().under(VLAN).tag(VLAN.0, VLAN.1))]),
        case(
            &name("a flow's packet under a tag without a device"),
            vec![to_vlan(&syn, 1), drops(&ack.clone().under(UNKNOWN)), to_vlan(&ack, 0)],
        ),
        case(&name("an unknown one is judged by the rules of this host all the same"), {
            vec![Frame::new(v6, WEB1, LB1, Transport::Udp(2000, 53)).under(UNKNOWN).allowed("dns")]
        }),
    ]
}
