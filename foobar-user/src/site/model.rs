//! What a validated site file says: the input of every derivation. Values that later checks point at keep their place.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;

use foobar_common::rules::{Action, FlagMatch, Protocol};
use ipnet::IpNet;

use super::at::{At, Span};
use crate::database::sync::Mode;
use crate::plan::{Eject, Endpoint, Limits, Role, Schedule, Select, Transport};

/// A site: one value for one file. Paths in it are absolute or relative to the working folder, never to the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Site {
    /// The site's public name.
    pub domain: At<String>,
    /// From where ssh is never closed.
    pub admin: Vec<At<IpNet>>,
    /// Folder of the site's own CA and certificates.
    pub pki: At<PathBuf>,
    /// Port of every agent's `/metrics`.
    pub metrics_port: At<u16>,
    /// Half-open connections of one listener above which SYNs are answered with cookies; 0: never.
    pub syn_cookies: u32,
    /// Established flows through a balancer at the most, of each address family.
    pub flows: u32,
    /// Servers in the file's order.
    pub servers: Vec<Server>,
    /// Services in the file's order.
    pub services: Vec<Service>,
    /// The database, where there is one.
    pub database: Option<Database>,
    /// Processes in the file's order: also the order in which a server starts them.
    pub processes: Vec<Process>,
    /// Named sets in the file's order.
    pub sets: Vec<Set>,
    /// Rules that derivation cannot know, in the file's order.
    pub rules: Vec<UserRule>,
}

impl Site {
    /// The server of this name.
    #[must_use]
    pub fn server(&self, name: &str) -> Option<&Server> {
        self.servers.iter().find(|server| *server.name == name)
    }

    /// The service of this name.
    #[must_use]
    pub fn service(&self, name: &str) -> Option<&Service> {
        self.services.iter().find(|service| *service.name == name)
    }

    /// The set of this name.
    #[must_use]
    pub fn set(&self, name: &str) -> Option<&Set> {
        self.sets.iter().find(|set| *set.name == name)
    }

    /// Servers of a role, in the file's order.
    pub fn of_role(&self, role: Role) -> impl Iterator<Item = &Server> {
        self.servers.iter().filter(move |server| server.role == role)
    }

    /// Port of PostgreSQL: what the services to the database name, else 5432.
    #[must_use]
    pub fn database_port(&self) -> u16 {
        let mut services = self.services.iter().filter(|service| service.to.role == Role::Database);
        services.next().map_or(5432, |service| service.to.port)
    }
}

/// A server.
#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    /// Its name.
    pub name: At<String>,
    /// Its role.
    pub role: Role,
    /// Its address.
    pub address: At<IpAddr>,
    /// Its IPv6 address, when `address` is IPv4.
    pub address6: Option<At<Ipv6Addr>>,
    /// The networks that these lie in, as far as the file says.
    pub networks: Vec<IpNet>,
    /// Interfaces that carry the firewall.
    pub interfaces: Vec<At<String>>,
    /// Those of them that face the internet.
    pub outside: Vec<At<String>>,
    /// The database server whose log it receives in place of the leader's.
    pub follows: Option<At<String>>,
    /// Whether a packet whose source is not routed back by the interface it came on is dropped.
    pub reverse_path: bool,
}

impl Server {
    /// Every address of the server.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + Clone + '_ {
        std::iter::once(self.address.value).chain(self.address6.iter().map(|address| IpAddr::V6(address.value)))
    }

    /// The network of its address of this family, if the file says.
    #[must_use]
    pub fn network(&self, v6: bool) -> Option<IpNet> {
        self.networks.iter().copied().find(|network| network.addr().is_ipv6() == v6)
    }
}

/// A service: a virtual address whose connections are spread over the servers of a role.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Its name.
    pub name: At<String>,
    /// Virtual addresses and ports.
    pub listen: Vec<At<SocketAddr>>,
    /// Transport protocol.
    pub protocol: Transport,
    /// The backends.
    pub to: At<Target>,
    /// How connections reach them.
    pub forward: Forward,
    /// Addresses of the balancer's own from which backends see connections; empty: they see the clients'.
    pub sources: Vec<At<IpAddr>>,
    /// How connections are spread over them.
    pub balance: Balance,
    /// Who may connect.
    pub from: Vec<At<Peer>>,
    /// Which backends may be members.
    pub select: Select,
    /// How members are checked.
    pub check: SiteCheck,
}

/// The backends of a service: a port of every server of a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Whose servers.
    pub role: Role,
    /// Their port.
    pub port: u16,
}

