//! `follows` of database servers: whom it names, that nobody follows in a circle, and that somebody is left to take over.

use super::names::suggestion;
use crate::database::sync::Mode;
use crate::plan::Role;
use crate::site::at::At;
use crate::site::model::{Database, Server, Site};
use crate::site::section::Collector;

pub(super) fn check(site: &Site, faults: &Collector) {
    let Some(database) = &site.database else { return };
    let followers: Vec<(&Server, &At<String>)> =
        site.of_role(Role::Database).filter_map(|server| Some((server, server.follows.as_ref()?))).collect();
    for (server, follows) in &followers {
        if let Some(why) = fault(site, database, server, follows) {
            faults.error(follows.span, why);
        }
    }
    nobody_left(site, database, &followers, faults);
}

/// What is wrong with one of them.
fn fault(site: &Site, database: &Database, server: &Server, follows: &At<String>) -> Option<String> {
    let name = &server.name.value;
    let Some(other) = site.server(follows) else {
        return Some(format!("no server is called `{}`{}", follows.value, suggestion(site, follows)));
    };
    if other.role != Role::Database {
        let role = other.role.as_str();
        return Some(format!("`{}` is a {role} server; only a database server can be followed", follows.value));
    }
    if other.name == server.name {
        return Some(format!("`{name}` cannot follow itself; name another one, or leave it out to follow the leader"));
    }
    if *database.primary == *name {
        return Some(format!("`{name}` is the `primary`, which leads first: who follows another one never leads"));
    }
    if site.of_role(Role::Balancer).next().is_none() && database.etcd.is_none() {
        return Some("this needs a lease, which a balancer's agent or `etcd` in [database] keeps".to_owned());
    }
    circle(site, server).map(|way| format!("{way}: nobody of them gets the leader's log; let one follow the leader"))
}

/// The way from a server back to itself.
fn circle(site: &Site, server: &Server) -> Option<String> {
    let (mut way, mut at) = (vec![server.name.value.as_str()], server);
    loop {
        at = site.server(at.follows.as_ref()?)?;
        if at.name == server.name {
            return Some(format!("{} follows itself by way of {}", way[0], way[1..].join(", ")));
        }
        if way.contains(&at.name.value.as_str()) {
            // A circle that it only leads into; told where that one stands.
            return None;
        }
        way.push(&at.name.value);
    }
}

/// Commits wait for those alone that follow the leader, and they alone may take over.
fn nobody_left(site: &Site, database: &Database, followers: &[(&Server, &At<String>)], faults: &Collector) {
    let Some((_, follows)) = followers.first() else { return };
    if site.of_role(Role::Database).count() > followers.len() + 1 {
        return;
    }
    let primary = &database.primary.value;
    match database.mode {
        Mode::Strict => faults.error(
            follows.span,
            format!(
                "every database server but `{primary}` follows another one, so none can be in sync, and with \
                 `mode = \"strict\"` every write would wait for ever; let one follow the leader"
            ),
        ),
        Mode::Available { .. } => faults.warning(
            follows.span,
            format!(
                "every database server but `{primary}` follows another one: none is ever in sync, and nobody takes over \
                 from `{primary}`; let one follow the leader"
            ),
        ),
    }
}
