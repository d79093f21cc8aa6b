//! Values of the maps that kernel and user space share: fixed layout, no implicit padding, integers only.

use crate::address::Be16;

/// Version of everything in this file and of the keys in `address`; pinned maps of another version are refused.
pub const ABI_VERSION: u32 = 1;

/// Rules of one server at the most.
pub const MAX_RULES: usize = 1024;
/// Words of a rule set.
pub const RULE_WORDS: usize = MAX_RULES / 64;
/// Service slots; a slot is one service in one address family.
pub const MAX_SERVICES: u32 = 256;
/// Members of one service at the most.
pub const MAX_MEMBERS: u32 = 128;
/// Backend slots; a slot is one backend of one service slot.
pub const MAX_BACKENDS: u32 = 4096;
/// Flows of each family at the most; the least recently used gives way.
pub const MAX_FLOWS: u32 = 262_144;

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

/// A set of rules as a bitmap; bit `n % 64` of word `n / 64` is rule `n`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct RuleSet {
    /// Bit `w` is set when word `w` is not zero: 1,000 rules cost what one costs.
    pub summary: u64,
    /// The bitmap.
    pub words: [u64; RULE_WORDS],
}

/// What a matching rule does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct RuleEntry {
    /// [`RULE_ALLOW`] or [`RULE_DENY`].
    pub action: u32,
    /// Slot of the rule's counter, which its name keeps over reloads.
    pub counter: u32,
}

/// [`RuleEntry::action`]: the packet is dropped.
pub const RULE_DENY: u32 = 0;
/// [`RuleEntry::action`]: the packet is accepted.
pub const RULE_ALLOW: u32 = 1;

/// A service: where its ring of healthy members lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Service {
    /// Slot of its cursor and counters.
    pub slot: u32,
    /// Index of its first member in the ring table.
    pub ring: u32,
    /// Number of members; 0: nobody is healthy.
    pub members: u32,
    /// [`SERVICE_WIRE`] and [`SERVICE_LOCAL`].
    pub flags: u32,
}

/// [`Service::flags`]: packets from the wire are balanced by NAT.
pub const SERVICE_WIRE: u32 = 1;
/// [`Service::flags`]: local sockets are balanced at `connect()`.
pub const SERVICE_LOCAL: u32 = 2;

/// One backend of one service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Backend {
    /// Address; IPv4 in the first word.
    pub address: [u32; 4],
    /// Port.
    pub port: Be16,
    /// [`BACKEND_ABSENT`], [`BACKEND_KEPT`] or [`BACKEND_MEMBER`].
    pub state: u16,
    /// Slot of its service.
    pub service: u32,
}

/// [`Backend::state`]: the slot is free; flows to it are over.
pub const BACKEND_ABSENT: u16 = 0;
/// [`Backend::state`]: no member; established connections stay with it, new ones go elsewhere.
pub const BACKEND_KEPT: u16 = 1;
/// [`Backend::state`]: a member of its service.
pub const BACKEND_MEMBER: u16 = 2;

/// The VIP behind which a backend's endpoint answers: the way of replies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Endpoint {
    /// VIP; IPv4 in the first word.
    pub vip: [u32; 4],
    /// Port of the VIP.
    pub port: Be16,
    /// Always zero.
    pub _pad: u16,
    /// Slot of the backend.
    pub backend: u32,
}

/// An entry of the flow table, keyed by the client's tuple towards the VIP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Flow {
    /// Slot of the backend.
    pub backend: u32,
    /// Generation of rules that allowed it; another generation judges again.
    pub generation: u32,
    /// [`FLOW_CLIENT_FIN`], [`FLOW_BACKEND_FIN`], [`FLOW_RESET`].
    pub state: u32,
    /// Counter slot of the rule that allowed it.
    pub rule: u32,
    /// Coarse monotonic time of its last packet, in nanoseconds.
    pub last_seen_ns: u64,
}

/// [`Flow::state`]: the client has sent FIN.
pub const FLOW_CLIENT_FIN: u32 = 1;
/// [`Flow::state`]: the backend has sent FIN.
pub const FLOW_BACKEND_FIN: u32 = 2;
/// [`Flow::state`]: either side has sent RST.
pub const FLOW_RESET: u32 = 4;

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

const _: () = assert!(size_of::<SynSettings>() == 16);
const _: () = assert!(size_of::<Counter>() == 16 && size_of::<Traffic>() == 24);
const _: () = assert!(size_of::<RuleSet>() == 136 && size_of::<RuleEntry>() == 8);
const _: () = assert!(size_of::<Service>() == 16 && size_of::<Backend>() == 24);
const _: () = assert!(size_of::<Endpoint>() == 24 && size_of::<Flow>() == 24);
