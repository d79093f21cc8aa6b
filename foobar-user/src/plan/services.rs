//! A server's services: what its sockets and its wire reach by a VIP, and what its edge terminates.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;

use serde::Serialize;

use super::sources::{Sources, admits};
use super::{Role, TlsFiles};
use crate::pki;
use crate::site::{At, Forward, Server, Service, Site, SiteCheckKind, Tls};

/// A service in this server's tables.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ServicePlan {
    /// The service's name: label of its counters.
    pub name: String,
    /// Transport protocol.
    pub protocol: Transport,
    /// Virtual addresses and ports.
    pub vips: Vec<SocketAddr>,
    /// Which hooks serve it.
    pub scope: Scope,
    /// Addresses from which backends see connections from the wire; empty: they see the clients'.
    pub sources: Vec<IpAddr>,
    /// How connections are spread.
    pub balance: Balance,
    /// Which backends may be members.
    pub select: Select,
    /// Backends in the order of the site file.
    pub backends: Vec<BackendPlan>,
    /// How members are checked.
    pub check: Check,
}

/// How a service's connections are spread over its backends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Balance {
    /// Which backend is next.
    pub schedule: Schedule,
    /// Connections of one backend at the most; 0: as many as come.
    pub max_connections: u32,
    /// Seconds for which a client stays with its backend; 0: it does not.
    pub affinity_s: u32,
    /// Seconds in which a backend that has recovered gets its full weight; 0: at once.
    pub slow_start_s: u32,
    /// When a backend that takes no connections is taken out.
    pub eject: Eject,
}

/// When a backend that takes no connections is taken out, whatever its checks say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Eject {
    /// Connections in a row that it has not taken; 0: it never is.
    pub failures: u32,
    /// Seconds for which it is out the first time.
    pub time_s: u32,
}

impl Eject {
    /// It never is.
    pub const NEVER: Self = Self { failures: 0, time_s: 0 };
}

/// Which backend is given the next connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// One after the other, each as often as its weight says.
    #[default]
    RoundRobin,
    /// The one with the fewest for its weight.
    LeastConnections,
    /// The one that the client's address and port point to, on every balancer alike.
    Maglev,
}

impl Schedule {
    /// Its name in the site file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RoundRobin => "round-robin",
            Self::LeastConnections => "least-connections",
            Self::Maglev => "maglev",
        }
    }
}

/// Transport protocol of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// Which hooks serve a service on this server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// XDP with NAT, and local sockets.
    Nat,
    /// XDP without NAT: by the backends' MAC addresses, which have the VIP, too; and local sockets.
    Direct,
    /// XDP without NAT: in packets to the backends' own addresses, which have the VIP, too; and local sockets.
    Tunnel,
    /// Local sockets only (`cgroup/connect4`, `connect6`).
    Local,
}

/// Which backends may be members of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Select {
    /// Every healthy one.
    Any,
    /// The one database server that takes writes.
    Primary,
    /// The database servers in recovery.
    Replica(Reads),
}

/// Which replicas take reads, and who does when none may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Reads {
    /// Seconds that a replica may be behind; `None`: as many as it is.
    pub max_lag_s: Option<u32>,
    /// Bytes of log that it may have yet to replay; `None`: as many as it has.
    pub max_lag_bytes: Option<u64>,
    /// Whether the primary takes reads while no replica may.
    pub fallback_to_primary: bool,
}

impl Default for Reads {
    fn default() -> Self {
        Self { max_lag_s: None, max_lag_bytes: None, fallback_to_primary: true }
    }
}

/// One backend of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BackendPlan {
    /// The backend's server name: label of its counters.
    pub server: String,
    /// Its endpoints, at most one a family.
    pub addresses: Vec<SocketAddr>,
    /// What it is given beside the others; 0: nothing new.
    pub weight: u32,
    /// Whether it is given connections only while no other backend is healthy.
    pub fallback: bool,
}

/// A health check.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Check {
    /// What is asked.
    pub kind: CheckKind,
    /// Time between checks, in milliseconds.
    pub interval_ms: u64,
    /// Time after which a check has failed, in milliseconds.
    pub timeout_ms: u64,
    /// Successes in a row that bring a backend up.
    pub rise: u32,
    /// Failures in a row that take a backend down.
    pub fall: u32,
}

