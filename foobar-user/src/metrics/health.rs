//! Metrics of the health checks that this server runs.

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::{encode, names};

/// State of every backend that this server checks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Health {
    /// One entry for each address of each backend of each service; those of one backend become one series.
    pub backends: Vec<BackendHealth>,
}

/// State of one address of one backend of one service.
#[derive(Clone, Debug, PartialEq)]
pub struct BackendHealth {
    /// The service's name.
    pub service: String,
    /// The backend's server name.
    pub backend: String,
    /// It passes its checks, whatever its database role.
    pub up: bool,
    /// It is up and has the role that the service selects, so the kernel's tables have it.
    pub member: bool,
    /// It is taken out, because it takes no connections.
    pub ejected: bool,
    /// Times that it was.
    pub ejections: u64,
    /// Of a replica: seconds and bytes that it is behind, and whether that is too much.
    pub lag: Option<(f64, i64, bool)>,
    /// Checks that were answered as they should.
    pub success: u64,
    /// Checks that were refused, broken off or answered wrongly.
    pub failure: u64,
    /// Checks that were not answered in time.
    pub timeout: u64,
}

impl Collector for Health {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        // One failing address is a fault to tell; one usable address still makes the backend a member.
        let mut backends = BTreeMap::new();
        let mut ejections = BTreeMap::new();
        for backend in &self.backends {
            let (up, member) = backends.entry(backend.labels()).or_insert((true, false));
            *up &= backend.up;
            *member |= backend.member;
            let (ejected, times) = ejections.entry(backend.labels()).or_insert((false, 0));
            *ejected |= backend.ejected;
            *times += backend.ejections;
        }
        encode::gauge(encoder, &names::BACKEND_UP, backends.iter().map(|(of, (up, _))| (*of, u64::from(*up))))?;
        let members = backends.iter().map(|(of, (_, member))| (*of, u64::from(*member)));
        encode::gauge(encoder, &names::BACKEND_MEMBER, members)?;
        let ejected = ejections.iter().map(|(of, (ejected, _))| (*of, u64::from(*ejected)));
        encode::gauge(encoder, &names::BACKEND_EJECTED, ejected)?;
        encode::counter(encoder, &names::BACKEND_EJECTIONS, ejections.iter().map(|(of, (_, times))| (*of, *times)))?;
        let replicas = || self.backends.iter().filter_map(|backend| backend.lag.map(|lag| (backend.labels(), lag)));
        encode::gauge(encoder, &names::BACKEND_LAG_SECONDS, replicas().map(|(of, (seconds, ..))| (of, seconds)))?;
        encode::gauge(encoder, &names::BACKEND_LAG_BYTES, replicas().map(|(of, (_, bytes, _))| (of, bytes)))?;
        encode::gauge(encoder, &names::BACKEND_LATE, replicas().map(|(of, (.., late))| (of, u64::from(late))))?;
        let checks = self.backends.iter().flat_map(|b| {
            let [service, backend] = b.labels();
            let results = [("success", b.success), ("failure", b.failure), ("timeout", b.timeout)];
            results.map(|(result, count)| ([service, backend, result], count))
        });
        encode::counter(encoder, &names::BACKEND_CHECKS, checks)
    }
}

impl BackendHealth {
    fn labels(&self) -> [&str; 2] {
        [&self.service, &self.backend]
    }
}
