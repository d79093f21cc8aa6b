//! Metrics of the packet path: what the kernel's maps hold at the time of a scrape.
//!
//! The numbers are the maps' own, never sums kept in user space: they go on over the agent's restarts.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::{encode, names};

/// One reading of the kernel's maps.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Datapath {
    /// Packets by verdict and reason.
    pub verdicts: Vec<VerdictCount>,
    /// Packets by rule.
    pub rules: Vec<RuleCount>,
    /// Traffic by service.
    pub services: Vec<ServiceCount>,
    /// Traffic by backend.
    pub backends: Vec<BackendCount>,
    /// Packets that were put into tunnels, and taken out of them.
    pub tunnels: Vec<TunnelCount>,
    /// Flow tables.
    pub flows: Vec<FlowTable>,
    /// Interfaces with the program.
    pub interfaces: Vec<Interface>,
    /// Number of the rule set in force.
    pub generation: u64,
    /// Whether SYNs are answered with cookies.
    pub answering_syns: bool,
    /// SYN floods since the agent's start.
    pub floods: u64,
    /// Seconds until the fence of a database server goes up; 0: it is up. `None`: there is none.
    pub fence_seconds: Option<f64>,
    /// Events for which the ring had no room.
    pub events_lost: u64,
}

/// Packets of one verdict and reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerdictCount {
    /// `pass`, `drop`, `tx`, `redirect`, …
    pub verdict: &'static str,
    /// The reason's name: a drop reason's own.
    pub reason: &'static str,
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Packets that one rule decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleCount {
    /// The rule's name; counts of the same name are summed.
    pub rule: String,
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Packets of tunnels in one direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelCount {
    /// `sent`: put into one; `received`: taken out of one.
    pub way: &'static str,
    /// Packets.
    pub packets: u64,
    /// Bytes of the frames as they came.
    pub bytes: u64,
}

/// Traffic of one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceCount {
    /// The service's name; counts of the same name (one for each VIP) are summed.
    pub service: String,
    /// New connections.
    pub connections: u64,
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Traffic of one backend of one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendCount {
    /// The service's name.
    pub service: String,
    /// The backend's server name; counts of the same pair are summed.
    pub backend: String,
    /// Flows from the wire and connections of local sockets that it has now.
    pub flows: u64,
    /// Connections that it has not taken.
    pub connect_failures: u64,
    /// New connections.
    pub connections: u64,
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Use of one flow table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowTable {
    /// `established`, `half_open` or `datagrams`.
    pub table: &'static str,
    /// Entries in use, of IPv4 and of IPv6.
    pub used: [u64; 2],
    /// Entries it can hold of each family.
    pub limit: u64,
    /// Entries that were over, and taken out since the agent's start.
    pub removed: u64,
    /// Entries for replies to its flows, of IPv4 and of IPv6.
    pub replies: [u64; 2],
    /// How many of these there may be, of each family.
    pub replies_limit: u64,
}

impl FlowTable {
    const FAMILIES: [&str; 2] = ["ipv4", "ipv6"];

    /// Labels and values of a gauge of each family.
    fn families(&self, values: [u64; 2]) -> impl Iterator<Item = ([&str; 2], u64)> {
        Self::FAMILIES.into_iter().zip(values).map(|(family, value)| ([self.table, family], value))
    }
}

/// An interface that carries the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// How the program is attached.
    pub mode: XdpMode,
}

/// How a program is attached to an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver.
    Native,
    /// After the kernel has built its own packet: slower.
    Generic,
}

impl XdpMode {
    const ALL: [Self; 2] = [Self::Native, Self::Generic];

