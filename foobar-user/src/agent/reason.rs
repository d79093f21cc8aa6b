//! Reasons of the packet path in words, for who asks why.

use foobar_common::verdict::Reason;

/// Why, in a sentence.
pub(super) const fn words(reason: Reason) -> &'static str {
    match reason {
        Reason::Arp => "ARP always reaches the stack",
        Reason::RuleAllow => "a rule allows it",
        Reason::OwnConnection => "no rule allows it, but it belongs to a connection of this host",
        Reason::Neighbour => "it belongs to a service, and the next hop's MAC address has to be resolved first",
        Reason::NewFlow => "it opens a connection to a service, and a rule allows it",
        Reason::Flow => "it belongs to a known connection to a service",
        Reason::FlowReply => "it is a backend's answer to a known connection",
        Reason::SourcePorts => "no port of its service's source addresses is free for a connection to its backend",
        Reason::ReplyTaken => "its client talks from this port to every backend of its service already, by another VIP",
        Reason::IcmpError => "it is an ICMP error about a known connection, and goes to that one's other end",
        Reason::IcmpLimit => "it is an ICMP error about a service's connection, and there are too many of them",
        Reason::TooBigAnswered => "it does not fit the link to the next hop, and its sender is told so",
        Reason::TimeAnswered => "its time to live is used up, and its sender is told so",
        Reason::SynCookie => "it ends a handshake that was answered with a SYN cookie",
        Reason::SynAnswered => "it opens a connection, and is answered with a SYN cookie",
        Reason::BadCookie => "it ends a handshake that never began, while SYNs are answered with cookies",
        Reason::ForeignTunnel => "it is a tunnel, but not from a balancer to this server, and no rule allows it",
        Reason::TunnelInner => {
            "what comes out of the tunnel is for no VIP that this server is reached at by one, or is no packet"
        }
        Reason::Truncated => "the frame ends within a header",
        Reason::EtherType => "it is neither IPv4, IPv6 nor ARP",
        Reason::VlanDepth => "it has more than two VLAN tags",
        Reason::IpHeader => "version, header length or total length of IP do not fit",
        Reason::IpOptions => "it has IPv4 options",
        Reason::IpExtension => "its IPv6 extension headers are too many, too deep, or route it elsewhere",
        Reason::FragmentFirst => "it is a first fragment: the ports of those behind it cannot be known",
        Reason::FragmentLater => "it is a later fragment: its ports cannot be known",
        Reason::FragmentOverlap => "it is a later fragment that would lie over the transport header",
        Reason::TcpFlags => "no stack sends these TCP flags together",
        Reason::ReversePath => "its source is not routed back by the interface on which it came",
        Reason::Fenced => "it is for the database, and this server has no lease to be the primary any more",
        Reason::FencedAnswer => {
            "it is an answer of the database, and this server has no lease to be the primary any more"
        }
        Reason::Limit => "it is above a rule's limit",
        Reason::SlowProtocol => "slow protocols, such as a bond's LACP, always reach the stack",
        Reason::TransportHeader => "lengths within TCP, UDP or ICMP do not fit",
        Reason::RuleDeny => "a rule denies it",
        Reason::NoRule => "no rule allows it, and it belongs to no connection of this host",
        Reason::NoFlow => "it is for a service, but neither opens a connection nor belongs to a known one",
        Reason::NoBackend => "the service has no healthy backend",
        Reason::BackendsFull => "every healthy backend of the service has as many connections as it may have",
        Reason::NoNeighbour => "the MAC address of its `direct` backend is not known yet",
        Reason::OffLink => {
            "its `direct` backend lies behind a router, which cannot deliver a packet to the VIP: `tunnel` reaches it there"
        }
        Reason::FlowTable => "the table of connections takes no more",
        Reason::TaggedService => {
            "it is for a service, under two VLAN tags or one of no device here, or leaves by a device that needs two: give its VLAN a device"
        }
        Reason::TimeExceeded => "its time to live is used up",
        Reason::TooBig => "it does not fit the link to the next hop",
        Reason::Unreachable => "there is no route to the next hop",
        Reason::Internal => "tables contradict each other: this is a bug",
    }
}
