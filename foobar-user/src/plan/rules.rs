//! A server's firewall: what cannot be true is dropped, the failsafe, the file's own rules, then what the services need; what
//! none of them names is denied.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use foobar_common::parse::ACK;
use foobar_common::rules::{Action, FlagMatch, Protocol, Rule};
use foobar_common::tunnel::{IPV4_IN, IPV6_IN};
use ipnet::IpNet;

use super::bogons;
use super::derive::{held_sources, held_vips};
use super::failover;
use super::services::{check_sources, serves};
use super::sources::Sources;
use super::tunnels;
use super::{FencePlan, Origin, PlannedRule, Role, Transport};
use crate::site::{At, Forward, Server, Service, Site, SiteProcess, UserRule};

/// Most rules of a server that the packet path takes.
pub const RULES_MAX: usize = 1024;
/// Most of them that limit or shadow, and so do not end the walk.
pub const PASSING_RULES_MAX: usize = 32;
/// Most interfaces that a server's rules name.
pub const RULE_INTERFACES_MAX: usize = 16;

/// Ports that checks by a VIP come from: above those that Linux gives to connections of its own.
pub const CHECK_PORTS: RangeInclusive<u16> = 61_000..=61_999;

/// ICMP's errors: unreachable (and "fragmentation needed"), time exceeded, parameter problem.
const ICMP_ERRORS: [u8; 3] = [3, 11, 12];
/// ICMPv6's errors: unreachable, packet too big, time exceeded, parameter problem.
const ICMPV6_ERRORS: [u8; 4] = [1, 2, 3, 4];
/// Listener queries (switches that snoop forget a host that does not answer), neighbour solicitation and advertisement.
/// No router advertisement: routes of servers are static, and an advertisement from a neighbour would move them.
const NEIGHBOUR_TYPES: [u8; 3] = [130, 135, 136];
/// Echo request and reply, ICMP and ICMPv6.
const ECHO: [(u8, u8); 2] = [(8, 0), (128, 129)];
/// ssh.
const SSH_PORT: u16 = 22;

/// Rules in the order in which they are tried.
pub fn derive_rules(site: &Site, server: &Server) -> Vec<PlannedRule> {
    let mut firewall = Firewall::new(site, server);
    if server.role == Role::Balancer {
        for service in site.services.iter().filter(|service| service.forward == Forward::Direct) {
            firewall.check_answers(service);
        }
    }
    firewall.deny("spoofed", "own addresses and no one's", bogons::spoofed(&firewall.held()), &[]);
    firewall.failsafe();
    firewall.deny("bogons", "outside", bogons::bogons(site, server), &server.outside);
    for rule in site.rules.iter().filter(|rule| rule.stands_on(server)) {
        firewall.user(rule);
    }
    firewall.icmp();
    firewall.metrics();
    // Before the services: the other database servers are let in whatever becomes of the lease.
    firewall.replication();
    let others = firewall.rules.len();
    for service in site.services.iter().filter(|service| service.to.role == server.role) {
        firewall.backend(service);
    }
    firewall.lease(others);
    firewall.tunnels();
    if server.role == Role::Balancer {
        for service in &site.services {
            firewall.vip(service);
        }
    }
    for service in &site.services {
        firewall.answers(service);
    }
    firewall.witness();
    firewall.rules
}

struct Firewall<'s> {
    site: &'s Site,
    server: &'s Server,
    /// The server's own addresses.
    own: Vec<IpNet>,
    /// Its VIPs.
    vips: Vec<IpNet>,
    /// Addresses from which backends see it.
    sources: Vec<IpNet>,
    rules: Vec<PlannedRule>,
}

fn hosts(addresses: impl IntoIterator<Item = IpAddr>) -> Vec<IpNet> {
    addresses.into_iter().map(IpNet::from).collect()
}

fn one(port: u16) -> Vec<RangeInclusive<u16>> {
    vec![port..=port]
}

impl<'s> Firewall<'s> {
    fn new(site: &'s Site, server: &'s Server) -> Self {
        let (vips, sources) = (hosts(held_vips(site, server)), hosts(held_sources(site, server)));
        Self { site, server, own: hosts(server.addresses()), vips, sources, rules: Vec::new() }
    }

    /// Own addresses and VIPs.
    fn all(&self) -> Vec<IpNet> {
        self.own.iter().chain(&self.vips).copied().collect()
    }

