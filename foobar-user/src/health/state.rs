//! What is known about every backend: the snapshot that readers get.

use std::net::SocketAddr;

use serde::Serialize;

use super::verdict::Status;
use super::{DatabaseRole, members};
use crate::plan::Select;

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
    /// The verdict.
    pub status: Status,
    /// What a database server said last.
    pub role: Option<DatabaseRole>,
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

impl HealthState {
    /// Members of a service, in the order of the plan; empty for an unknown one.
    #[must_use]
    pub fn members(&self, service: &str) -> Vec<(String, SocketAddr)> {
        self.services.iter().find(|candidate| candidate.name == service).map_or_else(Vec::new, ServiceHealth::members)
    }
}

impl ServiceHealth {
    /// Members: `Any`, every healthy backend; `Primary`, a healthy one that takes writes; `Replica`, the healthy ones in
    /// recovery, and while there is none the primary, so that reads go on.
    #[must_use]
    pub fn members(&self) -> Vec<(String, SocketAddr)> {
        members::choose(self.select, &self.backends)
            .into_iter()
            .map(|backend| (backend.server.clone(), backend.address))
            .collect()
    }
}
