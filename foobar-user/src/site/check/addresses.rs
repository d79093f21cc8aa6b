//! Addresses: each belongs to one server, to VIPs or to services' sources, never to two of them; each port of a VIP belongs to
//! one service.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use crate::plan::Transport;
use crate::site::at::Span;
use crate::site::model::{Forward, Service, Site};
use crate::site::section::Collector;

pub(super) fn check(site: &Site, faults: &Collector) {
    let servers = servers(site, faults);
    for service in &site.services {
        for listen in &service.listen {
            if let Some(server) = servers.get(&listen.ip()) {
                let message = format!(
                    "the VIP {} of service `{}` is the address of server `{server}`; VIPs are addresses that no server has",
                    listen.ip(),
                    service.name.value,
                );
                faults.error(listen.span, message);
            }
        }
    }
    for service in &site.services {
        sources(site, service, &servers, faults);
    }
    endpoints(site, faults);
}

/// Source addresses are for this alone: every port of theirs may be a flow's.
fn sources(site: &Site, service: &Service, servers: &BTreeMap<IpAddr, &str>, faults: &Collector) {
    let name = &service.name.value;
    for (index, source) in service.sources.iter().enumerate() {
        let vip = |other: &&Service| other.listen.iter().any(|listen| listen.ip() == source.value);
        let message = if let Some(server) = servers.get(&source.value) {
            format!(
                "the source {} of service `{name}` is the address of server `{server}`, whose own connections use its ports; \
                 name an address that no server has",
                source.value,
            )
        } else if let Some(other) = site.services.iter().find(vip) {
            format!(
                "the source {} of service `{name}` is a VIP of service `{}`, so packets to it would be a client's or a \
                 backend's; name an address that is nobody's",
                source.value, other.name.value,
            )
        } else if service.sources[..index].iter().any(|before| before.value == source.value) {
            format!("{} is named twice in `source` of service `{name}`; name it once", source.value)
        } else if !service.listen.iter().any(|listen| listen.is_ipv6() == source.is_ipv6()) {
            format!(
                "service `{name}` listens on no {} address, so the source {} would never be used; leave it out",
                family(source.is_ipv6()),
                source.value,
            )
        } else {
            continue;
        };
        faults.error(source.span, message);
    }
    let Some(first) = service.sources.first() else { return };
    let without = |v6: bool| !service.sources.iter().any(|source| source.is_ipv6() == v6);
    if let Some(listen) = service.listen.iter().find(|listen| without(listen.is_ipv6())) {
        let family = family(listen.is_ipv6());
        let message = format!(
            "service `{name}` listens on {}, and its `source` has no {family} address for those connections; add one",
            listen.value,
        );
        faults.error(first.span, message);
    }
}

const fn family(v6: bool) -> &'static str {
    if v6 { "IPv6" } else { "IPv4" }
}

/// Who has which address.
fn servers<'s>(site: &'s Site, faults: &Collector) -> BTreeMap<IpAddr, &'s str> {
    let mut seen: BTreeMap<IpAddr, &str> = BTreeMap::new();
    for server in &site.servers {
        let spans = std::iter::once(server.address.span).chain(server.address6.iter().map(|address| address.span));
        for (address, span) in server.addresses().zip(spans) {
            if let Some(other) = seen.insert(address, &server.name) {
                let message = format!("{address} is the address of server `{other}` already; each server has its own");
                faults.error(span, message);
            }
        }
    }
    seen
}

/// What holds an endpoint, and the place of it.
struct Claim<'s> {
    service: &'s Service,
    use_of_it: &'static str,
    span: Span,
}

/// Every endpoint of a VIP that a service takes: its own, the redirect's, and that by which the edge reaches its backends.
fn claims(service: &Service) -> Vec<((SocketAddr, bool), Claim<'_>)> {
    let udp = service.protocol == Transport::Udp;
    let mut list = Vec::new();
    for listen in &service.listen {
        let mut claim = |endpoint: SocketAddr, use_of_it| {
            list.push(((endpoint, udp), Claim { service, use_of_it, span: listen.span }));
        };
        claim(listen.value, "listens there");
        if let Forward::Tls(tls) = &service.forward {
            if let Some(port) = tls.redirect_port {
                claim(SocketAddr::new(listen.ip(), port), "redirects from there");
            }
            claim(SocketAddr::new(listen.ip(), service.to.port), "reaches its backends through there");
        }
    }
    list
}

fn endpoints(site: &Site, faults: &Collector) {
    let mut seen: BTreeMap<(SocketAddr, bool), Claim<'_>> = BTreeMap::new();
    for service in &site.services {
        let mut own: Vec<SocketAddr> = Vec::new();
        for listen in &service.listen {
            if own.contains(&listen.value) {
                let message =
                    format!("service `{}` listens on {} twice; name it once", service.name.value, listen.value);
                faults.error(listen.span, message);
            }
            own.push(listen.value);
        }
        if let Forward::Tls(tls) = &service.forward
            && let Some(listen) = service.listen.iter().find(|listen| Some(listen.port()) == tls.redirect_port)
        {
            let message = "TLS and the redirect to it share one port; set `redirect_port` to another, or to 0 for none";
            faults.error(listen.span, message);
        }
        for ((endpoint, udp), claim) in claims(service) {
            if let Some(other) = seen.get(&(endpoint, udp))
                && other.service.name != service.name
            {
                let message = format!(
                    "{endpoint}/{} is taken twice: service `{}` {}, service `{}` {}; change a port or a VIP",
                    if udp { "udp" } else { "tcp" },
                    other.service.name.value,
                    other.use_of_it,
                    service.name.value,
                    claim.use_of_it,
                );
                faults.error(claim.span, message);
            } else {
                seen.entry((endpoint, udp)).or_insert(claim);
            }
        }
    }
}
