//! The rules and services that the packet tables run on: one world for all cases, so that programs are loaded once.

use foobar_common::abi::{
    BACKEND_MEMBER, Backend, ENDPOINT_REPLIES, FORWARD_DIRECT, FORWARD_NAT, FORWARD_TUNNEL, SERVICE_HASH,
    SERVICE_LEAST, SERVICE_LOCAL, SERVICE_REPLIES, SERVICE_WIRE, Service,
};
use foobar_common::generation::{Tunnels, USES_BALANCER, USES_REVERSE_PATH};
use foobar_common::rules::{Action, Protocol, Rule};

use super::everything;
use super::hosts::{
    EDGE, FAR_NARROW, FAR1, FAR2, Host, LB1, LB2, NARROW, NOWHERE, SILENT, SOURCE, SOURCE2, VIP2, WEB1, WEB2, WEB3,
    WEB4,
};

/// A service of the world, at [`super::hosts::VIP`] in both families.
#[derive(Clone, Copy, Debug)]
pub struct Served {
    /// Name.
    pub name: &'static str,
    /// Port of the VIP.
    pub port: u16,
    /// Another port of it; 0: none.
    pub also: u16,
    /// IANA protocol number.
    pub protocol: u8,
    /// Hooks.
    pub flags: u32,
    /// Members, all of them at [`Served::backend_port`].
    pub members: &'static [Host],
    /// Port of the backends.
    pub backend_port: u16,
    /// Seconds for which a client stays with its backend; 0: it does not.
    pub affinity_s: u32,
    /// Flows of one backend at the most; 0: as many as come.
    pub limit: u32,
    /// How packets reach the members.
    pub forward: u8,
    /// From where members see its flows; none: from the clients.
    pub sources: &'static [Host],
    /// Places of each member in the ring, or its weight where the fewest flows decide.
    pub weights: [u16; 3],
}

impl Served {
    /// What the kernel knows of it, but for its ring.
    pub fn kernel(&self, slot: u32) -> Service {
        let (ring, places) = (2 * slot, self.ring(slot).len() as u32);
        let sources = self.sources.len() as u32;
        Service { slot, ring, places, flags: self.flags, affinity_s: self.affinity_s, sources }
    }

    /// Its ports.
    pub fn ports(&self) -> impl Iterator<Item = u16> {
        [self.port, self.also].into_iter().filter(|port| *port != 0)
    }

    /// Flags of its members' endpoints.
    pub const fn endpoint_flags(&self) -> u16 {
        if self.flags & SERVICE_REPLIES == 0 { 0 } else { ENDPOINT_REPLIES }
    }

    /// Whether replies pass the balancer.
    pub const fn has_way_back(&self) -> bool {
        self.flags & SERVICE_WIRE != 0 && self.forward == FORWARD_NAT
    }

    /// Slots of its members by place: the first as often as its weight says, then the next.
    pub fn ring(&self, slot: u32) -> Vec<u16> {
        let least = self.flags & SERVICE_LEAST != 0;
        let places = self.weights.iter().map(|weight| if least { 1 } else { usize::from(*weight) });
        let slots = (0..self.members.len()).map(|member| (MEMBERS * slot) as u16 + member as u16);
        slots.zip(places).flat_map(|(slot, places)| vec![slot; places]).collect()
    }

    /// A member, but for its endpoint.
    pub fn backend(&self, slot: u32) -> Backend {
        let (limit, forward) = (self.limit, self.forward);
        Backend { state: BACKEND_MEMBER, service: slot, limit, forward, weight: 1, ..Backend::default() }
    }
}

const fn served(name: &'static str, port: u16, members: &'static [Host]) -> Served {
    let flags = SERVICE_WIRE | SERVICE_LOCAL;
    let (backend_port, weights, forward) = (port + 1000, [1; 3], FORWARD_NAT);
    let (also, protocol, affinity_s, limit, sources) = (0, 6, 0, 0, &[]);
    Served { name, port, also, protocol, flags, members, backend_port, affinity_s, limit, forward, sources, weights }
}

/// A service whose replies have entries of their own.
const fn told_apart(name: &'static str, port: u16, members: &'static [Host]) -> Served {
    Served { flags: SERVICE_WIRE | SERVICE_REPLIES, ..served(name, port, members) }
}

