//! Services against servers: backends exist in the right families, and a balancer serves them.

use std::collections::BTreeMap;

use foobar_common::generation::MAX_TUNNEL_VIPS;

use crate::plan::{Role, Transport, tunnelled_vips};
use crate::site::model::{Forward, Server, Service, Site};
use crate::site::section::Collector;

pub(super) fn check(site: &Site, faults: &Collector) {
    for service in &site.services {
        backends(site, service, faults);
        shares(site, service, faults);
        direct(site, service, faults);
        tunnel(site, service, faults);
        if service.forward != Forward::Socket && site.of_role(Role::Balancer).next().is_none() {
            let message = format!(
                "service `{}` needs a balancer and no server has the role `balancer`; add one, or set `forward = \"socket\"`",
                service.name.value,
            );
            faults.error(service.name.span, message);
        }
        if service.to.port == site.metrics_port.value {
            let message = format!(
                "port {} of every server is its agent's /metrics; choose another port or another `metrics_port`",
                service.to.port,
            );
            faults.error(service.to.span, message);
        }
    }
    one_balancer(site, faults);
    web_ports(site, faults);
    database_port(site, faults);
}

/// Every balancer would hold every VIP, with flows of its own.
fn one_balancer(site: &Site, faults: &Collector) {
    if let (Some(first), Some(second)) = (site.of_role(Role::Balancer).next(), site.of_role(Role::Balancer).nth(1)) {
        let message = format!(
            "`{}` is the balancer already, and two would both answer for the VIPs; a site has one for now",
            first.name.value,
        );
        faults.error(second.name.span, message);
    }
}

/// A role nobody has, and families that no backend has.
fn backends(site: &Site, service: &Service, faults: &Collector) {
    let role = service.to.role;
    if site.of_role(role).next().is_none() {
        let message = format!("no server has the role `{}`; add a `[[server]]` with it", role.as_str());
        faults.error(service.to.span, message);
        return;
    }
    let reached = |v6: bool| site.of_role(role).flat_map(Server::addresses).any(|address| address.is_ipv6() == v6);
    // The edge accepts in either family, and reaches its backends by any one VIP of theirs.
    let tls = matches!(service.forward, Forward::Tls(_));
    if tls && service.listen.iter().any(|listen| reached(listen.is_ipv6())) {
        return;
    }
    for listen in service.listen.iter().filter(|listen| !reached(listen.is_ipv6())) {
        let (family, key) = if listen.is_ipv6() { ("IPv6", "address6") } else { ("IPv4", "address") };
        let message = format!(
            "no `{}` server has an {family} address, so nothing can answer on {}; give them `{key}`",
            role.as_str(),
            listen.value,
        );
        faults.error(listen.span, message);
    }
}

/// A packet that is sent on as it is keeps its port, and reaches a backend that is not the balancer itself.
fn direct(site: &Site, service: &Service, faults: &Collector) {
    let forward = match service.forward {
        Forward::Direct => "direct",
        Forward::Tunnel => "tunnel",
        Forward::Tls(_) | Forward::Nat | Forward::Socket => return,
    };
    for listen in service.listen.iter().filter(|listen| listen.port() != service.to.port) {
        let message = format!(
            "a `{forward}` service sends packets on as they are, so its backends are asked at port {} and not at {}; \
             use one port, or `forward = \"nat\"`",
            listen.port(),
            service.to.port
        );
        faults.error(listen.span, message);
    }
    if service.to.role == Role::Balancer && site.of_role(Role::Balancer).next().is_some() {
        faults.error(service.to.span, "a balancer cannot send packets on to itself; name another role");
        return;
    }
    for balancer in site.of_role(Role::Balancer).filter(|balancer| balancer.reverse_path) {
        let message = format!(
            "`{}` has `reverse_path`, which drops what its backends answer to checks of the `direct` service `{}`: that comes \
             from the VIP, its own address; leave it out of this server",
            balancer.name.value, service.name.value,
        );
        faults.error(balancer.name.span, message);
    }
    for listen in &service.listen {
        on_link(site, service, listen.is_ipv6(), faults);
    }
}

