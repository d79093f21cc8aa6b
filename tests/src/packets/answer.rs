//! ICMP errors that the balancer answers with, built by `etherparse`: nothing is shared with the packet path or the frames' builder.

use std::net::IpAddr;

use etherparse::{
    Icmpv4Type, Icmpv6Type, IpHeaders, IpNumber, Ipv4Extensions, Ipv4Header, Ipv6Extensions, Ipv6FlowLabel, Ipv6Header,
    PacketBuilder, icmpv4, icmpv6,
};
use foobar_common::verdict::Reason;

use super::case::{Action, Step, dropped};
use super::frame::Frame;
use super::hosts::{Host, VIP};

/// Bytes of a packet that are quoted at the most.
const QUOTE: usize = 128;

/// What the sender of a packet is told.
#[derive(Clone, Copy, Debug)]
pub enum Told {
    /// The longest IP packet that fits.
    TooBig(u16),
    /// Its hops are used up.
    HopsUsedUp,
}

impl Frame {
    /// It does not go on, and the VIP tells its sender why.
    pub fn answered(&self, told: Told) -> Step {
        let reason = match told {
            Told::TooBig(_) => Reason::TooBigAnswered,
            Told::HopsUsedUp => Reason::TimeAnswered,
        };
        let action = Action::Forward(self.ingress);
        Step { action, after: answer(self, VIP, told), ..dropped(self.ingress, self.bytes(), reason) }
    }
}

/// The answer to a frame without tags, from an address of the balancer.
fn answer(asked: &Frame, from: Host, told: Told) -> Vec<u8> {
    let bytes = asked.bytes();
    let packet = &bytes[asked.network()..];
    let quoted = &packet[..(packet.len() & !3).min(QUOTE)];
    let (to, by) = asked.macs;
    let builder = PacketBuilder::ethernet2(to, by);
    let mut frame = Vec::new();
    let written = match (asked.source, from.v4, from.v6) {
        (IpAddr::V4(sender), vip, _) => {
            let ip = Ipv4Header {
                dscp: 48.try_into().expect("six bits"),
                dont_fragment: true,
                ..Ipv4Header::new(0, 64, IpNumber::ICMP, vip.octets(), sender.octets()).expect("a short packet")
            };
            let kind = match told {
                Told::TooBig(next_hop_mtu) => {
                    Icmpv4Type::DestinationUnreachable(icmpv4::DestUnreachableHeader::FragmentationNeeded {
                        next_hop_mtu,
                    })
                }
                Told::HopsUsedUp => Icmpv4Type::TimeExceeded(icmpv4::TimeExceededCode::TtlExceededInTransit),
            };
            let builder = builder.ip(IpHeaders::Ipv4(ip, Ipv4Extensions::default()));
            builder.icmpv4(kind).write(&mut frame, quoted)
        }
        (IpAddr::V6(sender), _, vip) => {
            let ip = Ipv6Header {
                traffic_class: 0,
                flow_label: Ipv6FlowLabel::ZERO,
                payload_length: 0,
                next_header: IpNumber::IPV6_ICMP,
                hop_limit: 64,
                source: vip.octets(),
                destination: sender.octets(),
            };
            let kind = match told {
                Told::TooBig(mtu) => Icmpv6Type::PacketTooBig { mtu: mtu.into() },
                Told::HopsUsedUp => Icmpv6Type::TimeExceeded(icmpv6::TimeExceededCode::HopLimitExceeded),
            };
            let builder = builder.ip(IpHeaders::Ipv6(ip, Ipv6Extensions::default()));
            builder.icmpv6(kind).write(&mut frame, quoted)
        }
    };
    written.expect("a frame in memory");
    frame
}
