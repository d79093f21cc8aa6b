//! Values of the maps that kernel and user space share: fixed layout, integers only, no implicit padding but at the end of `Flow<4>`.

use crate::address::{Address, Be16};

/// Version of everything in this file and of the keys in `address`; pinned maps of another version are refused.
pub const ABI_VERSION: u32 = 7;

/// Rules of one server at the most.
pub const MAX_RULES: usize = 1024;
/// Words of a rule set.
pub const RULE_WORDS: usize = MAX_RULES / 64;
/// Service slots; a slot is one service in one address family.
pub const MAX_SERVICES: u32 = 256;
/// Members of one service at the most.
pub const MAX_MEMBERS: u32 = 128;
/// Places of a service's ring at the most: a member has as many as its weight or its share of a hash asks for.
pub const RING_PLACES: usize = 4096;
/// Clients that stay with their backend, of all services; the least recently used gives way.
pub const MAX_STUCK: u32 = 65_536;
/// What local sockets have asked for, and whom they were given, that is remembered of each family at the most.
pub const MAX_PEERS: u32 = 65_536;
/// Backend slots; a slot is one backend of one service slot.
pub const MAX_BACKENDS: u32 = 4096;
/// Established flows of each family at the most, where the site file says nothing; the least recently used gives way.
pub const DEFAULT_FLOWS: u32 = 262_144;
/// Half-open flows of each family at the most, and UDP flows; the least recently used gives way.
pub const MAX_HALF_OPEN: u32 = 65_536;
/// Entries for replies of established flows, of each family at the most: as many as there can be flows.
pub const MAX_REPLIES: u32 = DEFAULT_FLOWS;
/// Source addresses of one service in one family at the most.
pub const MAX_SOURCES: u32 = 16;
/// Membership classes of all named sets at the most; class 0 is in no set.
pub const MAX_CLASSES: usize = 16_384;
/// Sources that limits know at the most, of all rules; the least recently used gives way.
pub const MAX_BUCKETS: u32 = 131_072;
/// Counter slots of rules: names keep their slot, so there are more than rules.
pub const RULE_COUNTERS: u32 = 4 * MAX_RULES as u32;
/// Token buckets of events: one for each counter slot of a rule, then one for each reason.
pub const LOG_BUCKETS: u32 = RULE_COUNTERS + crate::verdict::REASONS;
/// Bytes of the ring of events.
pub const EVENT_BYTES: u32 = 1 << 18;

/// Packets and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Counter {
    /// Packets.
    pub packets: u64,
    /// Bytes of whole frames.
    pub bytes: u64,
}

/// Connections, packets and bytes of a service or a backend, both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Traffic {
    /// Connections (TCP) or flows (UDP) given to it.
    pub connections: u64,
    /// Packets.
    pub packets: u64,
    /// Bytes of whole frames.
    pub bytes: u64,
}

/// Connections that a backend has not taken: refused, unreachable, or without an answer for a while.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ConnectFailures {
    /// All of them.
    pub total: u64,
    /// Those since it has last taken one.
    pub row: u64,
}

/// A membership class: which named sets hold an address, as long as it says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Membership {
    /// Coarse monotonic time from which on `after` holds, in nanoseconds; 0: never. Entries of a set expire so even when no
    /// agent is alive.
    pub expires_ns: u64,
    /// The class from then on.
    pub after: u32,
    /// Always zero.
    pub _pad: u32,
}

/// What a limit counts for: a rule and a source; and whom a service knows again: its slot in place of the rule's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct BucketKey {
    /// Counter slot of the rule.
    pub rule: u32,
    /// Words of an address of the source's family: 1 or 4.
    pub family: u32,
    /// Source, its bits beyond the rule's prefix length cleared; IPv4 in the first half of the first word. Words of 64 bits:
    /// the verifier refuses the unaligned stores that narrower ones are merged into.
    pub source: [u64; 2],
}

