//! A server's processes, in the order in which they start, with everything that their configurations are written from.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;
use serde::Serialize;

use super::failover::{self, FailoverPlan};
use super::services::{Transport, encrypts};
use super::sources::Sources;
use super::{FileContent, FilePlan, Limits, Ready, ReadyCheck, Role, TlsFiles, fill};
use crate::pki;
use crate::site::{
    Database, Forward, Process, Server, Site, SiteContent, SiteFile, SiteProcess, SiteReady, SiteReadyCheck,
};

/// A process that this server runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProcessPlan {
    /// Its name: label of its metrics, name of its cgroup and log file.
    pub name: String,
    /// What it is.
    pub kind: ProcessKind,
    /// Account it runs as; `None`: the kind's own (`www-data`, `postgres`, `prometheus`), `nobody` for commands.
    pub user: Option<String>,
    /// Signal that asks it to stop, without `SIG`; `None`: the kind's own.
    pub stop_signal: Option<String>,
    /// Time until SIGKILL, in milliseconds.
    pub stop_timeout_ms: u64,
    /// Processes of this server that must be ready before it starts.
    pub after: Vec<String>,
    /// When it counts as ready; `None`: when it runs, or as its kind knows.
    pub ready: Option<Ready>,
    /// What it may use.
    pub limits: Limits,
}

/// What a process is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ProcessKind {
    /// Any program.
    Command {
        /// Program and arguments.
        command: Vec<String>,
        /// Its whole environment beside `PATH`.
        environment: BTreeMap<String, String>,
        /// Folder it runs in; `None`: `/`.
        folder: Option<PathBuf>,
        /// Files that are written before it starts.
        files: Vec<FilePlan>,
        /// Signal that makes it read its files again, without `SIG`; `None`: it is restarted when they change.
        reload_signal: Option<String>,
    },
    /// nginx, its configuration written from the plan.
    Nginx(NginxPlan),
    /// PostgreSQL, its cluster made from the plan.
    Postgres(Box<PostgresPlan>),
    /// Prometheus, its configuration written from the plan.
    Prometheus(PrometheusPlan),
}

/// What nginx serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NginxPlan {
    /// The site's public name.
    pub domain: String,
    /// Folder of static files.
    pub root: PathBuf,
    /// Addresses it listens on.
    pub listeners: Vec<NginxListener>,
    /// Path prefixes that are forwarded.
    pub dynamic: Vec<String>,
    /// VIP of the service they are forwarded to.
    pub upstream: Option<SocketAddr>,
    /// Certificates of its TLS listeners.
    pub tls: TlsFiles,
    /// Addresses of the balancers: whose forwarding headers are believed.
    pub balancers: Vec<IpAddr>,
}

/// An address that nginx listens on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NginxListener {
    /// Address and port.
    pub address: SocketAddr,
    /// TLS, requiring a client certificate of the site's CA.
    pub tls: bool,
}

/// A PostgreSQL server of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PostgresPlan {
    /// Addresses it listens on.
    pub listen: Vec<IpAddr>,
    /// Port.
    pub port: u16,
    /// This server's name.
    pub server: String,
    /// The server that is initialised as primary.
    pub primary: String,
    /// The primary's address.
    pub primary_address: IpAddr,
    /// The other database servers.
    pub peers: Vec<IpAddr>,
    /// Who may log in to the database.
    pub clients: Vec<IpNet>,
    /// Database made at initialisation.
    pub database: String,
    /// Its owner.
    pub user: String,
    /// File with the owner's password.
    pub password_file: PathBuf,
    /// File with the replication role's password.
    pub replication_password_file: PathBuf,
    /// Certificates of replication; `None`: it is plain text.
    pub tls: Option<TlsFiles>,
    /// The operator's settings.
    pub settings: BTreeMap<String, String>,
    /// How another server takes over; `None`: nobody does.
    pub failover: Option<FailoverPlan>,
}

/// What Prometheus scrapes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PrometheusPlan {
    /// Address and port of its own pages.
    pub listen: SocketAddr,
    /// Every agent of the site.
    pub targets: Vec<PrometheusTarget>,
    /// File of alert rules.
    pub rules: Option<PathBuf>,
}

