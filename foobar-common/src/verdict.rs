//! What happens to a packet, and why: one exit, every outcome numbered and counted.

/// Programs that a packet goes on in: by tail call, each with a stack and a budget of the verifier's for itself. The number is
/// the index in `STAGES`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Stage {
    /// The whole way of an IPv4 packet, which [`crate::express`] does not take.
    Path4 = 0,
    /// The same for IPv6.
    Path6 = 1,
    /// The last word over an IPv4 packet of a handshake with a listener of this host: SYN cookies.
    Handshake4 = 2,
    /// The same for IPv6.
    Handshake6 = 3,
    /// An ICMP error of IPv4, which may be about a flow.
    Error4 = 4,
    /// The same for IPv6.
    Error6 = 5,
    /// An IPv4 packet of a service that cannot be sent on.
    Answer4 = 6,
    /// The same for IPv6.
    Answer6 = 7,
    /// The rest of the way of an IPv4 packet whose flow's replies have entries of their own, see [`crate::reply`].
    Apart4 = 8,
    /// The same for IPv6.
    Apart6 = 9,
    /// An IPv4 packet that reaches its backend by a tunnel.
    Encapsulate4 = 10,
    /// The same for IPv6.
    Encapsulate6 = 11,
    /// A tunnel of IPv4 that may end here.
    Decapsulate4 = 12,
    /// The same for IPv6.
    Decapsulate6 = 13,
    /// An IPv4 packet that leaves under another VLAN tag than it came.
    Tag4 = 14,
    /// The same for IPv6.
    Tag6 = 15,
}

impl Stage {
    /// Every one.
    pub const ALL: [Self; 16] = [
        Self::Path4,
        Self::Path6,
        Self::Handshake4,
        Self::Handshake6,
        Self::Error4,
        Self::Error6,
        Self::Answer4,
        Self::Answer6,
        Self::Apart4,
        Self::Apart6,
        Self::Encapsulate4,
        Self::Encapsulate6,
        Self::Decapsulate4,
        Self::Decapsulate6,
        Self::Tag4,
        Self::Tag6,
    ];

    /// Name of its program in the object.
    #[must_use]
    pub const fn program(self) -> &'static str {
        match self {
            Self::Path4 => "path4",
            Self::Path6 => "path6",
            Self::Handshake4 => "handshake4",
            Self::Handshake6 => "handshake6",
            Self::Error4 => "error4",
            Self::Error6 => "error6",
            Self::Answer4 => "answer4",
            Self::Answer6 => "answer6",
            Self::Apart4 => "apart4",
            Self::Apart6 => "apart6",
            Self::Encapsulate4 => "encapsulate4",
            Self::Encapsulate6 => "encapsulate6",
            Self::Decapsulate4 => "decapsulate4",
            Self::Decapsulate6 => "decapsulate6",
            Self::Tag4 => "tag4",
            Self::Tag6 => "tag6",
        }
    }

    /// Whether a program that runs dry goes on in it: then it leaves no trace but `TRACE`.
    #[must_use]
    pub const fn runs_dry(self) -> bool {
        !matches!(self, Self::Handshake4 | Self::Handshake6)
    }
}

/// The outcome of the packet path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a verdict that is dropped is a packet that is not judged"]
pub enum Verdict {
    /// The packet ends here.
    Drop(Reason),
    /// The packet goes up to the kernel's network stack.
    Pass(Reason),
    /// The rules let the packet go up, and it may begin or end a handshake with a listener: SYN cookies have the last word, in
    /// the stage of its family.
    Handshake(Stage),
    /// A stage of its own judges the packet, see [`crate::stage`].
    Stage(Stage),
    /// The packet has become its own answer, and leaves where it came from.
    Answer(Reason),
    /// The packet leaves by this interface.
    Forward {
        /// Why.
        reason: Reason,
        /// Interface index.
        interface: u32,
    },
}