/// The services; the slot in a family is `2 * index + family`.
pub const SERVICES: [Served; 30] = [
    served("www", 8080, &[WEB1, WEB2]),
    Served { protocol: 17, ..served("echo", 7007, &[WEB1, WEB2]) },
    served("three", 8082, &[WEB1, WEB2, WEB3]),
    served("empty", 8083, &[]),
    served("nowhere", 8084, &[NOWHERE]),
    served("silent", 8085, &[SILENT]),
    served("narrow", 8086, &[NARROW]),
    served("edge", 8087, &[EDGE]),
    Served { flags: SERVICE_LOCAL, ..served("local", 8088, &[WEB1]) },
    Served { weights: [3, 1, 0], ..served("weighted", 8071, &[WEB1, WEB2]) },
    Served { flags: SERVICE_WIRE | SERVICE_LEAST, ..served("least", 8072, &[WEB1, WEB2, WEB3]) },
    Served { flags: SERVICE_WIRE | SERVICE_HASH, ..served("hashed", 8073, &[WEB1, WEB2, WEB3]) },
    Served { affinity_s: 600, ..served("sticky", 8074, &[WEB1, WEB2, WEB3]) },
    Served { limit: 2, ..served("limited", 8075, &[WEB1, WEB2]) },
    Served { forward: FORWARD_DIRECT, backend_port: 8076, ..served("direct", 8076, &[WEB1, WEB2]) },
    Served { forward: FORWARD_DIRECT, backend_port: 8077, protocol: 17, ..served("direct-udp", 8077, &[WEB1, WEB2]) },
    Served { forward: FORWARD_DIRECT, backend_port: 8078, ..served("direct-silent", 8078, &[SILENT]) },
    Served { also: 8061, ..told_apart("many", 8060, &[WEB1, WEB2]) },
    Served { backend_port: 9060, ..told_apart("shared", 8062, &[WEB1, WEB2]) },
    Served { also: 8064, sources: &[SOURCE], ..told_apart("pooled", 8063, &[WEB1]) },
    Served { sources: &[SOURCE, SOURCE2], ..told_apart("pooled-two", 8065, &[WEB1, WEB2]) },
    Served { protocol: 17, sources: &[SOURCE], ..told_apart("pooled-udp", 7010, &[WEB1, WEB2]) },
    Served { forward: FORWARD_DIRECT, backend_port: 8070, ..served("direct-far", 8070, &[FAR1]) },
    Served { forward: FORWARD_TUNNEL, backend_port: 8079, ..served("tunnel", 8079, &[FAR1, FAR2]) },
    Served { forward: FORWARD_TUNNEL, backend_port: 8079, protocol: 17, ..served("tunnel-udp", 8079, &[FAR1, FAR2]) },
    Served { forward: FORWARD_TUNNEL, backend_port: 8090, ..served("tunnel-narrow", 8090, &[FAR_NARROW]) },
    Served { forward: FORWARD_TUNNEL, backend_port: 8089, ..served("tunnel-silent", 8089, &[SILENT]) },
    served("vlan", 8066, &[WEB4]),
    Served { forward: FORWARD_DIRECT, backend_port: 8067, ..served("vlan-direct", 8067, &[WEB4]) },
    Served { forward: FORWARD_TUNNEL, backend_port: 8068, ..served("vlan-tunnel", 8068, &[WEB4]) },
];

/// Members of a service at the most; the backend slot is `MEMBERS * service slot + member`.
pub const MEMBERS: u32 = 4;

/// Slots of services in use.
pub const SERVICE_SLOTS: u32 = 2 * SERVICES.len() as u32;
/// Slots of backends in use, or next to one in use.
pub const BACKEND_SLOTS: u32 = MEMBERS * SERVICE_SLOTS;

/// Slot of a service by its name.
pub fn service_slot(name: &str, v6: bool) -> u32 {
    let index = SERVICES.iter().position(|service| service.name == name).expect("a service of the world");
    2 * index as u32 + u32::from(v6)
}

/// Which rules a case runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleSet {
    /// Those of a small site.
    Site,
    /// A thousand, of which the last decide.
    Thousand,
    /// Of every kind, see [`super::everything`].
    Everything,
    /// Those of a small site; sources have to be routed back by the interface they come from.
    Strict,
}

impl RuleSet {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::Site, Self::Thousand, Self::Everything, Self::Strict];

    /// The rules.
    pub fn rules(self) -> Vec<Rule> {
        match self {
            Self::Site | Self::Strict => site(),
            Self::Thousand => thousand(),
            Self::Everything => everything::rules(),
        }
    }

    /// What the server knows of tunnels: where those of the balancer end.
    pub fn tunnels(self) -> Tunnels {
        let both = |host: Host| [host.address(false), host.address(true)];
        match self {
            Self::Site => Tunnels::new(&both(LB1), &both(LB2), &both(VIP2)).expect("a few of them"),
            _ => Tunnels::NONE,
        }
    }

    /// What the server uses beside rules: `USES_BALANCER`, `USES_REVERSE_PATH`.
    pub const fn uses(self) -> u32 {
        match self {
            Self::Strict => USES_BALANCER | USES_REVERSE_PATH,
            _ => USES_BALANCER,
        }
    }
}

