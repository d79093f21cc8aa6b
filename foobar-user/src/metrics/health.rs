//! Metrics of the health checks that this server runs.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::{encode, names};

/// State of every backend that this server checks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// One entry for each backend of each service.
    pub backends: Vec<BackendHealth>,
}

/// State of one backend of one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendHealth {
    /// The service's name.
    pub service: String,
    /// The backend's server name.
    pub backend: String,
    /// It passes its checks, whatever its database role.
    pub up: bool,
    /// It is up and has the role that the service selects, so the kernel's tables have it.
    pub member: bool,
    /// Checks that passed since the agent's start.
    pub passed: u64,
    /// Checks that failed since the agent's start.
    pub failed: u64,
}

impl Collector for Health {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        let backends = &self.backends;
        encode::gauge(encoder, &names::BACKEND_UP, backends.iter().map(|b| (b.labels(), u64::from(b.up))))?;
        encode::gauge(encoder, &names::BACKEND_MEMBER, backends.iter().map(|b| (b.labels(), u64::from(b.member))))?;
        let checks = backends.iter().flat_map(|b| {
            let [service, backend] = b.labels();
            [([service, backend, "pass"], b.passed), ([service, backend, "fail"], b.failed)]
        });
        encode::counter(encoder, &names::BACKEND_CHECKS, checks)
    }
}

impl BackendHealth {
    fn labels(&self) -> [&str; 2] {
        [&self.service, &self.backend]
    }
}
