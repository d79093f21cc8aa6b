//! `[database]` against servers, services and processes.

use foobar_common::abi::MAX_FREE;

use super::names::suggestion;
use crate::plan::Role;
use crate::site::at::At;
use crate::site::model::{Server, Site, SiteCheckKind, SiteProcess};
use crate::site::section::Collector;

pub(super) fn check(site: &Site, faults: &Collector) {
    let Some(database) = &site.database else {
        missing(site, faults);
        return;
    };
    witness_port(site, &database.witness_port, faults);
    match site.server(&database.primary) {
        Some(server) if server.role == Role::Database => {}
        Some(server) => {
            let message = format!(
                "`{}` is a {} server; the primary must have `role = \"database\"`",
                server.name.value,
                server.role.as_str()
            );
            faults.error(database.primary.span, message);
        }
        None => {
            let name = &database.primary.value;
            faults.error(database.primary.span, format!("no server is called `{name}`{}", suggestion(site, name)));
        }
    }
    let addresses = site.of_role(Role::Database).flat_map(Server::addresses).count();
    if addresses > MAX_FREE {
        let message = format!("the database servers have {addresses} addresses, and {MAX_FREE} are the limit");
        faults.error(database.primary.span, message);
    }
}

/// The witness listens on the balancer's own addresses.
fn witness_port(site: &Site, port: &At<u16>, faults: &Collector) {
    if port.value == site.metrics_port.value {
        faults.error(port.span, format!("port {} is every agent's /metrics; choose another one", port.value));
    }
    if let Some(service) =
        site.services.iter().find(|service| service.listen.iter().any(|vip| vip.port() == port.value))
    {
        let message = format!("port {} is that of service `{}`; choose another one", port.value, service.name.value);
        faults.error(port.span, message);
    }
}

/// What cannot be without `[database]`.
fn missing(site: &Site, faults: &Collector) {
    let add = "add `[database]` with its name, user, password files and primary";
    for server in site.of_role(Role::Database) {
        faults.error(
            server.name.span,
            format!("server `{}` is a database and the site has none; {add}", server.name.value),
        );
    }
    for process in site.processes.iter().filter(|process| process.kind == SiteProcess::Postgres) {
        faults.error(process.name.span, format!("process `{}` is PostgreSQL; {add}", process.name.value));
    }
    for service in site.services.iter().filter(|service| service.check.kind == SiteCheckKind::Postgres) {
        faults.error(service.name.span, format!("service `{}` is checked by logging in; {add}", service.name.value));
    }
}
