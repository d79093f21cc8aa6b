//! Whom a rule is about: entries of `from` and `to` turned into prefixes and sets, kept apart from "nobody", which a rule
//! that names none is not.

use std::net::IpAddr;

use foobar_common::rules::Places;
use ipnet::IpNet;

use super::Role;
use crate::site::{At, Peer, Server, Site};

/// Whether `from` names this server, by role, name or address.
#[must_use]
pub fn admits(site: &Site, from: &[At<Peer>], server: &Server) -> bool {
    Sources::of(site, from).holds(server)
}

/// An address dimension of a rule before it is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sources {
    /// Everybody.
    Any,
    /// These; none of them when empty.
    These(Places),
}

impl Sources {
    /// Nobody yet.
    pub(super) fn nobody() -> Self {
        Self::These(Places::default())
    }

    /// These prefixes and nobody else.
    pub(super) fn these(prefixes: impl IntoIterator<Item = IpNet>) -> Self {
        prefixes.into_iter().fold(Self::nobody(), Self::with)
    }

    /// What `from` (or `to`) names.
    pub(super) fn of(site: &Site, peers: &[At<Peer>]) -> Self {
        peers.iter().fold(Self::nobody(), |sources, peer| match &peer.value {
            Peer::Any => Self::Any,
            Peer::Role(role) => sources.with_servers(site.of_role(*role)),
            Peer::Server(name) => sources.with_servers(site.server(name)),
            Peer::Prefix(prefix) => sources.with(*prefix),
            Peer::Set(set) => sources.with_set(set),
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
    pub(super) fn with(mut self, prefix: IpNet) -> Self {
        if let Self::These(places) = &mut self
            && !places.prefixes.contains(&prefix)
        {
            places.prefixes.push(prefix);
        }
        self
    }

    /// And what this set holds, which may be nothing.
    fn with_set(mut self, set: &str) -> Self {
        if let Self::These(places) = &mut self
            && !places.sets.iter().any(|other| other == set)
        {
            places.sets.push(set.to_owned());
        }
        self
    }

    /// Only the prefixes of one family.
    pub(super) fn family(mut self, v6: bool) -> Self {
        if let Self::These(places) = &mut self {
            places.prefixes.retain(|prefix| matches!(prefix, IpNet::V6(_)) == v6);
        }
        self
    }

    /// Without this server: it does not reach itself over a wire.
    pub(super) fn without(mut self, server: &Server) -> Self {
        if let Self::These(places) = &mut self {
            places.prefixes.retain(|prefix| !server.addresses().any(|own| IpNet::from(own) == *prefix));
        }
        self
    }

    /// Whether any address of the server is named by a prefix; what sets hold is known only at run time.
    fn holds(&self, server: &Server) -> bool {
        match self {
            Self::Any => true,
            Self::These(places) => {
                let held = |address: &IpAddr| places.prefixes.iter().any(|prefix| prefix.contains(address));
                server.addresses().any(|address| held(&address))
            }
        }
    }

    /// A rule's addresses, where naming none matches everybody; `None`: nobody, so there is no rule.
    pub(super) fn into_rule(self) -> Option<Places> {
        match self {
            Self::Any => Some(Places::default()),
            Self::These(places) => (!places.is_any()).then_some(places),
        }
    }

    /// Explicit prefixes, everybody being both families' whole space.
    pub(super) fn into_prefixes(self) -> Vec<IpNet> {
        match self {
            Self::Any => vec![IpNet::from(ipnet::Ipv4Net::default()), IpNet::from(ipnet::Ipv6Net::default())],
            Self::These(places) => places.prefixes,
        }
    }
}
