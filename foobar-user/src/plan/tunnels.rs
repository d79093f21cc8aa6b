//! Tunnels of a server: from a balancer to the backends of `tunnel` services, and out of them there.

use std::net::IpAddr;

use foobar_common::generation::Tunnels;
use serde::Serialize;

use super::Role;
use crate::site::{Forward, Server, Service, Site};

/// The ends of a server's tunnels; all empty on a server without any.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TunnelPlan {
    /// Its own addresses, at most one a family: tunnels begin and end there.
    pub own: Vec<IpAddr>,
    /// Addresses of the balancers whose tunnels end here.
    pub peers: Vec<IpAddr>,
    /// VIPs that packets inside may be for.
    pub vips: Vec<IpAddr>,
}

impl TunnelPlan {
    /// What the packet path knows of it; `None`: there are more peers or VIPs than it takes.
    #[must_use]
    pub fn ends(&self) -> Option<Tunnels> {
        Tunnels::new(&self.own, &self.peers, &self.vips)
    }
}

/// Services whose backends are reached by tunnel.
pub(super) fn services(site: &Site) -> impl Iterator<Item = &Service> {
    site.services.iter().filter(|service| service.forward == Forward::Tunnel)
}

/// VIPs that a server is reached at by tunnel.
pub fn tunnelled_vips(site: &Site, server: &Server) -> Vec<IpAddr> {
    let mut vips = Vec::new();
    for listen in services(site).filter(|service| service.to.role == server.role).flat_map(|service| &service.listen) {
        if !vips.contains(&listen.ip()) {
            vips.push(listen.ip());
        }
    }
    vips
}

/// The tunnels of a server.
pub(super) fn derive(site: &Site, server: &Server) -> TunnelPlan {
    let vips = tunnelled_vips(site, server);
    let begins = server.role == Role::Balancer && services(site).next().is_some();
    if !begins && vips.is_empty() {
        return TunnelPlan::default();
    }
    let balancers = site.of_role(Role::Balancer).flat_map(Server::addresses);
    let peers = if vips.is_empty() { Vec::new() } else { balancers.collect() };
    TunnelPlan { own: server.addresses().collect(), peers, vips }
}