impl BucketKey {
    /// Of a rule's counter slot, and a source of so many words whose other bits are cleared.
    #[inline(always)]
    #[must_use]
    pub const fn new(rule: u32, family: u32, [a, b, c, d]: [u32; 4]) -> Self {
        Self { rule, family, source: [a as u64 | (b as u64) << 32, c as u64 | (d as u64) << 32] }
    }
}

/// [`BucketKey::rule`] of the ICMP errors that a service's flows are given; the service's slot is in the source's place.
pub const BUCKET_ERRORS: u32 = RULE_COUNTERS;
/// [`BucketKey::rule`] of the ICMP errors that the balancer answers with, see [`BUCKET_ERRORS`].
pub const BUCKET_ANSWERS: u32 = RULE_COUNTERS + 1;

/// What a rule, or the packet path itself, tells of one packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "std", derive(zerocopy::FromBytes, zerocopy::KnownLayout, zerocopy::Immutable))]
#[repr(C)]
pub struct Event {
    /// Coarse monotonic time in nanoseconds.
    pub time_ns: u64,
    /// Counter slot of the rule; [`NO_RULE_SLOT`]: no rule decided.
    pub rule: u32,
    /// [`crate::verdict::Reason`] by number.
    pub reason: u32,
    /// Interface index.
    pub interface: u32,
    /// Length of the frame in bytes.
    pub length: u32,
    /// Source address; IPv4 in the first word.
    pub source: [u32; 4],
    /// Destination address.
    pub destination: [u32; 4],
    /// Source port.
    pub source_port: Be16,
    /// Destination port.
    pub destination_port: Be16,
    /// IANA protocol number.
    pub protocol: u8,
    /// 4 or 6; 0: the headers could not be read.
    pub family: u8,
    /// TCP flags, or type of ICMP.
    pub detail: u8,
    /// 1: the rule is a shadow, and the packet went on.
    pub shadow: u8,
}

/// What the packet path would do with a packet; written by a program that was loaded to run dry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Trace {
    /// [`crate::verdict::Reason`] by number.
    pub reason: u32,
    /// Rules that would count the packet.
    pub steps: u32,
    /// Their counter slots, in order.
    pub rules: [u32; MAX_STEPS],
    /// Slot of the service; [`NO_RULE_SLOT`]: none.
    pub service: u32,
    /// Slot of the backend; [`NO_RULE_SLOT`]: none.
    pub backend: u32,
}

/// Steps of a [`Trace`] at the most.
pub const MAX_STEPS: usize = 64;

/// [`Event::rule`]: no rule decided.
pub const NO_RULE_SLOT: u32 = u32::MAX;

/// A service: where its ring of healthy members lies, and how one of them is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Service {
    /// Slot of its cursor and counters.
    pub slot: u32,
    /// Index of its ring.
    pub ring: u32,
    /// Places of the ring in use; 0: nobody is healthy.
    pub places: u32,
    /// `SERVICE_*`.
    pub flags: u32,
    /// Seconds without a new flow for which a client stays with its backend; 0: it does not.
    pub affinity_s: u32,
    /// Addresses of the balancer's own from which backends see its flows, at its ring's index; 0: they see the clients'.
    pub sources: u32,
}

/// [`Service::flags`]: packets from the wire are balanced by NAT.
pub const SERVICE_WIRE: u32 = 1;
/// [`Service::flags`]: local sockets are balanced at `connect()`.
pub const SERVICE_LOCAL: u32 = 2;
/// [`Service::flags`]: a flow from the wire goes where its client's address and port point to in the ring (Maglev).
pub const SERVICE_HASH: u32 = 4;
/// [`Service::flags`]: a flow goes to the member with the fewest flows for its weight; the ring names each member once.
pub const SERVICE_LEAST: u32 = 8;

/// [`Service::flags`]: replies find their flow by an entry of its own, see [`crate::reply`].
pub const SERVICE_REPLIES: u32 = 16;

/// Backend slots by place.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "std", derive(zerocopy::FromZeros, zerocopy::IntoBytes, zerocopy::Immutable))]
#[repr(C)]
pub struct Ring {
    /// Only the first [`Service::places`] are in use.
    pub places: [u16; RING_PLACES],
}

