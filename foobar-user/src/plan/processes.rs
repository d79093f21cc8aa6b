//! A server's processes, in the file's order, with everything that their configurations are written from.

use std::net::SocketAddr;

use super::failover;
use super::services::encrypts;
use super::sources::Sources;
use super::{
    NginxListener, NginxPlan, PostgresPlan, ProcessKind, ProcessPlan, PrometheusPlan, PrometheusTarget, Role, Transport,
};
use crate::pki;
use crate::site::{Database, Forward, Process, Server, Site, SiteProcess};

pub(super) fn derive(site: &Site, server: &Server) -> Vec<ProcessPlan> {
    let mine = site.processes.iter().filter(|process| process.runs_on(server));
    mine.filter_map(|process| one(site, process, server)).collect()
}

fn one(site: &Site, process: &Process, server: &Server) -> Option<ProcessPlan> {
    let kind = match &process.kind {
        SiteProcess::Command { command, environment } => ProcessKind::Command {
            command: command.iter().map(|word| filled(word, site, server)).collect(),
            environment: environment.iter().map(|(name, value)| (name.clone(), filled(value, site, server))).collect(),
        },
        SiteProcess::Nginx { root, dynamic, upstream } => ProcessKind::Nginx(NginxPlan {
            domain: site.domain.value.clone(),
            root: root.value.clone(),
            listeners: listeners(site, server),
            dynamic: dynamic.clone(),
            upstream: upstream.as_ref().and_then(|name| upstream_of(site, name, server)),
            tls: pki::server_files(site, &server.name),
            balancers: site.of_role(Role::Balancer).flat_map(Server::addresses).collect(),
        }),
        SiteProcess::Postgres => ProcessKind::Postgres(postgres(site, site.database.as_ref()?, server)?),
        SiteProcess::Prometheus { port, rules } => ProcessKind::Prometheus(PrometheusPlan {
            listen: SocketAddr::new(server.address.value, port.value),
            targets: site.servers.iter().map(|target| target_of(site, target)).collect(),
            rules: rules.as_ref().map(|rules| rules.value.clone()),
        }),
    };
    Some(ProcessPlan {
        name: process.name.value.clone(),
        kind,
        user: process.user.clone(),
        stop_signal: process.stop_signal.clone(),
        stop_timeout_ms: process.stop_timeout_ms,
    })
}

/// A word with its placeholders replaced, each once: what a placeholder brings is not looked at again.
fn filled(word: &str, site: &Site, server: &Server) -> String {
    let mut filled = String::with_capacity(word.len());
    let mut rest = word;
    while let Some(start) = rest.find('{') {
        filled.push_str(&rest[..start]);
        rest = &rest[start..];
        let value = |name: &str| match name {
            "address" => Some(server.address.to_string()),
            "server" => Some(server.name.value.clone()),
            "domain" => Some(site.domain.value.clone()),
            _ => None,
        };
        match rest[1..].split_once('}').and_then(|(name, after)| Some((value(name)?, after))) {
            Some((value, after)) => {
                filled.push_str(&value);
                rest = after;
            }
            None => {
                filled.push('{');
                rest = &rest[1..];
            }
        }
    }
    filled.push_str(rest);
    filled
}

/// Every port that a service leads to on this server's role, on each of its addresses.
fn listeners(site: &Site, server: &Server) -> Vec<NginxListener> {
    let mut list: Vec<NginxListener> = Vec::new();
    for service in &site.services {
        if service.to.role != server.role || service.protocol != Transport::Tcp {
            continue;
        }
        let vips = service.listen.iter().filter(|_| matches!(service.forward, Forward::Direct | Forward::Tunnel));
        for address in server.addresses().chain(vips.map(|listen| listen.ip())) {
            let address = SocketAddr::new(address, service.to.port);
            if !list.iter().any(|listener| listener.address == address) {
                list.push(NginxListener { address, tls: encrypts(service) });
            }
        }
    }
    list
}

/// The VIP of a service, of a family that this server has if there is one.
fn upstream_of(site: &Site, service: &str, server: &Server) -> Option<SocketAddr> {
    let vips =
        || site.service(service).into_iter().flat_map(|service| service.listen.iter().map(|listen| listen.value));
    vips().find(|vip| server.addresses().any(|address| address.is_ipv6() == vip.is_ipv6())).or_else(|| vips().next())
}

fn postgres(site: &Site, database: &Database, server: &Server) -> Option<PostgresPlan> {
    let port = site.database_port();
    // The agent logs in over the server's own addresses to watch its PostgreSQL.
    let own = Sources::nobody().with_servers(std::iter::once(server)).into_prefixes();
    let services = site.services.iter().filter(|service| service.to.role == Role::Database);
    let from = services.fold(Vec::new(), |mut peers, service| {
        peers.extend(service.from.iter().cloned());
        peers
    });
    let mut clients = Sources::of(site, &from).into_prefixes();
    clients.extend(
        own.into_iter().filter(|prefix| !clients.iter().any(|client| client.contains(prefix))).collect::<Vec<_>>(),
    );
    let primary = site.server(&database.primary)?;
    let peers = site.of_role(Role::Database).filter(|peer| peer.name != server.name);
    Some(PostgresPlan {
        listen: server.addresses().collect(),
        port,
        server: server.name.value.clone(),
        primary: primary.name.value.clone(),
        primary_address: primary.address.value,
        peers: peers.flat_map(Server::addresses).collect(),
        clients,
        database: database.name.clone(),
        user: database.user.clone(),
        password_file: database.password_file.value.clone(),
        replication_password_file: database.replication_password_file.value.clone(),
        tls: Some(pki::server_files(site, &server.name)),
        settings: database.settings.clone(),
        failover: failover::of(site, server),
    })
}

fn target_of(site: &Site, server: &Server) -> PrometheusTarget {
    PrometheusTarget {
        server: server.name.value.clone(),
        role: server.role,
        address: SocketAddr::new(server.address.value, site.metrics_port.value),
    }
}