/// Only a host of the balancer's own network is reached by its MAC address.
fn on_link(site: &Site, service: &Service, v6: bool, faults: &Collector) {
    let Some((balancer, network)) = site.of_role(Role::Balancer).find_map(|lb| Some((lb, lb.network(v6)?))) else {
        return;
    };
    let backends = site.of_role(service.to.role).filter_map(|backend| Some((backend, backend.network(v6)?)));
    if let Some((backend, other)) = backends.into_iter().find(|(_, other)| *other != network) {
        let message = format!(
            "`{}` is in {other} and the balancer `{}` in {network}: a `direct` service reaches its backends by their MAC \
             addresses, within one network; set `forward = \"tunnel\"`, which crosses routers, or `\"nat\"`",
            backend.name.value, balancer.name.value,
        );
        faults.error(service.to.span, message);
    }
}

/// A tunnel has two ends of one family, and the packet path knows so many VIPs.
fn tunnel(site: &Site, service: &Service, faults: &Collector) {
    if service.forward != Forward::Tunnel {
        return;
    }
    let begins =
        |v6: bool| site.of_role(Role::Balancer).all(|lb| lb.addresses().any(|address| address.is_ipv6() == v6));
    for listen in service.listen.iter().filter(|listen| !begins(listen.is_ipv6())) {
        let (family, key) = if listen.is_ipv6() { ("IPv6", "address6") } else { ("IPv4", "address") };
        let message = format!(
            "a tunnel for {} begins at an {family} address of the balancer, which has none; give it `{key}`",
            listen.value,
        );
        faults.error(listen.span, message);
    }
    let reached = site.of_role(service.to.role).next().map_or_else(Vec::new, |server| tunnelled_vips(site, server));
    if let Some(listen) =
        service.listen.iter().find(|listen| reached.iter().skip(MAX_TUNNEL_VIPS).any(|vip| *vip == listen.ip()))
    {
        let message = format!(
            "`{}` servers are reached at {} VIPs by tunnel, and {MAX_TUNNEL_VIPS} is the limit",
            service.to.role.as_str(),
            reached.len(),
        );
        faults.error(listen.span, message);
    }
}

/// Weights and fallbacks name backends, and leave one that is given connections.
fn shares(site: &Site, service: &Service, faults: &Collector) {
    let (role, balance) = (service.to.role, &service.balance);
    let known = |name: &str| site.of_role(role).any(|server| server.name.value == name);
    for name in balance.weights.iter().map(|(name, _)| name).chain(&balance.fallback) {
        if !known(&name.value) {
            let message =
                format!("`{}` is no `{}` server, so it is no backend of this service", name.value, role.as_str());
            faults.error(name.span, message);
        }
    }
    let weightless =
        |server: &Server| balance.weights.iter().any(|(name, weight)| name.value == server.name.value && *weight == 0);
    if let Some((first, _)) = balance.weights.first()
        && site.of_role(role).all(weightless)
    {
        faults.error(first.span, "every weight is 0, so nobody would be given a connection; raise one of them");
    }
    let steps_in = |server: &Server| balance.fallback.iter().any(|name| name.value == server.name.value);
    if let Some(first) = balance.fallback.first()
        && site.of_role(role).all(steps_in)
    {
        faults.warning(first.span, "every server is a fallback, which is the same as none; leave `fallback` out");
    }
}

/// A port of the web servers speaks TLS or does not.
fn web_ports(site: &Site, faults: &Collector) {
    let encrypts = |service: &Service| matches!(&service.forward, Forward::Tls(tls) if tls.encrypt);
    let mut seen: BTreeMap<(Role, u16), &Service> = BTreeMap::new();
    for service in site.services.iter().filter(|service| service.protocol == Transport::Tcp) {
        let other = *seen.entry((service.to.role, service.to.port)).or_insert(service);
        if encrypts(other) != encrypts(service) {
            let message = format!(
                "service `{}` wants {}:{} with `encrypt`, and service `{}` without; use two ports",
                if encrypts(service) { &service.name.value } else { &other.name.value },
                service.to.role.as_str(),
                service.to.port,
                if encrypts(service) { &other.name.value } else { &service.name.value },
            );
            faults.error(service.to.span, message);
        }
    }
}

/// PostgreSQL listens on one port.
fn database_port(site: &Site, faults: &Collector) {
    let port = site.database_port();
    for service in site.services.iter().filter(|service| service.to.role == Role::Database) {
        if service.to.port != port {
            let message =
                format!("PostgreSQL listens on one port, and another service names {port}; use `database:{port}`");
            faults.error(service.to.span, message);
        }
        if service.protocol == Transport::Udp {
            faults.error(service.to.span, "PostgreSQL speaks tcp; leave `protocol` out");
        }
    }
}