    /// Value of the label `mode`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}

impl Collector for Datapath {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        let of = |v: &VerdictCount| [v.verdict, v.reason];
        encode::counter(encoder, &names::VERDICT_PACKETS, self.verdicts.iter().map(|v| (of(v), v.packets)))?;
        encode::counter(encoder, &names::VERDICT_BYTES, self.verdicts.iter().map(|v| (of(v), v.bytes)))?;
        encode::counter(encoder, &names::RULE_PACKETS, self.rules.iter().map(|r| ([r.rule.as_str()], r.packets)))?;
        encode::counter(encoder, &names::RULE_BYTES, self.rules.iter().map(|r| ([r.rule.as_str()], r.bytes)))?;
        encode::counter(encoder, &names::TUNNEL_PACKETS, self.tunnels.iter().map(|t| ([t.way], t.packets)))?;
        encode::counter(encoder, &names::TUNNEL_BYTES, self.tunnels.iter().map(|t| ([t.way], t.bytes)))?;
        self.encode_services(encoder)?;
        self.encode_backends(encoder)?;
        encode::gauge(encoder, &names::FLOWS, self.flows.iter().flat_map(|f| f.families(f.used)))?;
        encode::gauge(encoder, &names::FLOWS_LIMIT, self.flows.iter().flat_map(|f| f.families([f.limit; 2])))?;
        encode::gauge(encoder, &names::FLOW_REPLIES, self.flows.iter().flat_map(|f| f.families(f.replies)))?;
        let limits = self.flows.iter().flat_map(|f| f.families([f.replies_limit; 2]));
        encode::gauge(encoder, &names::FLOW_REPLIES_LIMIT, limits)?;
        encode::counter(encoder, &names::FLOWS_ENDED, self.flows.iter().map(|f| ([f.table], f.removed)))?;
        let modes = self.interfaces.iter().flat_map(|interface| {
            let of = |mode: XdpMode| ([interface.name.as_str(), mode.label()], u64::from(mode == interface.mode));
            XdpMode::ALL.map(of)
        });
        encode::gauge(encoder, &names::XDP_MODE, modes)?;
        encode::gauge(encoder, &names::GENERATION, [([], self.generation)])?;
        encode::gauge(encoder, &names::SYN_COOKIES, [([], u64::from(self.answering_syns))])?;
        encode::counter(encoder, &names::SYN_FLOODS, [([], self.floods)])?;
        let open = self.fence_seconds.map(|seconds| ([], u64::from(seconds > 0.0)));
        encode::gauge(encoder, &names::FENCE_OPEN, open)?;
        encode::gauge(encoder, &names::FENCE_SECONDS, self.fence_seconds.map(|seconds| ([], seconds)))?;
        encode::counter(encoder, &names::EVENTS_LOST, [([], self.events_lost)])
    }
}

impl Datapath {
    fn encode_services(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let services = &self.services;
        encode::counter(
            encoder,
            &names::SERVICE_CONNECTIONS,
            services.iter().map(|s| ([s.service.as_str()], s.connections)),
        )?;
        encode::counter(encoder, &names::SERVICE_PACKETS, services.iter().map(|s| ([s.service.as_str()], s.packets)))?;
        encode::counter(encoder, &names::SERVICE_BYTES, services.iter().map(|s| ([s.service.as_str()], s.bytes)))
    }

    fn encode_backends(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let backends = &self.backends;
        encode::counter(encoder, &names::BACKEND_CONNECTIONS, backends.iter().map(|b| (b.labels(), b.connections)))?;
        encode::gauge(encoder, &names::BACKEND_FLOWS, backends.iter().map(|b| (b.labels(), b.flows)))?;
        let failures = backends.iter().map(|b| (b.labels(), b.connect_failures));
        encode::counter(encoder, &names::BACKEND_CONNECT_FAILURES, failures)?;
        encode::counter(encoder, &names::BACKEND_PACKETS, backends.iter().map(|b| (b.labels(), b.packets)))?;
        encode::counter(encoder, &names::BACKEND_BYTES, backends.iter().map(|b| (b.labels(), b.bytes)))
    }
}

impl BackendCount {
    fn labels(&self) -> [&str; 2] {
        [&self.service, &self.backend]
    }
}