/// How connections are spread over a service's backends.
#[derive(Clone, Debug, PartialEq)]
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
    /// Weights by server; others have 1, and 0 is given nothing new.
    pub weights: Vec<(At<String>, u64)>,
    /// Servers that are given connections only while no other is healthy.
    pub fallback: Vec<At<String>>,
}

/// How connections to a service reach its backends.
#[derive(Clone, Debug, PartialEq)]
pub enum Forward {
    /// Terminated by `foobar edge` on the balancer.
    Tls(Tls),
    /// Rewritten by XDP on the balancer.
    Nat,
    /// Sent on by XDP on the balancer to the MAC addresses of backends that have the VIP themselves, and answer without it.
    Direct,
    /// Sent by XDP on the balancer in packets to the backends' own addresses, also across routers; for the rest as `Direct`.
    Tunnel,
    /// Rewritten at `connect()` on the servers in `from`.
    Socket,
}

/// A service's TLS.
#[derive(Clone, Debug, PartialEq)]
pub struct Tls {
    /// The public certificate chain, PEM.
    pub certificate: At<PathBuf>,
    /// Its private key, PEM.
    pub key: At<PathBuf>,
    /// Port from which plain HTTP is redirected; `None`: no such port.
    pub redirect_port: Option<u16>,
    /// mTLS to the backends with the site's own CA.
    pub encrypt: bool,
}

/// Who may connect: an entry of `from`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Everybody.
    Any,
    /// The servers of a role.
    Role(Role),
    /// One server.
    Server(String),
    /// A prefix.
    Prefix(IpNet),
    /// What a named set holds; only in rules.
    Set(String),
}

/// A `[set.name]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Set {
    /// Its name.
    pub name: At<String>,
    /// Prefixes that the site file itself holds.
    pub prefixes: Vec<At<IpNet>>,
    /// A file with more of them, one a line.
    pub file: Option<At<PathBuf>>,
}

/// A service's health check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteCheck {
    /// What is asked.
    pub kind: SiteCheckKind,
    /// Time between checks, in milliseconds.
    pub interval_ms: u64,
    /// Time after which a check has failed, in milliseconds.
    pub timeout_ms: u64,
    /// Successes in a row that bring a backend up.
    pub rise: u32,
    /// Failures in a row that take a backend down.
    pub fall: u32,
    /// Where it stands.
    pub span: Span,
}

/// What a health check asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SiteCheckKind {
    /// A connection is accepted.
    Tcp,
    /// A TLS handshake succeeds.
    Tls,
    /// A request is answered as it should be.
    Http(SiteHttpCheck),
    /// A program of the site's own ends with exit code 0.
    Script(Vec<String>),
    /// A log-in succeeds and tells the role.
    Postgres,
}

/// A request of a health check, and how it should be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteHttpCheck {
    /// Its path.
    pub path: String,
    /// Its `Host`; `None`: the site's domain.
    pub host: Option<String>,
    /// Status codes that are good.
    pub status: RangeInclusive<u16>,
    /// What the body must contain; `None`: anything.
    pub body: Option<String>,
}

/// The database of the site.
#[derive(Clone, Debug, PartialEq)]
pub struct Database {
    /// Database made at initialisation.
    pub name: String,
    /// Its owner.
    pub user: String,
    /// File with the owner's password.
    pub password_file: At<PathBuf>,
    /// File with the replication role's password.
    pub replication_password_file: At<PathBuf>,
    /// The server that makes the cluster, and leads it first.
    pub primary: At<String>,
    /// What happens to writes while no replica is there.
    pub mode: Mode,
    /// How long the lease of the leader lasts, in milliseconds.
    pub lease_ms: u64,
    /// Port of the witness.
    pub witness_port: At<u16>,
    /// The etcd cluster that keeps the lease in place of the witness.
    pub etcd: Option<Etcd>,
    /// The operator's settings of PostgreSQL.
    pub settings: BTreeMap<String, String>,
}

/// An etcd cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Etcd {
    /// Its members.
    pub endpoints: Vec<At<Endpoint>>,
    /// CA of its members' certificates; `None`: the site's.
    pub ca: Option<At<PathBuf>>,
    /// Certificate and key for it; `None`: each server's own.
    pub identity: Option<(At<PathBuf>, At<PathBuf>)>,
}

/// Where something runs: an entry of `on`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Every server of a role.
    Role(Role),
    /// One server.
    Server(String),
}

