//! Firewall rules as user space states them: first match wins, no match is denied.
//!
//! A rule that limits or shadows does not end the walk: what it lets by goes on to the rules behind it.

pub mod compile;
pub mod cover;
mod entry;
pub mod linear;
mod pool;
mod spans;

use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;
use serde::Serialize;

/// One rule of a server's firewall; an empty list in a dimension matches everything there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rule {
    /// Stable name: the label of its counters over reloads.
    pub name: String,
    /// Where the packet comes from.
    pub sources: Places,
    /// Where it goes.
    pub destinations: Places,
    /// Protocol, with its destination ports or ICMP types.
    pub protocol: Protocol,
    /// Source ports; only with TCP and UDP.
    pub source_ports: Vec<RangeInclusive<u16>>,
    /// TCP flags; only with TCP.
    pub flags: Option<FlagMatch>,
    /// Interfaces by which the packet comes.
    pub interfaces: Vec<String>,
    /// What happens to a packet that matches.
    pub action: Action,
    /// Whether what it allows is dropped while this server's lease is over, see [`crate::fence`]; only with [`Action::Allow`].
    pub leased: bool,
    /// Events a second that the kernel tells of packets for which the rule decides; 0: none.
    pub log_per_second: u32,
}

impl Rule {
    /// A rule for every packet; its fields are narrowed with `..Rule::any(name, action)`.
    #[must_use]
    pub fn any(name: &str, action: Action) -> Self {
        Self {
            name: name.to_owned(),
            sources: Places::default(),
            destinations: Places::default(),
            protocol: Protocol::Any,
            source_ports: Vec::new(),
            flags: None,
            interfaces: Vec::new(),
            action,
            leased: false,
            log_per_second: 0,
        }
    }
}

/// Addresses by prefix and by named set; both empty: every address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Places {
    /// Prefixes.
    pub prefixes: Vec<IpNet>,
    /// Names of sets.
    pub sets: Vec<String>,
}

impl Places {
    /// Whether every address is meant.
    #[must_use]
    pub const fn is_any(&self) -> bool {
        self.prefixes.is_empty() && self.sets.is_empty()
    }
}

impl From<Vec<IpNet>> for Places {
    fn from(prefixes: Vec<IpNet>) -> Self {
        Self { prefixes, sets: Vec::new() }
    }
}

/// The protocol dimension of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Every protocol.
    Any,
    /// TCP with these destination ports; empty: all.
    Tcp(Vec<RangeInclusive<u16>>),
    /// UDP with these destination ports; empty: all.
    Udp(Vec<RangeInclusive<u16>>),
    /// ICMP for IPv4 with these types; empty: all.
    Icmp(Vec<u8>),
    /// ICMPv6 with these types; empty: all.
    Icmpv6(Vec<u8>),
    /// Another protocol by its IANA number.
    Number(u8),
}

/// TCP flags of a rule: those in `mask` must be as in `value`. Bits as in the header: FIN 1, SYN 2, RST 4, PSH 8, ACK 16,
/// URG 32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct FlagMatch {
    /// Flags that are looked at.
    pub mask: u8,
    /// Those of them that are set.
    pub value: u8,
}

impl FlagMatch {
    /// Whether a header's flags match.
    #[must_use]
    pub const fn holds(self, flags: u8) -> bool {
        flags & self.mask == self.value
    }
}

/// What a rule does with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// The packet goes to the stack, or to the service's backend.
    Allow,
    /// The packet is dropped.
    Deny,
    /// What is above the limit is dropped; the rest goes on to the next rule.
    Limit(Limit),
    /// Counts and tells what it would drop, everything or what is above a limit, and drops nothing.
    Shadow(Option<Limit>),
}

impl Action {
    /// Whether a packet that matches goes to no later rule.
    #[must_use]
    pub const fn ends(&self) -> bool {
        matches!(self, Self::Allow | Self::Deny)
    }

    /// The action's limit, whether it is enforced or only shadowed.
    #[must_use]
    pub const fn limit(&self) -> Option<&Limit> {
        match self {
            Self::Limit(limit) | Self::Shadow(Some(limit)) => Some(limit),
            _ => None,
        }
    }
}

/// A limit for each source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Limit {
    /// What is limited.
    pub what: Limited,
    /// Sources of one IPv4 prefix of this length share the limit; 32: each address has its own.
    pub per4: u8,
    /// The same for IPv6, 64 or 128 mostly.
    pub per6: u8,
}

/// What a limit limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Limited {
    /// Packets in a time.
    Packets(Rate),
    /// New TCP connections (SYN) in a time.
    Connections(Rate),
    /// TCP connections that are open to this host's own sockets at one time.
    Open(u32),
}

/// A token bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Rate {
    /// So many …
    pub count: u32,
    /// … in so many milliseconds.
    pub period_ms: u32,
    /// So many at once, at least 1.
    pub burst: u32,
}

/// Whether `prefixes` holds `address`; an empty list holds every address.
#[must_use]
pub fn covers(prefixes: &[IpNet], address: IpAddr) -> bool {
    prefixes.is_empty() || prefixes.iter().any(|prefix| prefix.contains(&address))
}
