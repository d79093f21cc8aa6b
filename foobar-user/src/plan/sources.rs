//! Who a rule lets in: entries of `from` turned into prefixes, kept apart from "nobody", which a rule's empty list is not.

use std::net::IpAddr;

use ipnet::IpNet;

use super::Role;
use crate::site::{At, Peer, Server, Site};

/// Whether `from` names this server, by role, name or address.
#[must_use]
pub fn admits(site: &Site, from: &[At<Peer>], server: &Server) -> bool {
    Sources::of(site, from).holds(server)
}

/// The source dimension of a rule before it is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sources {
    /// Everybody.
    Any,
    /// These; none of them when empty.
    These(Vec<IpNet>),
}

impl Sources {
    /// Nobody yet.
    pub(super) fn nobody() -> Self {
        Self::These(Vec::new())
    }

    /// What `from` (or `to`) names.
    pub(super) fn of(site: &Site, peers: &[At<Peer>]) -> Self {
        peers.iter().fold(Self::nobody(), |sources, peer| match &peer.value {
            Peer::Any => Self::Any,
            Peer::Role(role) => sources.with_servers(site.of_role(*role)),
            Peer::Server(name) => sources.with_servers(site.server(name)),
            Peer::Prefix(prefix) => sources.with(*prefix),
        })
    }

    /// And these servers.
    pub(super) fn with_servers<'s>(self, servers: impl IntoIterator<Item = &'s Server>) -> Self {
        servers.into_iter().flat_map(Server::addresses).map(IpNet::from).fold(self, Self::with)
    }

    /// And the servers of a role.
    pub(super) fn with_role(self, site: &Site, role: Role) -> Self {
        self.with_servers(site.of_role(role))
    }

    /// And this prefix; one that is named twice stands once.
    pub(super) fn with(self, prefix: IpNet) -> Self {
        match self {
            Self::Any => Self::Any,
            Self::These(mut list) => {
                if !list.contains(&prefix) {
                    list.push(prefix);
                }
                Self::These(list)
            }
        }
    }

    /// Only the prefixes of one family.
    pub(super) fn family(self, v6: bool) -> Self {
        match self {
            Self::Any => Self::Any,
            Self::These(list) => {
                Self::These(list.into_iter().filter(|prefix| matches!(prefix, IpNet::V6(_)) == v6).collect())
            }
        }
    }

    /// Without this server: it does not reach itself over a wire.
    pub(super) fn without(self, server: &Server) -> Self {
        let own: Vec<IpNet> = server.addresses().map(IpNet::from).collect();
        match self {
            Self::Any => Self::Any,
            Self::These(list) => Self::These(list.into_iter().filter(|prefix| !own.contains(prefix)).collect()),
        }
    }

    /// Whether any address of the server is meant.
    fn holds(&self, server: &Server) -> bool {
        let held = |list: &[IpNet], address: IpAddr| list.iter().any(|prefix| prefix.contains(&address));
        match self {
            Self::Any => true,
            Self::These(list) => server.addresses().any(|address| held(list, address)),
        }
    }

    /// A rule's prefixes, where an empty list matches everybody; `None`: nobody, so there is no rule.
    pub(super) fn into_rule(self) -> Option<Vec<IpNet>> {
        match self {
            Self::Any => Some(Vec::new()),
            Self::These(list) if list.is_empty() => None,
            Self::These(list) => Some(list),
        }
    }

    /// Explicit prefixes, everybody being both families' whole space.
    pub(super) fn into_prefixes(self) -> Vec<IpNet> {
        match self {
            Self::Any => vec![IpNet::from(ipnet::Ipv4Net::default()), IpNet::from(ipnet::Ipv6Net::default())],
            Self::These(list) => list,
        }
    }
}
