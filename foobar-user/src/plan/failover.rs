//! Who keeps the lease of the database, and how its servers reach them.

use std::net::{IpAddr, SocketAddr};

use serde::Serialize;

use super::{Endpoint, Role, TlsFiles};
use crate::database::Follows;
use crate::database::sync::Mode;
use crate::pki;
use crate::site::{Database, Server, Site, SiteProcess};

/// The fence of a database server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FencePlan {
    /// Port of PostgreSQL.
    pub port: u16,
    /// Addresses of the other database servers, which are answered at any time.
    pub peers: Vec<IpAddr>,
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

/// `[database]` of a site with several database servers: with one there is nobody to take over.
fn several(site: &Site) -> Option<&Database> {
    site.of_role(Role::Database).nth(1)?;
    site.database.as_ref()
}

/// The server whose agent is the witness: the first balancer of the file. `None`: there is none, or etcd in its place.
fn witness_of(site: &Site) -> Option<(&Server, &Database)> {
    let database = several(site).filter(|database| database.etcd.is_none())?;
    Some((site.of_role(Role::Balancer).next()?, database))
}

fn addresses(witness: &Server, database: &Database) -> Vec<SocketAddr> {
    witness.addresses().map(|address| SocketAddr::new(address, database.witness_port.value)).collect()
}

/// Where the lease is kept. `None`: nobody fails over, because there is only one database server, or nobody to ask.
fn store_of(site: &Site) -> Option<StorePlan> {
    let database = several(site)?;
    match &database.etcd {
        Some(etcd) => Some(StorePlan::Etcd {
            endpoints: etcd.endpoints.iter().map(|endpoint| endpoint.value.clone()).collect(),
            prefix: format!("/foobar/{}/", site.domain.value),
        }),
        None => {
            let (witness, database) = witness_of(site)?;
            let server = witness.name.value.clone();
            Some(StorePlan::Witness { server, addresses: addresses(witness, database) })
        }
    }
}

/// What a server proves itself with where the lease is kept: its own files, but for those that the site names for etcd.
fn files(site: &Site, server: &Server) -> TlsFiles {
    let mut files = pki::server_files(site, &server.name);
    let Some(etcd) = site.database.as_ref().and_then(|database| database.etcd.as_ref()) else { return files };
    if let Some(ca) = &etcd.ca {
        files.ca = ca.value.clone();
    }
    if let Some((certificate, key)) = &etcd.identity {
        (files.certificate, files.key) = (certificate.value.clone(), key.value.clone());
    }
    files
}

/// A database server's part.
pub(super) fn of(site: &Site, server: &Server) -> Option<FailoverPlan> {
    let (database, store) = (several(site)?, store_of(site)?);
    let servers = site.of_role(Role::Database);
    Some(FailoverPlan {
        servers: servers.map(|server| (server.name.value.clone(), server.address.value)).collect(),
        follows: follows(site),
        mode: database.mode,
        ttl_ms: database.lease_ms,
        store,
        tls: files(site, server),
    })
}

/// Whom database servers follow that do not follow the leader.
fn follows(site: &Site) -> Follows {
    let named = |server: &Server| Some((server.name.value.clone(), server.follows.as_ref()?.value.clone()));
    site.of_role(Role::Database).filter_map(named).collect()
}

/// The witness's part.
pub(super) fn witness(site: &Site, server: &Server) -> Option<WitnessPlan> {
    let (witness, database) = witness_of(site)?;
    (witness.name == server.name).then(|| WitnessPlan {
        listen: addresses(witness, database),
        tls: pki::server_files(site, &server.name),
        servers: site.of_role(Role::Database).map(|server| server.name.value.clone()).collect(),
    })
}

/// The fence of a server whose PostgreSQL needs a lease.
pub(super) fn fence(site: &Site, server: &Server) -> Option<FencePlan> {
    store_of(site)?;
    let runs = |process: &&crate::site::Process| process.kind == SiteProcess::Postgres && process.runs_on(server);
    site.processes.iter().find(runs)?;
    let others = site.of_role(Role::Database).filter(|other| other.name != server.name);
    Some(FencePlan { port: site.database_port(), peers: others.flat_map(Server::addresses).collect() })
}