/// The backend that a client of a service stays with; keyed by [`BucketKey`] of the service's slot and the client's address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Stuck {
    /// Slot of the backend.
    pub backend: u32,
    /// Always zero.
    pub _pad: u32,
    /// Coarse monotonic time of the client's last new flow, in nanoseconds.
    pub last_seen_ns: u64,
}

/// One backend of one service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Backend {
    /// Address; IPv4 in the first word.
    pub address: [u32; 4],
    /// Port.
    pub port: Be16,
    /// [`BACKEND_ABSENT`], [`BACKEND_KEPT`] or [`BACKEND_MEMBER`].
    pub state: u8,
    /// How packets reach it: [`FORWARD_NAT`], [`FORWARD_DIRECT`] or [`FORWARD_TUNNEL`].
    pub forward: u8,
    /// Slot of its service.
    pub service: u32,
    /// Flows at the most; 0: as many as come.
    pub limit: u32,
    /// What it takes beside the others; never 0 for a member.
    pub weight: u32,
}

/// [`Backend::state`]: the slot is free; flows to it are over.
pub const BACKEND_ABSENT: u8 = 0;
/// [`Backend::state`]: no member; established connections stay with it, new ones go elsewhere.
pub const BACKEND_KEPT: u8 = 1;
/// [`Backend::state`]: a member of its service.
pub const BACKEND_MEMBER: u8 = 2;

/// [`Backend::forward`]: by its own address and port; its answers pass the balancer, which gives them the VIP back.
pub const FORWARD_NAT: u8 = 0;
/// [`Backend::forward`]: by its MAC address alone; it has the VIP itself, and answers the client without the balancer.
pub const FORWARD_DIRECT: u8 = 1;
/// [`Backend::forward`]: in a packet to its own address, out of which its agent's program takes it; for the rest as
/// [`FORWARD_DIRECT`].
pub const FORWARD_TUNNEL: u8 = 2;

/// Place in the counters of tunnels: packets that were put into one here.
pub const TUNNEL_SENT: u32 = 0;
/// The same: packets that were taken out of one here.
pub const TUNNEL_RECEIVED: u32 = 1;
/// Counters of tunnels.
pub const TUNNEL_WAYS: u32 = 2;

/// The VIP behind which a backend's endpoint answers: the way of replies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Endpoint {
    /// VIP; IPv4 in the first word.
    pub vip: [u32; 4],
    /// Port of the VIP.
    pub port: Be16,
    /// [`ENDPOINT_REPLIES`].
    pub flags: u16,
    /// Slot of the backend.
    pub backend: u32,
}

/// [`Endpoint::flags`]: it stands behind more than this VIP, or packets reach it from addresses of the balancer's own: replies
/// are looked up before.
pub const ENDPOINT_REPLIES: u16 = 1;

/// An entry of the flow table, keyed by the client's tuple towards the VIP. 32 bytes for IPv4; 48 for IPv6, of which the last four
/// are of nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Flow<const W: usize> {
    /// Slot of the backend.
    pub backend: u32,
    /// Generation of rules that allowed it; another generation judges again. 0: each packet is judged.
    pub generation: u32,
    /// [`FLOW_CLIENT_FIN`], [`FLOW_BACKEND_FIN`], [`FLOW_RESET`], [`FLOW_ANSWERED`], [`FLOW_REPLIES`].
    pub state: u16,
    /// Counter slot of the rule that allowed it.
    pub rule: u16,
    /// With [`FLOW_ANSWERED`]: the number that the client has to acknowledge, in host byte order.
    pub answer: u32,
    /// Coarse monotonic time of its last packet, in nanoseconds.
    pub last_seen_ns: u64,
    /// With a source port: the address from which the backend sees it. An address and no slot: a peer that takes the flow over
    /// can use it.
    pub source: Address<W>,
    /// The port from which the backend sees it; 0: the client's own address and port.
    pub source_port: Be16,
    /// Always zero.
    pub _pad: u16,
}

