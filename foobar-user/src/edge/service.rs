//! One service as one worker sees it: certificates, hosts, where its backends are, its pool, its counters.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};

use super::config::ServiceConfig;
use super::host::Hosts;
use super::limits::{self, ms};
use super::metrics::{ServiceStats, WorkerStats};
use super::pool::Pool;
use super::tls;
use crate::certificates;

/// What all workers share of a service: immutable.
pub(crate) struct Shared {
    /// Its configuration.
    pub(crate) config: ServiceConfig,
    /// End of its certificate, seconds since 1970.
    pub(crate) expiry: i64,
    /// TLS towards clients.
    pub(crate) server: Arc<ServerConfig>,
    /// TLS towards backends, and the server name sent.
    pub(crate) client: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

impl Shared {
    /// Parses what the parent passed.
    pub(crate) fn new(config: ServiceConfig) -> anyhow::Result<Self> {
        let client = match &config.upstream_tls {
            Some(upstream) => {
                let name = ServerName::try_from(config.domain.clone()).context("the domain as a server name")?;
                Some((tls::client(upstream, &config.upstream_servers)?, name))
            }
            None => None,
        };
        let server = tls::server(&config.identity)?;
        Ok(Self { expiry: certificates::expiry(&config.identity.certificate)?, server, client, config })
    }
}

/// A service in one worker's thread.
pub(crate) struct Service {
    /// What the workers share.
    pub(crate) shared: Arc<Shared>,
    /// Hosts it answers for.
    pub(crate) hosts: Hosts,
    /// Its idle backend connections.
    pub(crate) pool: Pool,
    /// Its counters.
    pub(crate) stats: Arc<ServiceStats>,
    /// The worker's counters.
    pub(crate) worker: Arc<WorkerStats>,
    /// Whether the process is about to end.
    pub(crate) draining: Rc<Cell<bool>>,
    warned: Cell<Option<Instant>>,
}

impl Service {
    /// The service number `index` of a worker.
    pub(crate) fn new(shared: Arc<Shared>, index: usize, worker: Arc<WorkerStats>, draining: Rc<Cell<bool>>) -> Self {
        let hosts = Hosts::new(&shared.config.domain, &shared.config.listen);
        let stats = worker.service(index);
        let pool = Pool::new(shared.config.upstream_servers.len());
        Self { shared, hosts, pool, stats, worker, draining, warned: Cell::new(None) }
    }

    /// Logs a fault of the backends, at most one a second.
    pub(crate) fn warn(&self, what: &dyn std::fmt::Display) {
        let now = Instant::now();
        if self.warned.get().is_none_or(|last| now.duration_since(last) > ms(limits::WARNING_MS)) {
            self.warned.set(Some(now));
            tracing::warn!(service = %self.shared.config.name, upstream = %self.shared.config.upstream, "backend: {what}");
        }
    }
}
