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

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use foobar_common::rules::Rule;
use serde::Serialize;

pub use derive::{PlanError, plan};
pub use endpoint::Endpoint;
pub use failover::{FailoverPlan, FencePlan, StorePlan, WitnessPlan};
pub use processes::{
    NginxListener, NginxPlan, PostgresPlan, ProcessKind, ProcessPlan, PrometheusPlan, PrometheusTarget,
};
pub use rules::{CHECK_PORTS, PASSING_RULES_MAX, RULE_INTERFACES_MAX, RULES_MAX, derive_rules};
pub use services::{
    BackendPlan, Balance, Check, CheckKind, EdgeService, Eject, HttpCheck, Reads, Schedule, Scope, Select, ServicePlan,
    Transport, serves,
};
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
