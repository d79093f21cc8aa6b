//! Processes against servers and services: kinds stand on their roles, ports are free, upstreams are reachable.

use crate::plan::{Role, admits};
use crate::site::at::At;
use crate::site::model::{Forward, Process, Server, Site, SiteProcess};
use crate::site::section::{Collector, nearest};

/// Names under which the agent keeps processes of its own.
const RESERVED: [&str; 2] = ["agent", "edge"];

pub(super) fn check(site: &Site, faults: &Collector) {
    for process in &site.processes {
        if RESERVED.contains(&process.name.value.as_str()) {
            let message = format!("`{}` is the agent's own name for a process; choose another", process.name.value);
            faults.error(process.name.span, message);
        }
        placed(site, process, faults);
        match &process.kind {
            SiteProcess::Nginx { upstream, .. } => nginx(site, process, upstream.as_ref(), faults),
            SiteProcess::Prometheus { port, .. } if port.value == site.metrics_port.value => {
                let message =
                    format!("port {} is the agent's own /metrics on every server; choose another", port.value);
                faults.error(port.span, message);
            }
            _ => {}
        }
    }
    for server in &site.servers {
        one_of_a_kind(site, server, faults);
    }
}

/// The role that a kind belongs to; `None`: any.
fn role_of(kind: &SiteProcess) -> Option<(&'static str, Role)> {
    match kind {
        SiteProcess::Postgres => Some(("postgres", Role::Database)),
        SiteProcess::Prometheus { .. } => Some(("prometheus", Role::Monitor)),
        SiteProcess::Nginx { .. } => Some(("nginx", Role::Web)),
        SiteProcess::Command { .. } => None,
    }
}

/// Firewalls are derived from roles, so a kind elsewhere would run unreachable.
fn placed(site: &Site, process: &Process, faults: &Collector) {
    let Some((kind, role)) = role_of(&process.kind) else { return };
    for place in &process.on {
        if let Some(server) = site.servers.iter().find(|server| place.holds(server) && server.role != role) {
            let message = format!(
                "{kind} runs on servers of the role `{}`, and `{}` is of the role `{}`; its firewall would not let anybody in",
                role.as_str(),
                server.name.value,
                server.role.as_str(),
            );
            faults.error(place.span, message);
        }
    }
}

fn nginx(site: &Site, process: &Process, upstream: Option<&At<String>>, faults: &Collector) {
    if !site.services.iter().any(|service| service.to.role == Role::Web) {
        let message =
            format!("process `{}` has nothing to listen on: no service says `to = \"web:…\"`", process.name.value);
        faults.error(process.name.span, message);
    }
    let Some(upstream) = upstream else { return };
    let Some(service) = site.service(upstream) else {
        let names: Vec<&str> = site.services.iter().map(|service| service.name.as_str()).collect();
        let hint =
            nearest(upstream, &names).map_or_else(|| "add it".to_owned(), |near| format!("did you mean `{near}`?"));
        faults.error(upstream.span, format!("no service is called `{}`; {hint}", upstream.value));
        return;
    };
    if service.forward != Forward::Socket {
        let message = format!(
            "service `{}` is served by the balancer; an upstream is a service with `forward = \"socket\"`",
            upstream.value
        );
        faults.error(upstream.span, message);
        return;
    }
    let outside = site.servers.iter().find(|server| process.runs_on(server) && !admits(site, &service.from, server));
    if let Some(server) = outside {
        let message = format!(
            "service `{}` does not admit server `{}`; add it to the service's `from`",
            upstream.value, server.name.value
        );
        faults.error(upstream.span, message);
    }
}

/// Two of one kind on a server would share a port or a data folder.
fn one_of_a_kind(site: &Site, server: &Server, faults: &Collector) {
    let mut seen: Vec<(&str, &str)> = Vec::new();
    for process in site.processes.iter().filter(|process| process.runs_on(server)) {
        let Some((kind, _)) = role_of(&process.kind) else { continue };
        if let Some((_, other)) = seen.iter().find(|(seen, _)| *seen == kind) {
            let message = format!(
                "server `{}` would run {kind} twice: `{other}` and `{}`; leave one out",
                server.name.value, process.name.value,
            );
            faults.error(process.name.span, message);
        } else {
            seen.push((kind, process.name.as_str()));
        }
    }
}
