//! What one server has to do: its firewall, services, processes and listeners, derived from the site file.

mod bogons;
mod derive;
mod endpoint;
mod failover;
mod processes;
mod rules;
mod services;
mod sets;
pub(crate) mod show;
mod sources;
mod supervision;
mod tunnels;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;

use foobar_common::rules::Rule;
use ipnet::IpNet;
use serde::Serialize;

use crate::database::Follows;
use crate::database::sync::Mode;

pub use derive::{PlanError, plan};
pub use endpoint::Endpoint;
pub use rules::{CHECK_PORTS, PASSING_RULES_MAX, RULE_INTERFACES_MAX, RULES_MAX, derive_rules};
pub use services::serves;
pub use sets::{SetPlan, derive_sets};
pub use show::show;
pub use sources::admits;
pub use supervision::{FileContent, FilePlan, Limits, Ready, ReadyCheck, fill};
pub use tunnels::{TunnelPlan, tunnelled_vips};

/// Everything that the agent of one server does; a pure function of the site file and the server's name.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// The site's public name.
    pub domain: String,
    /// This server's name.
    pub server: String,
    /// This server's role.
    pub role: Role,
    /// This server's own addresses.
    pub addresses: Vec<IpAddr>,
    /// Interfaces that carry the firewall.
    pub interfaces: Vec<String>,
    /// VIPs that this server holds, see [`Plan::vip_interfaces`].
    pub vips: Vec<IpAddr>,
    /// Addresses from which the backends of its services see it, and which it therefore holds beside.
    pub sources: Vec<IpAddr>,
    /// Firewall rules in order, with where each comes from.
    pub rules: Vec<PlannedRule>,
    /// Named sets that the rules name, in the file's order.
    pub sets: Vec<SetPlan>,
    /// Whether a packet whose source is not routed back by the interface it came on is dropped.
    pub reverse_path: bool,
    /// Half-open connections of one listener above which SYNs are answered with cookies; 0: never.
    pub syn_cookies: u32,
    /// Established flows through a balancer at the most, of each address family.
    pub flows: u32,
    /// Tunnels that begin or end here.
    pub tunnels: TunnelPlan,
    /// What is fenced once this server's lease to be the primary is over; `None`: it needs none.
    pub fence: Option<FencePlan>,
    /// Services in this server's tables.
    pub services: Vec<ServicePlan>,
    /// TLS services terminated here; empty on all but balancers.
    pub edge: Vec<EdgeService>,
    /// Processes that this server runs, in start order.
    pub processes: Vec<ProcessPlan>,
    /// The witness of the database's lease; `None` on all but one balancer.
    pub witness: Option<WitnessPlan>,
    /// Where `/metrics` is served.
    pub metrics: Vec<SocketAddr>,
}

impl Plan {
    /// Interfaces that may hold the VIPs. A backend whose packets bear the VIP holds them on the loopback interface, so
    /// that it never says that they are its own.
    #[must_use]
    pub fn vip_interfaces(&self) -> &[String] {
        if self.role == Role::Balancer { &self.interfaces } else { &[] }
    }

    /// Every address that it holds beside its own.
    #[must_use]
    pub fn held(&self) -> Vec<IpAddr> {
        [self.vips.as_slice(), &self.sources].concat()
    }
}

/// The fence of a database server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FencePlan {
    /// Port of PostgreSQL.
    pub port: u16,
    /// Addresses of the other database servers, which are answered at any time.
    pub peers: Vec<IpAddr>,
}

/// A server's role in the site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Terminates TLS and spreads connections.
    Balancer,
    /// Runs nginx.
    Web,
    /// Runs the site's own program.
    App,
    /// Runs PostgreSQL.
    Database,
    /// Runs Prometheus.
    Monitor,
}

impl Role {
    /// Every role, in the order of a packet's way through the site.
    pub const ALL: [Self; 5] = [Self::Balancer, Self::Web, Self::App, Self::Database, Self::Monitor];

    /// The role's name in the site file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Balancer => "balancer",
            Self::Web => "web",
            Self::App => "app",
            Self::Database => "database",
            Self::Monitor => "monitor",
        }
    }
}

/// A firewall rule and its origin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlannedRule {
    /// What the packet path enforces.
    #[serde(flatten)]
    pub rule: Rule,
    /// Where it comes from.
    pub origin: Origin,
}

/// Where a rule comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// A `[[rule]]` of the site file, at this line.
    Line(usize),
    /// Derived, and from what: `service app`, `[site] admin`, …
    Derived(String),
}

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

/// Certificates of one server, PEM files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TlsFiles {
    /// The site's CA.
    pub ca: PathBuf,
    /// This server's certificate chain.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
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

/// How the lease of the database is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FailoverPlan {
    /// All database servers, with their addresses.
    pub servers: Vec<(String, IpAddr)>,
    /// Whom those follow that do not follow the leader.
    pub follows: Follows,
    /// What happens to writes while no replica is there.
    pub mode: Mode,
    /// How long the lease lasts, in milliseconds.
    pub ttl_ms: u64,
    /// Where it is kept.
    pub store: StorePlan,
    /// What it proves itself there with.
    pub tls: TlsFiles,
}

/// Where the lease is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StorePlan {
    /// The witness in this balancer's agent.
    Witness {
        /// Its server.
        server: String,
        /// Where it listens.
        addresses: Vec<SocketAddr>,
    },
    /// An etcd cluster.
    Etcd {
        /// Its members.
        endpoints: Vec<Endpoint>,
        /// What all keys of the site begin with.
        prefix: String,
    },
}

/// A witness that this server keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WitnessPlan {
    /// Where it listens.
    pub listen: Vec<SocketAddr>,
    /// Its certificates.
    pub tls: TlsFiles,
    /// Database servers: who may ask.
    pub servers: Vec<String>,
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