    /// All that nobody else sends from: a packet from a source address would be a reply's end, too.
    fn held(&self) -> Vec<IpNet> {
        self.all().into_iter().chain(self.sources.iter().copied()).collect()
    }

    fn derived(&mut self, name: &str, from: &str, sources: Sources, destinations: Vec<IpNet>, protocol: Protocol) {
        // Nobody, or nowhere (a family that the server has not): no rule, because an empty list means everything.
        let Some(sources) = sources.into_rule() else { return };
        let rule = Rule { sources, destinations: destinations.into(), protocol, ..Rule::any(name, Action::Allow) };
        self.rules.push(PlannedRule { rule, origin: Origin::Derived(from.to_owned()) });
    }

    /// ssh from the admins, to whatever address: a failsafe that needs a right address in the file is none.
    fn failsafe(&mut self) {
        let admin = self.site.admin.iter().map(|prefix| prefix.value).fold(Sources::nobody(), Sources::with);
        self.derived("failsafe-ssh", "[site] admin", admin, Vec::new(), Protocol::Tcp(one(SSH_PORT)));
    }

    /// What is dropped before a rule of the file is asked, on these interfaces or on all.
    fn deny(&mut self, name: &str, from: &str, sources: Vec<IpNet>, interfaces: &[At<String>]) {
        if sources.is_empty() {
            return;
        }
        let rule = Rule {
            sources: sources.into(),
            interfaces: interfaces.iter().map(|interface| interface.value.clone()).collect(),
            ..Rule::any(name, Action::Deny)
        };
        self.rules.push(PlannedRule { rule, origin: Origin::Derived(from.to_owned()) });
    }

    fn user(&mut self, rule: &UserRule) {
        let Some(sources) = Sources::of(self.site, &rule.from).into_rule() else { return };
        let to = if rule.to.is_empty() { Sources::these(self.all()) } else { Sources::of(self.site, &rule.to) };
        let Some(destinations) = to.into_rule() else { return };
        let mine = |name: &&At<String>| self.server.interfaces.contains(name);
        let interfaces: Vec<String> = rule.interfaces.iter().filter(mine).map(|name| name.value.clone()).collect();
        if interfaces.is_empty() && !rule.interfaces.is_empty() {
            // This server has none of them, and a rule without interfaces would be for all.
            return;
        }
        let rule_of_plan = Rule {
            sources,
            destinations,
            protocol: rule.protocol.clone(),
            source_ports: rule.source_ports.clone(),
            flags: rule.flags,
            interfaces,
            log_per_second: rule.log_per_second,
            ..Rule::any(&rule.name.value, rule.action.value)
        };
        self.rules.push(PlannedRule { rule: rule_of_plan, origin: Origin::Line(rule.line) });
    }

    /// Neighbour discovery, errors, echo.
    fn icmp(&mut self) {
        let all = self.all();
        let of = |v6: bool| -> Vec<IpNet> {
            all.iter().copied().filter(|prefix| matches!(prefix, IpNet::V6(_)) == v6).collect()
        };
        let (v4, v6) = (of(false), of(true));
        if !v6.is_empty() {
            // To any address: multicast groups, link-local ones, and those that the file does not name; it cannot be routed.
            let types = Protocol::Icmpv6(NEIGHBOUR_TYPES.to_vec());
            self.derived("neighbour-discovery", "address6", Sources::Any, Vec::new(), types);
        }
        let admin = self.site.admin.iter().map(|prefix| prefix.value);
        let pingers = admin.fold(Sources::nobody().with_servers(&self.site.servers), Sources::with);
        if !v4.is_empty() {
            let errors = Protocol::Icmp(ICMP_ERRORS.to_vec());
            self.derived("icmp-errors", "address", Sources::Any, v4.clone(), errors);
        }
        if !v6.is_empty() {
            let errors = Protocol::Icmpv6(ICMPV6_ERRORS.to_vec());
            self.derived("icmpv6-errors", "address6", Sources::Any, v6.clone(), errors);
        }
        for ((request, reply), is_v6) in ECHO.into_iter().zip([false, true]) {
            let (name, to) = if is_v6 { ("icmpv6-echo", &v6) } else { ("icmp-echo", &v4) };
            if to.is_empty() {
                continue;
            }
            let types = |number| {
                if is_v6 { Protocol::Icmpv6(vec![number]) } else { Protocol::Icmp(vec![number]) }
            };
            let from = pingers.clone().without(self.server).family(is_v6);
            self.derived(name, "servers and [site] admin", from, to.clone(), types(request));
            self.derived(&format!("{name}-reply"), "own pings", Sources::Any, to.clone(), types(reply));
        }
    }

