//! Names: each is given once, and each that is used is given.

use std::collections::BTreeMap;

use crate::plan::Role;
use crate::site::at::{At, Span};
use crate::site::model::{Peer, Place, Site};
use crate::site::section::{Collector, nearest};

/// Server, process and rule names are given once (TOML itself refuses the same `[service.x]` twice).
pub(super) fn unique(site: &Site, faults: &Collector) {
    once("server", site.servers.iter().map(|server| &server.name), faults);
    words(site, faults);
    once("rule", site.rules.iter().map(|rule| &rule.name), faults);
}

/// A server may be called as its role only when it is the role: `monitor`, and no second monitor.
fn words(site: &Site, faults: &Collector) {
    for server in &site.servers {
        let name = server.name.value.as_str();
        let role = Role::ALL.into_iter().find(|role| role.as_str() == name);
        let alone = role == Some(server.role) && site.of_role(server.role).count() == 1;
        if (role.is_some() && !alone) || name == "any" {
            let message = format!(
                "a server cannot be called `{name}`, which is a word of its own for others too; write `{name}1`"
            );
            faults.error(server.name.span, message);
        }
    }
}

fn once<'s>(what: &str, names: impl Iterator<Item = &'s At<String>>, faults: &Collector) {
    let mut seen = BTreeMap::new();
    for name in names {
        if seen.insert(name.value.as_str(), name.span).is_some() {
            faults.error(
                name.span,
                format!("the {what} name `{}` is given twice; names are labels: rename one", name.value),
            );
        }
    }
}

/// Roles and servers in `from`, `to` and `on` exist.
pub(super) fn known(site: &Site, faults: &Collector) {
    for service in &site.services {
        for peer in &service.from {
            peer_exists(site, peer, faults);
        }
    }
    for rule in &site.rules {
        for peer in rule.from.iter().chain(&rule.to) {
            peer_exists(site, peer, faults);
        }
        for place in &rule.on {
            place_exists(site, &place.value, place.span, faults);
        }
    }
    for process in &site.processes {
        for place in &process.on {
            place_exists(site, &place.value, place.span, faults);
        }
    }
}

fn peer_exists(site: &Site, peer: &At<Peer>, faults: &Collector) {
    match &peer.value {
        // Sets are looked up where all of them are.
        Peer::Any | Peer::Prefix(_) | Peer::Set(_) => {}
        Peer::Role(role) => place_exists(site, &Place::Role(*role), peer.span, faults),
        Peer::Server(server) => place_exists(site, &Place::Server(server.clone()), peer.span, faults),
    }
}

fn place_exists(site: &Site, place: &Place, span: Span, faults: &Collector) {
    if site.servers.iter().any(|server| place.holds(server)) {
        return;
    }
    match place {
        Place::Role(role) => {
            faults.error(span, format!("no server has the role `{}`; add one or leave it out", role.as_str()));
        }
        Place::Server(name) => {
            faults.error(span, format!("no server or role is called `{name}`{}", suggestion(site, name)));
        }
    }
}

/// The server or role that was probably meant.
pub(super) fn suggestion(site: &Site, name: &str) -> String {
    let mut names: Vec<&str> = site.servers.iter().map(|server| server.name.as_str()).collect();
    names.extend(crate::plan::Role::ALL.map(crate::plan::Role::as_str));
    nearest(name, &names).map_or_else(
        || "; add a `[[server]]` or correct the name".to_owned(),
        |near| format!("; did you mean `{near}`?"),
    )
}