fn rule(name: &str, from: &[&str], to: &[&str], protocol: Protocol, action: Action) -> Rule {
    let nets =
        |texts: &[&str]| -> Vec<_> { texts.iter().map(|text| text.parse().expect("a prefix in this file")).collect() };
    Rule { sources: nets(from).into(), destinations: nets(to).into(), protocol, ..Rule::any(name, action) }
}

/// Rules as a site has them, with every dimension and both families.
fn site() -> Vec<Rule> {
    use Action::{Allow, Deny};
    use Protocol::{Any, Icmp, Icmpv6, Number, Tcp, Udp};
    let tcp = |first, last| Tcp(vec![first..=last]);
    let udp = |port| Udp(vec![port..=port]);
    let vip = ["203.0.113.10/32", "2001:db8::a/128"];
    let lb1 = ["10.0.1.1/32", "fd00:1::1/128"];
    let office = ["198.51.100.0/24", "2001:db8:64::/48"];
    vec![
        rule("ssh", &["10.0.1.41/32", "fd00:1::29/128"], &[], tcp(22, 22), Allow),
        rule("enemy", &["198.51.66.0/24", "2001:db8:42::/48"], &[], Any, Deny),
        rule("discovery", &[], &[], Icmpv6(vec![133, 134, 135, 136]), Allow),
        rule("echo", &["203.0.113.0/24"], &lb1, Icmp(vec![8]), Allow),
        rule("echo6", &["2001:db8::/64"], &lb1, Icmpv6(vec![128]), Allow),
        rule("vip", &[], &vip, tcp(8060, 8090), Allow),
        rule("vip-udp", &[], &vip, Udp(vec![7007..=7007, 7010..=7010, 8077..=8077, 8079..=8079]), Allow),
        rule("office-high", &["198.51.100.128/25", "2001:db8:64:8000::/49"], &lb1, tcp(443, 443), Deny),
        rule("office", &office, &lb1, Tcp(vec![443..=443, 8000..=8010]), Allow),
        rule("office-late", &office, &[], tcp(8010, 8010), Deny),
        rule("dns", &["10.0.1.0/24", "fd00:1::/64"], &[], udp(53), Allow),
        rule("ospf", &["10.0.1.11/32", "fd00:1::b/128"], &[], Number(89), Allow),
        rule("foreign-icmp", &["10.0.1.13/32", "fd00:1::d/128"], &[], Number(1), Allow),
        rule("tunnels", &["10.0.1.3/32"], &["10.0.1.1/32"], Number(4), Allow),
        rule("tunnels6", &["fd00:1::3/128"], &["fd00:1::1/128"], Number(41), Allow),
        // For the stack: a tunnel of the site's own.
        rule("own-tunnel", &["10.0.1.13/32"], &["10.0.1.1/32"], Number(4), Allow),
        rule("own-tunnel6", &["fd00:1::d/128"], &["fd00:1::1/128"], Number(41), Allow),
        rule("tunnelled", &[], &["203.0.113.11/32", "2001:db8::b/128"], tcp(8443, 8443), Allow),
        rule("tunnelled-udp", &[], &["203.0.113.11/32", "2001:db8::b/128"], udp(8443), Allow),
        // The other database server first: whatever becomes of the lease.
        rule("replication", &["10.0.1.11/32", "fd00:1::b/128"], &lb1, tcp(5432, 5432), Allow),
        Rule { leased: true, ..rule("database", &["10.0.1.0/24", "fd00:1::/64"], &lb1, tcp(5432, 5432), Allow) },
        rule("beside-database", &["10.0.1.0/24", "fd00:1::/64"], &lb1, tcp(5433, 5433), Allow),
        rule("vip-flood", &["203.0.113.51/32", "2001:db8::33/128"], &vip, tcp(8091, 8091), Deny),
    ]
}

/// As many rules as a large site has: rule `n` allows TCP port `n` from anywhere, the last of all denies all of TCP.
fn thousand() -> Vec<Rule> {
    let port = |n: u16| rule(&format!("port-{n}"), &[], &[], Protocol::Tcp(vec![n..=n]), Action::Allow);
    let mut rules: Vec<Rule> = (0..1000).map(|n| port(1000 + n)).collect();
    rules.push(rule("last", &["203.0.113.0/24"], &[], Protocol::Tcp(Vec::new()), Action::Deny));
    rules
}