impl<const W: usize> Default for Flow<W> {
    #[inline(always)]
    fn default() -> Self {
        Self {
            backend: 0,
            generation: 0,
            state: 0,
            rule: 0,
            answer: 0,
            last_seen_ns: 0,
            source: Address([0; W]),
            source_port: Be16::new(0),
            _pad: 0,
        }
    }
}

/// [`Flow::state`]: the client has sent FIN.
pub const FLOW_CLIENT_FIN: u16 = 1;
/// [`Flow::state`]: the backend has sent FIN.
pub const FLOW_BACKEND_FIN: u16 = 2;
/// [`Flow::state`]: either side has sent RST.
pub const FLOW_RESET: u16 = 4;
/// [`Flow::state`], half open: the backend has answered the SYN.
pub const FLOW_ANSWERED: u16 = 8;

/// [`Flow::state`]: its replies find it by an entry of its own.
pub const FLOW_REPLIES: u16 = 16;

/// Which of the flow tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FlowTable {
    /// TCP connections whose client has acknowledged the backend's answer.
    Established,
    /// TCP connections on their way there: a flood of SYNs drives out only these.
    HalfOpen,
    /// UDP.
    Datagrams,
}

/// How SYN cookies are answered; written by the agent alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SynSettings {
    /// 1: SYNs to listeners are answered with cookies, and the stack takes their ACKs.
    pub answer: u32,
    /// Half-open connections of one listener above which a flood is seen; 0: never.
    pub half_open: u32,
    /// [`SYN_TIMESTAMPS`], [`SYN_SACK`], [`SYN_SCALE`] and [`SYN_ECN`]: what the stack would agree to.
    pub flags: u32,
    /// Window scale that the stack will use.
    pub window_scale: u32,
}

/// [`SynSettings::flags`]: timestamps are on, and without secret offsets.
pub const SYN_TIMESTAMPS: u32 = 1;
/// [`SynSettings::flags`]: selective acknowledgements.
pub const SYN_SACK: u32 = 2;
/// [`SynSettings::flags`]: window scaling.
pub const SYN_SCALE: u32 = 4;
/// [`SynSettings::flags`]: explicit congestion notification.
pub const SYN_ECN: u32 = 8;

/// What the fence holds back where it leaves, see [`crate::fence`]; written by the agent alone. Of all zero nothing is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Fenced {
    /// Port of the database; 0: there is no fence.
    pub port: Be16,
    /// Always zero.
    pub _pad: u16,
    /// Addresses in use.
    pub count: u32,
    /// Who is answered at any time: the other database servers, and this one. Addresses of IPv6, and those of IPv4 mapped into it.
    pub free: [[u32; 4]; MAX_FREE],
}

/// Addresses that the fence knows at the most, in both families together.
pub const MAX_FREE: usize = 32;

#[cfg(feature = "std")]
impl Fenced {
    /// Of the database at a port; `None`: there are more addresses than [`MAX_FREE`].
    #[must_use]
    pub fn new(port: u16, free: &[std::net::IpAddr]) -> Option<Self> {
        let mut fenced = Self { port: Be16::new(port), count: free.len() as u32, ..Self::default() };
        let places = fenced.free.get_mut(..free.len())?;
        places.iter_mut().zip(free).for_each(|(place, address)| *place = crate::generation::mapped(*address));
        Some(fenced)
    }
}

const _: () = assert!(size_of::<Fenced>() == 8 + 16 * MAX_FREE);
const _: () = assert!(size_of::<SynSettings>() == 16);
const _: () = assert!(size_of::<Counter>() == 16 && size_of::<Traffic>() == 24);
const _: () = assert!(size_of::<Membership>() == 16 && size_of::<BucketKey>() == 24 && size_of::<Event>() == 64);
const _: () = assert!(size_of::<Service>() == 24 && size_of::<Backend>() == 32 && size_of::<Stuck>() == 16);
const _: () = assert!(size_of::<ConnectFailures>() == 16);
const _: () = assert!(size_of::<Endpoint>() == 24 && size_of::<Flow<1>>() == 32 && size_of::<Flow<4>>() == 48);