    /// The agent's metrics to the monitors, and Prometheus' pages to the admins.
    fn metrics(&mut self) {
        let monitors = Sources::nobody().with_role(self.site, Role::Monitor).without(self.server);
        let port = self.site.metrics_port.value;
        self.derived("metrics", "role monitor", monitors, self.own.clone(), Protocol::Tcp(one(port)));
        let site = self.site;
        for process in site.processes.iter().filter(|process| process.runs_on(self.server)) {
            if let SiteProcess::Prometheus { port, .. } = process.kind {
                let admin = site.admin.iter().map(|prefix| prefix.value).fold(Sources::nobody(), Sources::with);
                let origin = format!("process {}", process.name.value);
                let protocol = Protocol::Tcp(one(port.value));
                self.derived("prometheus", &origin, admin, self.own.clone(), protocol);
            }
        }
    }

    /// A service's connections at a backend, and its checks where those come from elsewhere or by another protocol.
    fn backend(&mut self, service: &Service) {
        let (name, ports) = (&service.name.value, one(service.to.port));
        let origin = format!("service {name}");
        let clients = match &service.forward {
            // Of a direct or tunnel service only the checks come to the backend's own address.
            Forward::Tls(_) | Forward::Direct | Forward::Tunnel => {
                Sources::nobody().with_role(self.site, Role::Balancer)
            }
            // They see the balancer's sources alone; who may connect is asked at the VIP.
            Forward::Nat if !service.sources.is_empty() => {
                let sources = service.sources.iter().map(|source| IpNet::from(source.value));
                Sources::these(sources).with_role(self.site, Role::Balancer)
            }
            Forward::Nat => Sources::of(self.site, &service.from).with_role(self.site, Role::Balancer),
            Forward::Socket => Sources::of(self.site, &service.from),
        };
        let protocol = match service.protocol {
            Transport::Tcp => Protocol::Tcp(ports.clone()),
            Transport::Udp => Protocol::Udp(ports.clone()),
        };
        let clients = clients.without(self.server);
        self.derived(&format!("service-{name}"), &origin, clients, self.own.clone(), protocol.clone());
        let mut destinations = self.own.clone();
        if service.forward == Forward::Tunnel {
            // As they come out of the tunnel.
            let vips = hosts(service.listen.iter().map(|listen| listen.ip()));
            let clients = Sources::of(self.site, &service.from).without(self.server);
            self.derived(&format!("tunnel-{name}"), &origin, clients, vips, protocol.clone());
        }
        if service.forward == Forward::Direct {
            let vips = hosts(service.listen.iter().map(|listen| listen.ip()));
            // The balancer asks for the VIP, too, to see who answers for it.
            let checked = service.protocol == Transport::Tcp;
            let clients = Sources::of(self.site, &service.from);
            let clients = if checked { clients.with_role(self.site, Role::Balancer) } else { clients };
            self.derived(&format!("direct-{name}"), &origin, clients.without(self.server), vips.clone(), protocol);
            destinations.extend(vips);
        }
        if service.protocol == Transport::Udp {
            // Every kind of check runs over TCP.
            let checkers = check_sources(self.site, service).without(self.server);
            self.derived(&format!("check-{name}"), &origin, checkers, destinations, Protocol::Tcp(ports));
        }
    }

    /// Rules for the database's port from this one on hold only while the server has its lease.
    fn lease(&mut self, first: usize) {
        let Some(FencePlan { port, .. }) = failover::fence(self.site, self.server) else { return };
        let database = Protocol::Tcp(one(port));
        for planned in &mut self.rules[first..] {
            planned.rule.leased = planned.rule.protocol == database;
        }
    }

    /// The balancers' tunnels, one rule a family: what comes out of them is judged anew.
    fn tunnels(&mut self) {
        if tunnels::tunnelled_vips(self.site, self.server).is_empty() {
            return;
        }
        for (name, v6, number) in [("tunnels-ipv4", false, IPV4_IN), ("tunnels-ipv6", true, IPV6_IN)] {
            let balancers = Sources::nobody().with_role(self.site, Role::Balancer).without(self.server).family(v6);
            let ends: Vec<IpNet> = self.own.iter().copied().filter(|own| matches!(own, IpNet::V6(_)) == v6).collect();
            if !ends.is_empty() {
                self.derived(name, "tunnel services", balancers, ends, Protocol::Number(number));
            }
        }
    }