/// One agent that Prometheus scrapes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PrometheusTarget {
    /// The server's name.
    pub server: String,
    /// Its role.
    pub role: Role,
    /// Where its metrics are.
    pub address: SocketAddr,
}

pub(super) fn derive(site: &Site, server: &Server) -> Vec<ProcessPlan> {
    in_order(site, server).into_iter().filter_map(|process| one(site, process, server)).collect()
}

fn one(site: &Site, process: &Process, server: &Server) -> Option<ProcessPlan> {
    let kind = match &process.kind {
        SiteProcess::Command { command, environment, folder, files, reload_signal } => {
            let values = values(site, server);
            ProcessKind::Command {
                command: command.iter().map(|word| fill(word, &values)).collect(),
                environment: environment.iter().map(|(name, value)| (name.clone(), fill(value, &values))).collect(),
                folder: folder.as_ref().map(|folder| folder.value.clone()),
                files: files.iter().map(|file| file_of(file, &values)).collect(),
                reload_signal: reload_signal.clone(),
            }
        }
        SiteProcess::Nginx { root, dynamic, upstream } => ProcessKind::Nginx(NginxPlan {
            domain: site.domain.value.clone(),
            root: root.value.clone(),
            listeners: listeners(site, server),
            dynamic: dynamic.clone(),
            upstream: upstream.as_ref().and_then(|name| upstream_of(site, name, server)),
            tls: pki::server_files(site, &server.name),
            balancers: site.of_role(Role::Balancer).flat_map(Server::addresses).collect(),
        }),
        SiteProcess::Postgres => ProcessKind::Postgres(Box::new(postgres(site, site.database.as_ref()?, server)?)),
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
        after: before(site, process, server).map(|other| other.name.value.clone()).collect(),
        ready: process.ready.as_ref().map(|ready| ready_of(ready, site, server)),
        limits: process.limits.value,
    })
}

/// Processes of this server that start before this one.
fn before<'a>(site: &'a Site, process: &'a Process, server: &'a Server) -> impl Iterator<Item = &'a Process> {
    let named = |other: &&Process| process.after.contains(&other.name);
    site.processes.iter().filter(|other| other.runs_on(server)).filter(named)
}

/// In the file's order, but for those that start after others.
fn in_order<'a>(site: &'a Site, server: &'a Server) -> Vec<&'a Process> {
    let mut left: Vec<&Process> = site.processes.iter().filter(|process| process.runs_on(server)).collect();
    let mut order: Vec<&Process> = Vec::with_capacity(left.len());
    while !left.is_empty() {
        let free = |process: &&Process| {
            before(site, process, server).all(|other| order.iter().any(|placed| placed.name == other.name))
        };
        // The check of the site file has refused circles; one would be broken here at its first process.
        let next = left.iter().position(free).unwrap_or(0);
        order.push(left.remove(next));
    }
    order
}

fn file_of(file: &SiteFile, values: &[(String, String)]) -> FilePlan {
    let content = match &file.content {
        SiteContent::Text(text) => FileContent::Text(fill(text, values)),
        SiteContent::Template(path) => FileContent::Template { path: path.value.clone(), values: values.to_vec() },
    };
    FilePlan { path: file.path.value.clone(), content, mode: file.mode }
}

fn ready_of(ready: &SiteReady, site: &Site, server: &Server) -> Ready {
    let at = |address: Option<IpAddr>, port| SocketAddr::new(address.unwrap_or(server.address.value), port);
    let check = match &ready.check {
        SiteReadyCheck::Tcp { port, address } => ReadyCheck::Tcp(at(*address, *port)),
        SiteReadyCheck::Http { port, address, path } => {
            ReadyCheck::Http { address: at(*address, *port), path: path.clone() }
        }
        SiteReadyCheck::Script(command) => {
            let values = values(site, server);
            ReadyCheck::Script(command.iter().map(|word| fill(word, &values)).collect())
        }
    };
    Ready { check, timeout_ms: ready.timeout_ms }
}

/// What placeholders stand for.
fn values(site: &Site, server: &Server) -> Vec<(String, String)> {
    vec![
        ("address".to_owned(), server.address.to_string()),
        ("server".to_owned(), server.name.value.clone()),
        ("domain".to_owned(), site.domain.value.clone()),
    ]
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
