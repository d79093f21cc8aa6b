//! `/metrics` of an agent: one snapshot of each subsystem a scrape, written as OpenMetrics.
//!
//! Nothing is counted here. Each scrape asks the sources (kernel maps, health checks, supervised processes, nginx,
//! PostgreSQL, the edge, `/proc`) and writes what they said, so a number is the source's own and is never counted
//! twice. A source that fails or is late leaves its metrics out and is `0` in `foobar_metrics_source_up`; the others
//! are told all the same. Labels come from the plan and from closed sets, never from a client.

mod agent;
pub mod certificates;
pub mod dashboard;
pub mod database;
pub mod datapath;
pub mod edge;
mod encode;
pub mod family;
pub mod health;
pub mod host;
pub mod names;
pub mod nginx;
pub mod postgres;
pub mod processes;
pub mod serve;
pub mod text;
mod unix;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use prometheus_client::collector::Collector;
use prometheus_client::registry::Registry;
use tokio::sync::Mutex;

pub use agent::Reloads;
pub use dashboard::dashboard_queries;
pub use serve::{BindError, Listeners, Render};

/// A source inside the agent: gives a snapshot when it is asked. It may block for a moment; it runs in a thread of its own.
pub type Source<T> = Arc<dyn Fn() -> anyhow::Result<T> + Send + Sync>;

/// What one server's agent tells; `None` is what this server does not have.
#[derive(Default)]
pub struct Sources {
    /// The kernel's maps.
    pub datapath: Option<Source<datapath::Datapath>>,
    /// Health checks.
    pub health: Option<Source<health::Health>>,
    /// Supervised processes.
    pub processes: Option<Source<processes::Processes>>,
    /// The lease of the database.
    pub database: Option<Source<database::Database>>,
    /// Reloads of the site file.
    pub reloads: Option<Source<Reloads>>,
    /// Certificates whose expiry is told.
    pub certificates: Vec<certificates::Watched>,
    /// The agent's state folder: with it the host's metrics are told, and the use of the folder's file system.
    pub state_dir: Option<PathBuf>,
    /// nginx's status socket.
    pub nginx: Option<PathBuf>,
    /// PostgreSQL.
    pub postgres: Option<postgres::Target>,
    /// The edge's metrics socket.
    pub edge: Option<PathBuf>,
}

/// The metrics of one agent.
pub struct Metrics {
    // A lock over the whole scrape: clients that scrape at once ask the sources one after the other.
    inner: Mutex<Inner>,
}

struct Inner {
    sources: Sources,
    postgres: Option<postgres::Exporter>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// Metrics of these sources.
    pub fn new(sources: Sources) -> Self {
        let postgres = sources.postgres.clone().map(postgres::Exporter::new);
        Self { inner: Mutex::new(Inner { sources, postgres }) }
    }

    /// Takes other sources, after a reload. The connection to the same PostgreSQL is kept.
    pub async fn replace(&self, sources: Sources) {
        let mut inner = self.inner.lock().await;
        if inner.postgres.as_ref().map(postgres::Exporter::target) != sources.postgres.as_ref() {
            inner.postgres = sources.postgres.clone().map(postgres::Exporter::new);
        }
        inner.sources = sources;
    }

    /// Asks every source and writes OpenMetrics text, `# EOF` included.
    ///
    /// # Errors
    /// Only when the text itself cannot be written; a failed source is told by `foobar_metrics_source_up`.
    pub async fn render(&self) -> anyhow::Result<String> {
        let inner = self.inner.lock().await;
        inner.render().await
    }

    /// What [`Listeners::serve`] needs.
    pub fn renderer(self: &Arc<Self>) -> Render {
        let metrics = Arc::clone(self);
        Arc::new(move || {
            let metrics = Arc::clone(&metrics);
            Box::pin(async move { metrics.render().await })
        })
    }
}

impl Inner {
    async fn render(&self) -> anyhow::Result<String> {
        let sources = &self.sources;
        let host = sources.state_dir.clone().map(|folder| Arc::new(move || host::Host::read(&folder)) as Source<_>);
        let watched = sources.certificates.clone();
        let certificates = Arc::new(move || Ok(certificates::Certificates::read(&watched))) as Source<_>;
        let certificates = (!sources.certificates.is_empty()).then_some(certificates);
        let (datapath, health, processes, database, reloads, host, certificates, nginx, postgres, edge) = tokio::join!(
            snapshot("datapath", sources.datapath.as_ref()),
            snapshot("health", sources.health.as_ref()),
            snapshot("processes", sources.processes.as_ref()),
            snapshot("database", sources.database.as_ref()),
            snapshot("reloads", sources.reloads.as_ref()),
            snapshot("host", host.as_ref()),
            snapshot("certificates", certificates.as_ref()),
            async { Some(nginx::Nginx::read(sources.nginx.as_ref()?).await) },
            async { Some(self.postgres.as_ref()?.read().await) },
            async { Some(edge::read(sources.edge.as_ref()?).await) },
        );
        let mut scrape = Scrape::default();
        scrape.add("datapath", datapath);
        scrape.add("health", health);
        scrape.add("processes", processes);
        scrape.add("database", database);
        scrape.add("reloads", reloads);
        scrape.add("host", host);
        scrape.add("certificates", certificates);
        scrape.add("nginx", nginx.map(|nginx| (nginx.0.is_some(), Some(nginx))));
        scrape.add("postgres", postgres.map(|postgres| (postgres.0.is_some(), Some(postgres))));
        let edge = edge.map(|text| match text {
            Ok(text) => (true, text),
            Err(error) => {
                tracing::debug!("metrics: the edge does not tell its metrics: {error:#}");
                (false, String::new())
            }
        });
        if let Some((answered, _)) = edge {
            scrape.told.sources.push(("edge", answered));
        }
        scrape.write(edge.map(|(_, text)| text).as_deref().unwrap_or_default())
    }
}

/// Asks a source of the agent; what it did not tell is `None`, with whether it answered.
async fn snapshot<T: Send + 'static>(name: &str, source: Option<&Source<T>>) -> Option<(bool, Option<T>)> {
    let source = Arc::clone(source?);
    let asked = unix::in_time(async { tokio::task::spawn_blocking(move || source()).await.context("it panicked")? });
    match asked.await {
        Ok(snapshot) => Some((true, Some(snapshot))),
        Err(error) => {
            tracing::warn!("metrics: the source {name} failed: {error:#}");
            Some((false, None))
        }
    }
}

/// The answers of one scrape.
#[derive(Default)]
struct Scrape {
    told: agent::Scrape,
    registry: Registry,
}

impl Scrape {
    fn add<T: Collector>(&mut self, name: &'static str, answer: Option<(bool, Option<T>)>) {
        let Some((answered, snapshot)) = answer else { return };
        self.told.sources.push((name, answered));
        if let Some(snapshot) = snapshot {
            self.registry.register_collector(Box::new(snapshot));
        }
    }

    fn write(mut self, appended: &str) -> anyhow::Result<String> {
        self.registry.register_collector(Box::new(self.told));
        let mut text = String::new();
        prometheus_client::encoding::text::encode_registry(&mut text, &self.registry)
            .context("the metrics cannot be written")?;
        text.push_str(appended);
        text.push_str("# EOF\n");
        Ok(text)
    }
}