impl Verdict {
    /// Why.
    #[inline(always)]
    #[must_use]
    pub const fn reason(self) -> Reason {
        match self {
            Self::Drop(reason) | Self::Pass(reason) | Self::Answer(reason) | Self::Forward { reason, .. } => reason,
            Self::Handshake(_) => Reason::RuleAllow,
            Self::Stage(_) => Reason::Internal,
        }
    }
}

/// The one of these reasons that has a number.
macro_rules! one_of {
    ($number:expr, $($name:ident),*) => {
        match $number {
            $(numbers::$name => Reason::$name,)*
            _ => Reason::Internal,
        }
    };
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $verdict:literal, $label:literal;)*) => {
        /// Why a packet met its verdict. Numbers index the verdict counters and are never used again for another reason.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum Reason {
            $($(#[$doc])* $name = $number,)*
        }

        #[expect(dead_code, non_upper_case_globals, reason = "called as the reasons are; few are looked for")]
        mod numbers {
            $(pub(super) const $name: u32 = $number;)*
        }

        impl Reason {
            /// Every reason.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The reason of this number.
            #[must_use]
            pub fn numbered(number: u32) -> Option<Self> {
                Self::ALL.iter().copied().find(|reason| *reason as u32 == number)
            }

            /// Label of the metric.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }

            /// A reason of the firewall by its number.
            #[inline(always)]
            #[must_use]
            pub const fn of_firewall(number: u32) -> Self {
                one_of!(number, RuleAllow, RuleDeny, Limit, NoRule, ReversePath, Fenced)
            }

            /// What came of a new flow, by its number.
            #[inline(always)]
            #[must_use]
            pub const fn of_assignment(number: u32) -> Self {
                one_of!(number, NewFlow, NoFlow, NoBackend, BackendsFull, FlowTable)
            }

            /// What came of a question for replies, by its number.
            #[inline(always)]
            #[must_use]
            pub const fn of_replies(number: u32) -> Self {
                one_of!(number, NewFlow, NoFlow, SourcePorts, ReplyTaken)
            }

            /// Whether a rule has decided so; rules tell of their packets themselves.
            #[inline(always)]
            #[must_use]
            pub const fn is_of_a_rule(self) -> bool {
                matches!(self, Self::RuleDeny | Self::Limit)
            }

            /// The verdict that this reason goes with: `pass`, `forward`, `answer` or `drop`.
            #[must_use]
            pub const fn verdict(self) -> &'static str {
                match self { $(Self::$name => $verdict,)* }
            }
        }
    };
}

