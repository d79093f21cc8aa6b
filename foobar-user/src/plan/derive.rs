//! `Site + server name -> Plan`: the one pure function that everything a server does comes from.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::{Plan, Role, failover, processes, rules, services, sets, tunnels};
use crate::site::{Forward, Server, Service, Site};

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlanError {
    /// The site has no server of this name.
    UnknownServer {
        /// The name that was asked for.
        server: String,
        /// The names that exist.
        known: Vec<String>,
    },
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownServer { server, known } => {
                write!(f, "the site has no server `{server}`; its servers are {}", known.join(", "))
            }
        }
    }
}

impl std::error::Error for PlanError {}

/// Derives one server's plan.
///
/// # Errors
/// The site has no such server.
pub fn plan(site: &Site, server: &str) -> Result<Plan, PlanError> {
    let Some(server) = site.server(server) else {
        let known = site.servers.iter().map(|server| server.name.value.clone()).collect();
        return Err(PlanError::UnknownServer { server: server.to_owned(), known });
    };
    let rules = rules::derive_rules(site, server);
    Ok(Plan {
        domain: site.domain.value.clone(),
        server: server.name.value.clone(),
        role: server.role,
        addresses: server.addresses().collect(),
        interfaces: server.interfaces.iter().map(|interface| interface.value.clone()).collect(),
        vips: held_vips(site, server),
        sources: held_sources(site, server),
        sets: sets::derive(site, &rules),
        rules,
        reverse_path: server.reverse_path,
        syn_cookies: site.syn_cookies,
        flows: site.flows,
        services: services::derive(site, server),
        tunnels: tunnels::derive(site, server),
        fence: failover::fence(site, server),
        edge: services::edge(site, server),
        processes: processes::derive(site, server),
        witness: failover::witness(site, server),
        metrics: server.addresses().map(|address| SocketAddr::new(address, site.metrics_port.value)).collect(),
    })
}

/// VIPs that a server holds: a balancer those of TLS, nat, direct and tunnel services, because it answers for them; a backend
/// those of direct and tunnel services, whose packets reach it as they are. A socket service's VIP never is on a wire.
pub(super) fn held_vips(site: &Site, server: &Server) -> Vec<IpAddr> {
    let holds = |service: &&Service| match service.forward {
        Forward::Tls(_) | Forward::Nat => server.role == Role::Balancer,
        Forward::Direct | Forward::Tunnel => server.role == Role::Balancer || server.role == service.to.role,
        Forward::Socket => false,
    };
    let mut vips = Vec::new();
    for listen in site.services.iter().filter(holds).flat_map(|service| &service.listen) {
        if !vips.contains(&listen.ip()) {
            vips.push(listen.ip());
        }
    }
    vips
}

/// Addresses from which backends see a server: of a balancer those of its nat services.
pub(super) fn held_sources(site: &Site, server: &Server) -> Vec<IpAddr> {
    let mut sources = Vec::new();
    if server.role == Role::Balancer {
        for source in site.services.iter().flat_map(|service| &service.sources) {
            if !sources.contains(&source.value) {
                sources.push(source.value);
            }
        }
    }
    sources
}