    /// What backends that have the VIP themselves answer to the balancer's checks: from the VIP, which is the balancer's, too.
    fn check_answers(&mut self, service: &Service) {
        let name = &service.name.value;
        let rule = Rule {
            sources: hosts(service.listen.iter().map(|listen| listen.ip())).into(),
            destinations: self.own.clone().into(),
            protocol: Protocol::Tcp(vec![CHECK_PORTS]),
            source_ports: one(service.to.port),
            flags: Some(FlagMatch { mask: ACK, value: ACK }),
            ..Rule::any(&format!("check-{name}"), Action::Allow)
        };
        self.rules.push(PlannedRule { rule, origin: Origin::Derived(format!("service {name}")) });
    }

    /// What a datagram service's backends answer to local sockets, which need not be connected: from the backends' port alone.
    fn answers(&mut self, service: &Service) {
        if service.protocol != Transport::Udp || !serves(self.site, service, self.server) {
            return;
        }
        let backends = Sources::nobody().with_role(self.site, service.to.role).without(self.server);
        let Some(sources) = backends.into_rule() else { return };
        let name = &service.name.value;
        let rule = Rule {
            sources,
            destinations: self.own.clone().into(),
            protocol: Protocol::Udp(Vec::new()),
            source_ports: one(service.to.port),
            ..Rule::any(&format!("answers-{name}"), Action::Allow)
        };
        self.rules.push(PlannedRule { rule, origin: Origin::Derived(format!("service {name}")) });
    }

    /// A service's VIPs at a balancer.
    fn vip(&mut self, service: &Service) {
        let name = &service.name.value;
        let redirect = match &service.forward {
            Forward::Socket => return,
            Forward::Nat | Forward::Direct | Forward::Tunnel => None,
            Forward::Tls(tls) => tls.redirect_port,
        };
        // One rule for each set of ports that a VIP has, so that no VIP opens another one's port.
        let mut vips: Vec<(IpAddr, Vec<RangeInclusive<u16>>)> = Vec::new();
        for listen in &service.listen {
            let wanted = [Some(listen.port()), redirect].into_iter().flatten().map(|port| port..=port);
            let index = vips.iter().position(|(vip, _)| *vip == listen.ip()).unwrap_or_else(|| {
                vips.push((listen.ip(), Vec::new()));
                vips.len() - 1
            });
            for port in wanted {
                if !vips[index].1.contains(&port) {
                    vips[index].1.push(port);
                }
            }
        }
        let mut groups: Vec<(Vec<IpNet>, Vec<RangeInclusive<u16>>)> = Vec::new();
        for (vip, ports) in vips {
            match groups.iter_mut().find(|(_, others)| *others == ports) {
                Some((addresses, _)) => addresses.push(vip.into()),
                None => groups.push((vec![vip.into()], ports)),
            }
        }
        for (index, (addresses, ports)) in groups.into_iter().enumerate() {
            let protocol = match service.protocol {
                Transport::Tcp => Protocol::Tcp(ports),
                Transport::Udp => Protocol::Udp(ports),
            };
            let name = if index == 0 { format!("vip-{name}") } else { format!("vip-{name}-{}", index + 1) };
            let from = Sources::of(self.site, &service.from);
            self.derived(&name, &format!("service {}", service.name.value), from, addresses, protocol);
        }
    }

    /// Database servers among each other.
    fn replication(&mut self) {
        if self.server.role != Role::Database || self.site.database.is_none() {
            return;
        }
        let others = Sources::nobody().with_role(self.site, Role::Database).without(self.server);
        let port = Protocol::Tcp(one(self.site.database_port()));
        self.derived("replication", "[database]", others, self.own.clone(), port);
    }
    /// Database servers at the witness of their lease.
    fn witness(&mut self) {
        let Some(witness) = failover::witness(self.site, self.server) else { return };
        let databases = Sources::nobody().with_role(self.site, Role::Database);
        let port = Protocol::Tcp(witness.listen.first().map_or_else(Vec::new, |listen| one(listen.port())));
        self.derived("witness", "[database]", databases, self.own.clone(), port);
    }
}
