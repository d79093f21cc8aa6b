//! The agent's half of the edge: listeners that outlive edge processes, certificates read anew for each, and the start of one
//! as an unprivileged child. To replace an edge without a refused connection: `spawn` the new one, then SIGTERM the old one.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use tokio::process::{Child, Command};

use super::config::{EdgeConfig, ServiceConfig};
use super::{descend, listen};
use crate::certificates;
use crate::plan::EdgeService;

/// How edge processes are started.
#[derive(Clone, Debug)]
pub struct EdgeOptions {
    /// Account they run as; `None`: this process's own, which must not be root.
    pub user: Option<String>,
    /// cgroup v2 folder they are put in; made when missing. `None`: this process's own.
    pub cgroup: Option<PathBuf>,
    /// The binary `foobar`; usually `/proc/self/exe`.
    pub executable: PathBuf,
    /// Unix socket where an edge's metrics are read (`scrape`).
    pub metrics: PathBuf,
}

/// The edge as the agent holds it.
pub struct Edge {
    services: Vec<EdgeService>,
    options: EdgeOptions,
    workers: usize,
    listeners: HashMap<SocketAddr, Vec<OwnedFd>>,
    metrics: OwnedFd,
    last_good: EdgeConfig,
}

impl Edge {
    /// Reads and checks the certificates, and binds every listener. Starts nothing.
    ///
    /// # Errors
    /// A file that is missing, unreadable or unfit, an address that cannot be bound: with its name and what to do.
    pub fn prepare(services: &[EdgeService], options: EdgeOptions) -> anyhow::Result<Self> {
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        let listeners = bind(services, workers)?;
        let metrics = listen::bind_metrics(&options.metrics)?;
        let last_good = configuration(services, &listeners, workers, metrics.as_raw_fd())?;
        Ok(Self { services: services.to_vec(), options, workers, listeners, metrics, last_good })
    }

    /// Takes a changed plan: listeners that it lacks are bound, and none is closed before [`Edge::retire`], so that going
    /// back to the old plan finds the very sockets that the running edge accepts from.
    ///
    /// # Errors
    /// As `prepare`; then nothing has changed.
    pub fn replan(&mut self, services: &[EdgeService]) -> anyhow::Result<()> {
        let wanted = addresses(services);
        let fresh: Vec<SocketAddr> = wanted.iter().copied().filter(|at| !self.listeners.contains_key(at)).collect();
        let mut bound = HashMap::new();
        for address in fresh {
            bound.insert(address, listen::bind_all(address, self.workers)?);
        }
        let numbers = numbers(self.listeners.iter().chain(&bound));
        let last_good = assemble(services, &numbers, self.workers, self.metrics.as_raw_fd())?;
        self.listeners.extend(bound);
        (self.services, self.last_good) = (services.to_vec(), last_good);
        Ok(())
    }

    /// Closes the listeners that the plan does not have any more; the running edge keeps its own until it ends.
    pub fn retire(&mut self) {
        let wanted = addresses(&self.services);
        self.listeners.retain(|address, _| wanted.contains(address));
    }

    /// Starts an edge process with the certificates that are on disk now; with the last good ones when they cannot be used.
    ///
    /// Blocks for some file reads and the fork, and must be called within a tokio runtime. May be called while another edge
    /// runs: both take connections from the same listeners.
    ///
    /// # Errors
    /// When the account does not exist, the cgroup cannot be entered, or the program cannot be started.
    pub fn spawn(&mut self) -> io::Result<Child> {
        match configuration(&self.services, &self.listeners, self.workers, self.metrics.as_raw_fd()) {
            Ok(config) => self.last_good = config,
            Err(error) => tracing::warn!("edge: keeping the last good certificates: {error:#}"),
        }
        let text = serde_json::to_vec(&self.last_good)?;
        let mut passed: Vec<RawFd> = self.listeners.values().flatten().map(AsRawFd::as_raw_fd).collect();
        passed.push(self.metrics.as_raw_fd());
        let program = descend::Program::open(&self.options.executable)?;
        let mut command: Command = program.command();
        command.arg("edge").env_clear().current_dir("/").stdin(std::process::Stdio::null());
        if let Some(filter) = std::env::var_os("RUST_LOG") {
            command.env("RUST_LOG", filter);
        }
        let descent =
            descend::Descent::new(&text, passed, self.options.user.as_deref(), self.options.cgroup.as_deref())?;
        descent.spawn(&mut command)
    }

    /// Where the metrics of the running edge are read.
    #[must_use]
    pub fn metrics_path(&self) -> &Path {
        &self.options.metrics
    }
}

fn addresses(services: &[EdgeService]) -> Vec<SocketAddr> {
    services.iter().flat_map(|service| service.listen.iter().chain(&service.redirect)).copied().collect()
}

fn bind(services: &[EdgeService], workers: usize) -> anyhow::Result<HashMap<SocketAddr, Vec<OwnedFd>>> {
    let mut listeners = HashMap::new();
    for address in addresses(services) {
        // SO_REUSEPORT would let two services of ours share an address; the plan has told them apart.
        ensure!(!listeners.contains_key(&address), "two services of the edge listen on {address}");
        listeners.insert(address, listen::bind_all(address, workers)?);
    }
    Ok(listeners)
}

type Numbers = HashMap<SocketAddr, Vec<RawFd>>;

fn numbers<'a>(listeners: impl Iterator<Item = (&'a SocketAddr, &'a Vec<OwnedFd>)>) -> Numbers {
    listeners.map(|(address, fds)| (*address, fds.iter().map(AsRawFd::as_raw_fd).collect())).collect()
}

fn configuration(
    services: &[EdgeService],
    listeners: &HashMap<SocketAddr, Vec<OwnedFd>>,
    workers: usize,
    metrics: RawFd,
) -> anyhow::Result<EdgeConfig> {
    assemble(services, &numbers(listeners.iter()), workers, metrics)
}

fn assemble(services: &[EdgeService], numbers: &Numbers, workers: usize, metrics: RawFd) -> anyhow::Result<EdgeConfig> {
    let services = services
        .iter()
        .map(|service| one_service(service, numbers, workers).with_context(|| format!("service {}", service.name)))
        .collect::<anyhow::Result<_>>()?;
    Ok(EdgeConfig { workers, allow_root: false, metrics, services })
}

fn one_service(service: &EdgeService, numbers: &Numbers, workers: usize) -> anyhow::Result<ServiceConfig> {
    let share = |addresses: &[SocketAddr]| -> Vec<Vec<RawFd>> {
        let of = |worker: usize| addresses.iter().filter_map(|at| numbers.get(at)?.get(worker).copied()).collect();
        (0..workers).map(of).collect()
    };
    ensure!(
        service.upstream_tls.is_none() || !service.upstream_servers.is_empty(),
        "no server may answer for it: its backends' role has no members"
    );
    Ok(ServiceConfig {
        name: service.name.clone(),
        domain: service.domain.clone(),
        listen: service.listen.clone(),
        redirect: service.redirect.clone(),
        tls_listeners: share(&service.listen),
        redirect_listeners: share(&service.redirect),
        identity: certificates::load(&service.certificate, &service.key)?,
        upstream: service.upstream,
        upstream_servers: service.upstream_servers.clone(),
        upstream_tls: service.upstream_tls.as_ref().map(certificates::load_upstream).transpose()?,
    })
}