/// What a health check asks.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckKind {
    /// A TCP connection is accepted.
    Tcp,
    /// A TLS handshake succeeds, with the server's name and the site's CA.
    Tls(TlsFiles),
    /// A request is answered as it should be.
    Http(HttpCheck),
    /// A program ends with exit code 0; it finds `FOOBAR_SERVER`, `FOOBAR_ADDRESS` and `FOOBAR_PORT` in its environment.
    Script(Vec<String>),
    /// A log-in succeeds and `pg_is_in_recovery()` tells the role.
    Postgres {
        /// Database to log in to.
        database: String,
        /// Role to log in as.
        user: String,
        /// File with the role's password.
        password_file: PathBuf,
    },
}

/// A request, and how it should be answered.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HttpCheck {
    /// Path of the request.
    pub path: String,
    /// `Host` of the request; the name that a certificate must bear is the server's name.
    pub host: String,
    /// Status codes that are good.
    pub status: RangeInclusive<u16>,
    /// What the body must contain; `None`: anything.
    pub body: Option<String>,
    /// Certificates for mTLS; `None`: plain HTTP.
    pub tls: Option<TlsFiles>,
}

/// A TLS service that `foobar edge` terminates here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EdgeService {
    /// The service's name: label of its counters.
    pub name: String,
    /// The site's public name.
    pub domain: String,
    /// Where TLS is accepted.
    pub listen: Vec<SocketAddr>,
    /// Where plain HTTP is redirected from.
    pub redirect: Vec<SocketAddr>,
    /// The public certificate chain, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// The local VIP by which the edge reaches its backends.
    pub upstream: SocketAddr,
    /// Server names that backends' certificates may bear.
    pub upstream_servers: Vec<String>,
    /// mTLS towards the backends; `None`: plain HTTP.
    pub upstream_tls: Option<TlsFiles>,
}

/// Whether this server has the service in its tables, and therefore checks its backends.
#[must_use]
pub fn serves(site: &Site, service: &Service, server: &Server) -> bool {
    match service.forward {
        Forward::Tls(_) | Forward::Nat | Forward::Direct | Forward::Tunnel => server.role == Role::Balancer,
        Forward::Socket => admits(site, &service.from, server),
    }
}

/// From where a service's checks come.
pub(super) fn check_sources(site: &Site, service: &Service) -> Sources {
    Sources::nobody().with_servers(site.servers.iter().filter(|server| serves(site, service, server)))
}

/// Services in this server's tables, in the file's order.
pub(super) fn derive(site: &Site, server: &Server) -> Vec<ServicePlan> {
    let mine = site.services.iter().filter(|service| serves(site, service, server));
    mine.map(|service| one(site, service, server)).collect()
}

fn one(site: &Site, service: &Service, server: &Server) -> ServicePlan {
    let vips = match &service.forward {
        Forward::Tls(_) => upstreams(site, service),
        Forward::Nat | Forward::Direct | Forward::Tunnel | Forward::Socket => {
            service.listen.iter().map(|listen| listen.value).collect()
        }
    };
    ServicePlan {
        name: service.name.value.clone(),
        protocol: service.protocol,
        vips,
        scope: match service.forward {
            Forward::Nat => Scope::Nat,
            Forward::Direct => Scope::Direct,
            Forward::Tunnel => Scope::Tunnel,
            Forward::Tls(_) | Forward::Socket => Scope::Local,
        },
        sources: service.sources.iter().map(|source| source.value).collect(),
        balance: balance(service),
        select: service.select,
        backends: backends(site, service),
        check: check(site, service, server),
    }
}

/// Endpoints by which the edge reaches its backends: each VIP at the backends' port, in families that they have.
fn upstreams(site: &Site, service: &Service) -> Vec<SocketAddr> {
    let mut list = Vec::new();
    for listen in &service.listen {
        let upstream = SocketAddr::new(listen.ip(), service.to.port);
        let reached =
            site.of_role(service.to.role).flat_map(Server::addresses).any(|a| a.is_ipv6() == listen.is_ipv6());
        if reached && !list.contains(&upstream) {
            list.push(upstream);
        }
    }
    list
}

