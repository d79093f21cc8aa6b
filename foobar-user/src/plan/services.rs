//! A server's services: what its sockets and its wire reach by a VIP, and what its edge terminates.

use std::net::SocketAddr;

use super::sources::{Sources, admits};
use super::{BackendPlan, Balance, Check, CheckKind, EdgeService, HttpCheck, Role, Scope, ServicePlan};
use crate::pki;
use crate::site::{At, Forward, Server, Service, Site, SiteCheckKind, Tls};

/// Whether this server has the service in its tables, and therefore checks its backends.
#[must_use]
pub fn serves(site: &Site, service: &Service, server: &Server) -> bool {
    match service.forward {
        Forward::Tls(_) | Forward::Nat | Forward::Direct | Forward::Tunnel => server.role == Role::Balancer,
        Forward::Socket => admits(site, &service.from, server),
    }
}

/// From where a service's checks come.
pub(super) fn check_sources(site: &Site, service: &Service) -> Sources {
    Sources::nobody().with_servers(site.servers.iter().filter(|server| serves(site, service, server)))
}

/// Services in this server's tables, in the file's order.
pub(super) fn derive(site: &Site, server: &Server) -> Vec<ServicePlan> {
    let mine = site.services.iter().filter(|service| serves(site, service, server));
    mine.map(|service| one(site, service, server)).collect()
}

fn one(site: &Site, service: &Service, server: &Server) -> ServicePlan {
    let vips = match &service.forward {
        Forward::Tls(_) => upstreams(site, service),
        Forward::Nat | Forward::Direct | Forward::Tunnel | Forward::Socket => {
            service.listen.iter().map(|listen| listen.value).collect()
        }
    };
    ServicePlan {
        name: service.name.value.clone(),
        protocol: service.protocol,
        vips,
        scope: match service.forward {
            Forward::Nat => Scope::Nat,
            Forward::Direct => Scope::Direct,
            Forward::Tunnel => Scope::Tunnel,
            Forward::Tls(_) | Forward::Socket => Scope::Local,
        },
        sources: service.sources.iter().map(|source| source.value).collect(),
        balance: balance(service),
        select: service.select,
        backends: backends(site, service),
        check: check(site, service, server),
    }
}

/// Endpoints by which the edge reaches its backends: each VIP at the backends' port, in families that they have.
fn upstreams(site: &Site, service: &Service) -> Vec<SocketAddr> {
    let mut list = Vec::new();
    for listen in &service.listen {
        let upstream = SocketAddr::new(listen.ip(), service.to.port);
        let reached =
            site.of_role(service.to.role).flat_map(Server::addresses).any(|a| a.is_ipv6() == listen.is_ipv6());
        if reached && !list.contains(&upstream) {
            list.push(upstream);
        }
    }
    list
}

fn backends(site: &Site, service: &Service) -> Vec<BackendPlan> {
    let endpoints = |server: &Server| server.addresses().map(|a| SocketAddr::new(a, service.to.port)).collect();
    let named = |server: &Server, name: &At<String>| name.value == server.name.value;
    let weight = |server: &Server| {
        let given = service.balance.weights.iter().find(|(name, _)| named(server, name));
        given.map_or(1, |(_, weight)| u32::try_from(*weight).unwrap_or(u32::MAX))
    };
    site.of_role(service.to.role)
        .map(|server| BackendPlan {
            server: server.name.value.clone(),
            addresses: endpoints(server),
            weight: weight(server),
            fallback: service.balance.fallback.iter().any(|name| named(server, name)),
        })
        .collect()
}

const fn balance(service: &Service) -> Balance {
    let balance = &service.balance;
    Balance {
        schedule: balance.schedule,
        max_connections: balance.max_connections,
        affinity_s: balance.affinity_s,
        slow_start_s: balance.slow_start_s,
        eject: balance.eject,
    }
}

fn check(site: &Site, service: &Service, server: &Server) -> Check {
    let kind = match (&service.check.kind, &site.database) {
        (SiteCheckKind::Http(check), _) => CheckKind::Http(HttpCheck {
            path: check.path.clone(),
            host: check.host.clone().unwrap_or_else(|| site.domain.value.clone()),
            status: check.status.clone(),
            body: check.body.clone(),
            tls: encrypts(service).then(|| pki::server_files(site, &server.name)),
        }),
        (SiteCheckKind::Tls, _) => CheckKind::Tls(pki::server_files(site, &server.name)),
        (SiteCheckKind::Script(command), _) => CheckKind::Script(command.clone()),
        (SiteCheckKind::Postgres, Some(database)) => CheckKind::Postgres {
            database: database.name.clone(),
            user: database.user.clone(),
            password_file: database.password_file.value.clone(),
        },
        // Validation refuses a postgres check without a database.
        (SiteCheckKind::Tcp, _) | (SiteCheckKind::Postgres, None) => CheckKind::Tcp,
    };
    let check = &service.check;
    Check { kind, interval_ms: check.interval_ms, timeout_ms: check.timeout_ms, rise: check.rise, fall: check.fall }
}

/// Whether a service's connections to its backends are mTLS.
pub(super) fn encrypts(service: &Service) -> bool {
    matches!(&service.forward, Forward::Tls(tls) if tls.encrypt)
}

/// TLS services that end at this server.
pub(super) fn edge(site: &Site, server: &Server) -> Vec<EdgeService> {
    if server.role != Role::Balancer {
        return Vec::new();
    }
    let terminated = site.services.iter().filter_map(|service| match &service.forward {
        Forward::Tls(tls) => terminate(site, service, tls, server),
        Forward::Nat | Forward::Direct | Forward::Tunnel | Forward::Socket => None,
    });
    terminated.collect()
}

fn terminate(site: &Site, service: &Service, tls: &Tls, server: &Server) -> Option<EdgeService> {
    let mut redirect = Vec::new();
    for listen in &service.listen {
        if let Some(port) = tls.redirect_port
            && !redirect.contains(&SocketAddr::new(listen.ip(), port))
        {
            redirect.push(SocketAddr::new(listen.ip(), port));
        }
    }
    Some(EdgeService {
        name: service.name.value.clone(),
        domain: site.domain.value.clone(),
        listen: service.listen.iter().map(|listen| listen.value).collect(),
        redirect,
        certificate: tls.certificate.value.clone(),
        key: tls.key.value.clone(),
        // Validation refuses a TLS service none of whose VIPs reaches a backend.
        upstream: upstreams(site, service).first().copied()?,
        upstream_servers: site.of_role(service.to.role).map(|server| server.name.value.clone()).collect(),
        upstream_tls: tls.encrypt.then(|| pki::server_files(site, &server.name)),
    })
}
