//! Who keeps the lease of the database, and how its servers reach them.

use std::net::SocketAddr;

use super::{FailoverPlan, FencePlan, Role, StorePlan, WitnessPlan};
use crate::pki;
use crate::site::{Database, Server, Site, SiteProcess};

/// The server whose agent is the witness: the first balancer of the file. `None`: nobody fails over, because there is only one
/// database server, or nobody else to ask.
fn witness_of(site: &Site) -> Option<(&Server, &Database)> {
    let several = site.of_role(Role::Database).nth(1).is_some();
    let balancer = site.of_role(Role::Balancer).next().filter(|_| several)?;
    Some((balancer, site.database.as_ref()?))
}

fn endpoints(witness: &Server, database: &Database) -> Vec<SocketAddr> {
    witness.addresses().map(|address| SocketAddr::new(address, database.witness_port.value)).collect()
}

/// A database server's part.
pub(super) fn of(site: &Site, server: &Server) -> Option<FailoverPlan> {
    let (witness, database) = witness_of(site)?;
    let servers = site.of_role(Role::Database);
    Some(FailoverPlan {
        servers: servers.map(|server| (server.name.value.clone(), server.address.value)).collect(),
        mode: database.mode,
        ttl_ms: database.lease_ms,
        store: StorePlan::Witness { server: witness.name.value.clone(), addresses: endpoints(witness, database) },
        tls: pki::server_files(site, &server.name),
    })
}

/// The witness's part.
pub(super) fn witness(site: &Site, server: &Server) -> Option<WitnessPlan> {
    let (witness, database) = witness_of(site)?;
    (witness.name == server.name).then(|| WitnessPlan {
        listen: endpoints(witness, database),
        tls: pki::server_files(site, &server.name),
        servers: site.of_role(Role::Database).map(|server| server.name.value.clone()).collect(),
    })
}

/// The fence of a server whose PostgreSQL needs a lease.
pub(super) fn fence(site: &Site, server: &Server) -> Option<FencePlan> {
    witness_of(site)?;
    let runs = |process: &&crate::site::Process| process.kind == SiteProcess::Postgres && process.runs_on(server);
    site.processes.iter().find(runs)?;
    let others = site.of_role(Role::Database).filter(|other| other.name != server.name);
    Some(FencePlan { port: site.database_port(), peers: others.flat_map(Server::addresses).collect() })
}