reasons! {
    /// ARP always reaches the stack.
    Arp = 0, "pass", "arp";
    /// A rule allows it.
    RuleAllow = 1, "pass", "rule";
    /// It belongs to a connection that this host opened.
    OwnConnection = 2, "pass", "own_connection";
    /// A slow protocol, such as a bond's LACP, always reaches the stack.
    SlowProtocol = 4, "pass", "slow_protocol";
    /// Rewritten, and left to the stack to forward: the neighbour is not resolved yet.
    Neighbour = 3, "pass", "neighbour";

    /// It ends a handshake that a SYN cookie began.
    SynCookie = 5, "pass", "syn_cookie";

    /// An ICMP error about a flow, to the flow's other end.
    IcmpError = 23, "forward", "icmp_error";

    /// First packet of a flow to a service.
    NewFlow = 16, "forward", "new_flow";
    /// Packet of a known flow to its backend.
    Flow = 17, "forward", "flow";
    /// Packet of a known flow back to its client.
    FlowReply = 18, "forward", "flow_reply";

    /// A SYN, answered with a cookie.
    SynAnswered = 24, "answer", "syn_cookie";
    /// Its sender is told the longest packet that fits the link to its next hop.
    TooBigAnswered = 25, "answer", "too_big";
    /// Its sender is told that time to live or hop limit is used up.
    TimeAnswered = 30, "answer", "time_exceeded";

    /// A tunnel that does not come from a balancer to this server, and that no rule allows.
    ForeignTunnel = 8, "drop", "foreign_tunnel";
    /// What comes out of a tunnel is for no VIP that this server is reached at by one, or is no packet.
    TunnelInner = 9, "drop", "tunnel_inner";

    /// The frame ends within a header.
    Truncated = 32, "drop", "truncated";
    /// Neither IPv4, IPv6 nor ARP.
    EtherType = 33, "drop", "ethertype";
    /// More VLAN tags than two.
    VlanDepth = 34, "drop", "vlan_depth";
    /// Version, header length or total length of IP do not fit.
    IpHeader = 35, "drop", "ip_header";
    /// IPv4 options.
    IpOptions = 36, "drop", "ip_options";
    /// IPv6 extension headers that are too many, too deep, or route the packet elsewhere.
    IpExtension = 37, "drop", "ip_extension";
    /// A first fragment.
    FragmentFirst = 44, "drop", "fragment_first";
    /// Lengths within TCP, UDP or ICMP do not fit.
    TransportHeader = 39, "drop", "transport_header";
    /// A later fragment.
    FragmentLater = 40, "drop", "fragment_later";
    /// A later fragment that would lie over the transport header.
    FragmentOverlap = 41, "drop", "fragment_overlap";
    /// TCP flags in a combination that no stack sends.
    TcpFlags = 42, "drop", "tcp_flags";
    /// Its source is not routed back by the interface on which it came.
    ReversePath = 43, "drop", "reverse_path";

    /// A rule denies it.
    RuleDeny = 48, "drop", "rule";
    /// No rule allows it.
    NoRule = 49, "drop", "no_rule";
    /// It is above a rule's limit.
    Limit = 50, "drop", "limit";
    /// A rule would allow it, but this server's lease is over.
    Fenced = 45, "drop", "fenced";
    /// An answer of the database, but this server's lease is over; dropped where it leaves.
    FencedAnswer = 46, "drop", "fenced_answer";
    /// An ICMP error about a service's flow, above what is delivered in a second.
    IcmpLimit = 10, "drop", "icmp_limit";

    /// It ends a handshake that never began, while SYNs are answered with cookies.
    BadCookie = 55, "drop", "bad_cookie";

    /// No port of the service's source addresses is free for a new flow to its backend.
    SourcePorts = 26, "drop", "source_ports";
    /// The client talks from this port to every backend already, by another VIP.
    ReplyTaken = 27, "drop", "reply_taken";
    /// Every healthy backend of the service has as many connections as it may have.
    BackendsFull = 54, "drop", "backends_full";
    /// A backend that is reached by its MAC address alone has no neighbour entry yet.
    NoNeighbour = 53, "drop", "no_neighbour";
    /// A backend that is reached by its MAC address alone lies behind a router.
    OffLink = 52, "drop", "off_link";
    /// Not the start of a connection, and no flow known.
    NoFlow = 56, "drop", "no_flow";
    /// The service has no healthy backend.
    NoBackend = 57, "drop", "no_backend";
    /// The flow table refused the entry.
    FlowTable = 58, "drop", "flow_table";
    /// A service's packet under the tag of a VLAN that has no device here, or one that would need two tags.
    TaggedService = 59, "drop", "tagged_service";
    /// Time to live or hop limit is used up.
    TimeExceeded = 60, "drop", "time_exceeded";
    /// It does not fit the link to its next hop.
    TooBig = 61, "drop", "too_big";
    /// No route to its next hop.
    Unreachable = 62, "drop", "unreachable";
    /// Tables contradict each other; never seen in a consistent plan.
    Internal = 63, "drop", "internal";
}

/// Slots of the verdict counters.
pub const REASONS: u32 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_labels_are_unique_and_in_range() {
        for (i, a) in Reason::ALL.iter().enumerate() {
            assert!((*a as u32) < REASONS);
            for b in &Reason::ALL[i + 1..] {
                assert_ne!(*a as u32, *b as u32);
                assert_ne!((a.verdict(), a.label()), (b.verdict(), b.label()));
            }
        }
    }
}