fn backends(site: &Site, service: &Service) -> Vec<BackendPlan> {
    let endpoints = |server: &Server| server.addresses().map(|a| SocketAddr::new(a, service.to.port)).collect();
    let named = |server: &Server, name: &At<String>| name.value == server.name.value;
    let weight = |server: &Server| {
        let given = service.balance.weights.iter().find(|(name, _)| named(server, name));
        given.map_or(1, |(_, weight)| u32::try_from(*weight).unwrap_or(u32::MAX))
    };
    site.of_role(service.to.role)
        .map(|server| BackendPlan {
            server: server.name.value.clone(),
            addresses: endpoints(server),
            weight: weight(server),
            fallback: service.balance.fallback.iter().any(|name| named(server, name)),
        })
        .collect()
}

const fn balance(service: &Service) -> Balance {
    let balance = &service.balance;
    Balance {
        schedule: balance.schedule,
        max_connections: balance.max_connections,
        affinity_s: balance.affinity_s,
        slow_start_s: balance.slow_start_s,
        eject: balance.eject,
    }
}

fn check(site: &Site, service: &Service, server: &Server) -> Check {
    let kind = match (&service.check.kind, &site.database) {
        (SiteCheckKind::Http(check), _) => CheckKind::Http(HttpCheck {
            path: check.path.clone(),
            host: check.host.clone().unwrap_or_else(|| site.domain.value.clone()),
            status: check.status.clone(),
            body: check.body.clone(),
            tls: encrypts(service).then(|| pki::server_files(site, &server.name)),
        }),
        (SiteCheckKind::Tls, _) => CheckKind::Tls(pki::server_files(site, &server.name)),
        (SiteCheckKind::Script(command), _) => CheckKind::Script(command.clone()),
        (SiteCheckKind::Postgres, Some(database)) => CheckKind::Postgres {
            database: database.name.clone(),
            user: database.user.clone(),
            password_file: database.password_file.value.clone(),
        },
        // Validation refuses a postgres check without a database.
        (SiteCheckKind::Tcp, _) | (SiteCheckKind::Postgres, None) => CheckKind::Tcp,
    };
    let check = &service.check;
    Check { kind, interval_ms: check.interval_ms, timeout_ms: check.timeout_ms, rise: check.rise, fall: check.fall }
}

/// Whether a service's connections to its backends are mTLS.
pub(super) fn encrypts(service: &Service) -> bool {
    matches!(&service.forward, Forward::Tls(tls) if tls.encrypt)
}

/// TLS services that end at this server.
pub(super) fn edge(site: &Site, server: &Server) -> Vec<EdgeService> {
    if server.role != Role::Balancer {
        return Vec::new();
    }
    let terminated = site.services.iter().filter_map(|service| match &service.forward {
        Forward::Tls(tls) => terminate(site, service, tls, server),
        Forward::Nat | Forward::Direct | Forward::Tunnel | Forward::Socket => None,
    });
    terminated.collect()
}

fn terminate(site: &Site, service: &Service, tls: &Tls, server: &Server) -> Option<EdgeService> {
    let mut redirect = Vec::new();
    for listen in &service.listen {
        if let Some(port) = tls.redirect_port
            && !redirect.contains(&SocketAddr::new(listen.ip(), port))
        {
            redirect.push(SocketAddr::new(listen.ip(), port));
        }
    }
    Some(EdgeService {
        name: service.name.value.clone(),
        domain: site.domain.value.clone(),
        listen: service.listen.iter().map(|listen| listen.value).collect(),
        redirect,
        certificate: tls.certificate.value.clone(),
        key: tls.key.value.clone(),
        // Validation refuses a TLS service none of whose VIPs reaches a backend.
        upstream: upstreams(site, service).first().copied()?,
        upstream_servers: site.of_role(service.to.role).map(|server| server.name.value.clone()).collect(),
        upstream_tls: tls.encrypt.then(|| pki::server_files(site, &server.name)),
    })
}
