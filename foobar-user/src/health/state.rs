//! What is known about every backend: the snapshot that readers get.

use std::net::SocketAddr;
use std::time::Instant;

use serde::Serialize;

use super::eject::Ejection;
use super::order::Order;
use super::verdict::Status;
use super::{DatabaseRole, PrimaryLog, members};
use crate::plan::{Eject, Select};

/// Health of all services of one server.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct HealthState {
    /// In the order of the plan.
    pub services: Vec<ServiceHealth>,
}

/// Health of one service.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ServiceHealth {
    /// The service's name.
    pub name: String,
    /// Which backends may be members.
    pub select: Select,
    /// Seconds in which a backend that has recovered gets its full weight; 0: at once.
    pub slow_start_s: u32,
    /// When a backend that takes no connections is taken out.
    pub eject: Eject,
    /// The primary's log, by which replicas are measured.
    #[serde(skip)]
    pub log: PrimaryLog,
    /// Each address of each backend, in the order of the plan.
    pub backends: Vec<BackendHealth>,
}

/// Health of one address of a backend.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BackendHealth {
    /// The backend's server.
    pub server: String,
    /// Where it is checked.
    pub address: SocketAddr,
    /// Its weight in the site file.
    pub weight: u32,
    /// Whether it is given connections only while no other backend is healthy.
    pub fallback: bool,
    /// What operators want of it.
    pub order: Order,
    /// The verdict.
    pub status: Status,
    /// When it came up again after it had been down.
    #[serde(skip)]
    pub recovered: Option<Instant>,
    /// Whether it is taken out because it takes no connections.
    #[serde(skip)]
    pub ejection: Ejection,
    /// What a database server said last.
    pub role: Option<DatabaseRole>,
    /// Whether it is a replica too far behind to take reads.
    pub late: bool,
    /// Why the last check failed; `None` after a success.
    pub failure: Option<String>,
    /// Checks by result.
    pub checks: CheckCounts,
}

/// Checks of one backend by result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CheckCounts {
    /// Answered as they should.
    pub success: u64,
    /// Refused, broken off or answered wrongly.
    pub failure: u64,
    /// Not answered in time.
    pub timeout: u64,
}

/// A backend's address that is given connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its server.
    pub server: String,
    /// Its endpoint.
    pub address: SocketAddr,
    /// What it is given beside the others, in hundredths of a weight; not 0.
    pub weight: u32,
}

impl HealthState {
    /// Members of a service, in the order of the plan; empty for an unknown one.
    #[must_use]
    pub fn members(&self, service: &str) -> Vec<Member> {
        self.services.iter().find(|candidate| candidate.name == service).map_or_else(Vec::new, ServiceHealth::members)
    }
}

impl ServiceHealth {
    /// Members: `Any`, every healthy backend; `Primary`, a healthy one that takes writes; `Replica`, the healthy ones in
    /// recovery that are not too far behind, and while there is none the primary, where the site lets it, so that reads go on.
    /// Backends that step in are members only while there is no other.
    #[must_use]
    pub fn members(&self) -> Vec<Member> {
        let now = Instant::now();
        members::choose(self.select, &self.backends)
            .into_iter()
            .map(|backend| Member {
                server: backend.server.clone(),
                address: backend.address,
                weight: members::share(backend, self.slow_start_s, now),
            })
            .collect()
    }

    /// Whether members' weights change with time.
    #[must_use]
    pub fn starts_slowly(&self) -> bool {
        let now = Instant::now();
        self.backends.iter().any(|backend| members::is_starting(backend, self.slow_start_s, now))
    }
}

impl BackendHealth {
    /// A backend of which nothing is known yet.
    #[must_use]
    pub fn new(server: String, address: SocketAddr) -> Self {
        Self {
            server,
            address,
            weight: 1,
            fallback: false,
            order: Order::default(),
            status: Status::Unknown,
            recovered: None,
            ejection: Ejection::default(),
            role: None,
            late: false,
            failure: None,
            checks: CheckCounts::default(),
        }
    }

    /// The weight in force: an operator's before the site file's.
    #[must_use]
    pub fn weight(&self) -> u32 {
        self.order.weight.unwrap_or(self.weight)
    }
}