impl Place {
    /// Whether it names this server.
    #[must_use]
    pub fn holds(&self, server: &Server) -> bool {
        match self {
            Self::Role(role) => server.role == *role,
            Self::Server(name) => *server.name == *name,
        }
    }
}

/// A process.
#[derive(Clone, Debug, PartialEq)]
pub struct Process {
    /// Its name.
    pub name: At<String>,
    /// Where it runs.
    pub on: Vec<At<Place>>,
    /// What it is.
    pub kind: SiteProcess,
    /// Account it runs as.
    pub user: Option<String>,
    /// Signal that asks it to stop, without `SIG`.
    pub stop_signal: Option<String>,
    /// Time until SIGKILL, in milliseconds.
    pub stop_timeout_ms: u64,
    /// Processes that must be ready before it starts.
    pub after: Vec<At<String>>,
    /// When it counts as ready.
    pub ready: Option<SiteReady>,
    /// What it may use.
    pub limits: At<Limits>,
}

impl Process {
    /// Whether it runs on this server.
    #[must_use]
    pub fn runs_on(&self, server: &Server) -> bool {
        self.on.iter().any(|place| place.holds(server))
    }
}

/// When a process counts as ready.
#[derive(Clone, Debug, PartialEq)]
pub struct SiteReady {
    /// What is tried.
    pub check: SiteReadyCheck,
    /// Time in which it must succeed, in milliseconds.
    pub timeout_ms: u64,
}

/// What tells that a process is ready.
#[derive(Clone, Debug, PartialEq)]
pub enum SiteReadyCheck {
    /// It takes a connection.
    Tcp {
        /// Port.
        port: u16,
        /// `None`: the server's own address.
        address: Option<IpAddr>,
    },
    /// It answers a GET.
    Http {
        /// Port.
        port: u16,
        /// `None`: the server's own address.
        address: Option<IpAddr>,
        /// What is asked for.
        path: String,
    },
    /// A program ends with 0; placeholders are replaced.
    Script(Vec<String>),
}

/// A file that is written before a process starts.
#[derive(Clone, Debug, PartialEq)]
pub struct SiteFile {
    /// Its path, absolute.
    pub path: At<PathBuf>,
    /// What is in it.
    pub content: SiteContent,
    /// Its permissions.
    pub mode: u32,
}

/// What a written file holds; placeholders are replaced.
#[derive(Clone, Debug, PartialEq)]
pub enum SiteContent {
    /// This text.
    Text(String),
    /// The text of another file.
    Template(At<PathBuf>),
}

/// What a process is.
#[derive(Clone, Debug, PartialEq)]
pub enum SiteProcess {
    /// Any program; `{address}`, `{server}` and `{domain}` are replaced.
    Command {
        /// Program and arguments.
        command: Vec<String>,
        /// Its environment.
        environment: BTreeMap<String, String>,
        /// Folder it runs in.
        folder: Option<At<PathBuf>>,
        /// Files that are written before it starts.
        files: Vec<SiteFile>,
        /// Signal that makes it read them again, without `SIG`.
        reload_signal: Option<String>,
    },
    /// nginx.
    Nginx {
        /// Folder of static files.
        root: At<PathBuf>,
        /// Path prefixes that are forwarded.
        dynamic: Vec<String>,
        /// Service they are forwarded to.
        upstream: Option<At<String>>,
    },
    /// PostgreSQL.
    Postgres,
    /// Prometheus.
    Prometheus {
        /// Port of its pages.
        port: At<u16>,
        /// File of alert rules.
        rules: Option<At<PathBuf>>,
    },
}

/// A `[[rule]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct UserRule {
    /// Its name.
    pub name: At<String>,
    /// Its line in the file.
    pub line: usize,
    /// Servers that enforce it.
    pub on: Vec<At<Place>>,
    /// Whose packets.
    pub from: Vec<At<Peer>>,
    /// To where; empty: the server's own addresses and VIPs.
    pub to: Vec<At<Peer>>,
    /// Protocol, with its ports or types.
    pub protocol: Protocol,
    /// Source ports; empty: all.
    pub source_ports: Vec<RangeInclusive<u16>>,
    /// TCP flags.
    pub flags: Option<FlagMatch>,
    /// Interfaces by which they come; empty: all.
    pub interfaces: Vec<At<String>>,
    /// What happens to them.
    pub action: At<Action>,
    /// Events a second at the most; 0: none.
    pub log_per_second: u32,
}

impl UserRule {
    /// Whether this server enforces it.
    #[must_use]
    pub fn stands_on(&self, server: &Server) -> bool {
        self.on.iter().any(|place| place.holds(server))
    }
}
