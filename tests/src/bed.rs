//! The bed: the network, the site's folder and an agent for each server, with a guard that stops all of it in order.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;

use crate::agent::{self, Agent};
use crate::client::{self, Body, Response, Target};
use crate::eventually::{eventually, obtained};
use crate::host::{DOMAIN, HOSTS, Host, VIP, VIP6, servers};
use crate::metrics::Samples;
use crate::namespace::Namespace;
use crate::network::Network;
use crate::process::{self, Process};
use crate::progress::{Progress, check, step};
use crate::prometheus::Prometheus;
use crate::site::{Binaries, PROMETHEUS_PORT, SiteFolder};
use crate::{cgroup, leftovers};

/// How a bed is made.
#[derive(Clone, Debug)]
pub struct Options {
    /// Programs that it starts.
    pub binaries: Binaries,
}

impl Options {
    /// The programs beside the running one.
    pub fn find() -> Result<Self> {
        Ok(Self { binaries: Binaries::find()? })
    }
}

/// A running site. Dropping it stops the agents in order and removes everything.
#[derive(Debug)]
pub struct Bed {
    agents: BTreeMap<&'static str, Mutex<Agent>>,
    site: SiteFolder,
    network: Option<Network>,
    stopped: bool,
}

impl Bed {
    /// Removes what crashed runs left behind; returns their ids. Living runs are not touched.
    pub fn sweep() -> Result<Vec<String>> {
        leftovers::sweep()
    }

    /// Sweeps, makes the network and the site, starts the agents and waits until a page comes through every tier.
    pub fn start(options: &Options, progress: &dyn Progress) -> Result<Self> {
        for id in Self::sweep()? {
            progress.note(&format!("removed what the run {id} left behind"));
        }
        let network = step(progress, "network of namespaces", || Network::create(progress))?;
        let folder = network.run().folder().to_owned();
        for name in ["run", "state", "logs"] {
            fs::create_dir(folder.join(name)).with_context(|| format!("cannot make the folder {name}"))?;
        }
        let site = step(progress, "site file, pages, secrets", || SiteFolder::write(&folder, &options.binaries))?;
        step(progress, "certificates", || site.make_certificates())?;
        let agents = servers().map(|host| (host.name, Mutex::new(Agent::new(host, &options.binaries.foobar, &folder))));
        let bed = Self { agents: agents.collect(), site, network: Some(network), stopped: false };
        step(progress, "agents started", || servers().try_for_each(|host| bed.start_agent(host.name)))?;
        for host in servers() {
            let what = format!("{} is ready", host.name);
            step(progress, &what, || bed.ready(host.name, progress))?;
        }
        step(progress, "every backend up", || bed.settled(progress))?;
        step(progress, "a page through every tier", || bed.answers(progress))?;
        Ok(bed)
    }

    /// The run's id.
    pub fn id(&self) -> &str {
        self.network().run().id()
    }

    /// The network.
    pub fn network(&self) -> &Network {
        // Taken only by `close`, which consumes the bed.
        self.network.as_ref().expect("an open bed has its network")
    }

    /// The site's folder.
    pub fn site(&self) -> &SiteFolder {
        &self.site
    }

    /// The run's folder.
    pub fn folder(&self) -> &Path {
        self.network().run().folder()
    }

    /// The namespace of `host`.
    pub fn host(&self, host: &str) -> Result<&Namespace> {
        self.network().namespace(host)
    }

    /// Starts `command` on `host`, in its namespace and cgroup: what the server's own processes see, it sees.
    pub fn spawn(&self, host: &str, command: &mut Command) -> Result<Process> {
        self.network().place(host, GROUP, command)?;
        let name = command.get_program().to_string_lossy().into_owned();
        Process::spawn(&name, command)
    }

    /// Runs `command` on `host` to its end and returns what it wrote.
    pub fn run(&self, host: &str, command: &mut Command) -> Result<String> {
        self.network().place(host, GROUP, command)?;
        process::run(command)
    }

    /// Runs `work` on a thread inside the namespace of `host`.
    pub fn in_namespace<T: Send>(&self, host: &str, work: impl FnOnce() -> T + Send) -> Result<T> {
        self.host(host)?.run(work)
    }

    /// The agent of `server`.
    pub fn agent(&self, server: &str) -> Result<MutexGuard<'_, Agent>> {
        let agent = self.agents.get(server).with_context(|| format!("{server} is no server of the bed"))?;
        Ok(agent.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Starts the agent of `server`.
    pub fn start_agent(&self, server: &str) -> Result<()> {
        self.agent(server)?.start(self.network())
    }

    /// Waits until the agent of `server` answers and says that it is ready.
    pub fn ready(&self, server: &str, progress: &dyn Progress) -> Result<()> {
        // The inner result ends the wait at once: nothing comes after a dead agent or a Ctrl-C.
        let outcome = obtained(READY_TIMEOUT, &format!("{server} is ready"), || {
            let mut agent = self.agent(server)?;
            if let Err(error) = check(progress).and_then(|()| agent.check()) {
                return Ok(Some(Err(error)));
            }
            // A status without the word is ready by answering.
            let ready = agent.status()?["ready"] != false;
            Ok(ready.then_some(Ok(())))
        });
        outcome.with_context(|| self.tail(server))?
    }

    /// Waits until every server sees every backend of its services up.
    pub fn settled(&self, progress: &dyn Progress) -> Result<()> {
        eventually(READY_TIMEOUT, "every backend is up", || {
            if progress.cancelled() {
                return Ok(true);
            }
            for host in servers() {
                let metrics = self.metrics(host.name)?;
                let down = metrics.find("foobar_backend_up", &[]).find(|sample| sample.value != 1.0);
                ensure!(down.is_none(), "{} sees down: {:?}", host.name, down.map(|sample| &sample.labels));
            }
            Ok(true)
        })?;
        check(progress)
    }

    /// Kills the child `process` of `server` with all its processes, as a crash would.
    pub fn kill_process(&self, server: &str, process: &str) -> Result<()> {
        agent::kill_child(&self.network().cgroup(server), process)
    }

    /// Processes of the child `process` of `server`.
    pub fn process_ids(&self, server: &str, process: &str) -> Vec<i32> {
        cgroup::processes(&self.network().cgroup(server).join(process))
    }

    /// Kills a whole server: its agent and every process, at once. Its pinned data path stays, as its network card would.
    pub fn kill_server(&self, server: &str) -> Result<()> {
        cgroup::kill(&self.network().cgroup(server))?;
        self.agent(server)?.reap(STOP_TIMEOUT)
    }

    /// The site over TLS, as the client sees it.
    pub fn https(&self) -> Result<Target> {
        let tls = Some(client::tls(&self.site.pki(), None)?);
        Ok(Target { address: SocketAddr::new(IpAddr::V4(VIP), 443), host: DOMAIN.to_owned(), tls })
    }

    /// The site through the plain L4 path, as the client sees it.
    pub fn plain(&self) -> Target {
        Target { address: SocketAddr::new(IpAddr::V4(VIP), 8080), host: DOMAIN.to_owned(), tls: None }
    }

    /// The site through the plain L4 path over IPv6.
    pub fn plain6(&self) -> Target {
        Target { address: SocketAddr::new(IpAddr::V6(VIP6), 8080), host: DOMAIN.to_owned(), tls: None }
    }

    /// `GET path` from the client over a new connection.
    pub fn get(&self, target: &Target, path: &str) -> Result<Response> {
        client::get(self.host("client")?, target, path)
    }

    /// `POST path` with a form from the client over a new connection.
    pub fn post(&self, target: &Target, path: &str, fields: &[(&str, &str)]) -> Result<Response> {
        client::request(self.host("client")?, target, http::Method::POST, path, Body::Form(fields))
    }

    /// The metrics of `server`'s agent, asked for on the server itself.
    pub fn metrics(&self, server: &str) -> Result<Samples> {
        Samples::scrape(self.host(server)?, server)
    }

    /// New connections of each backend of each service, over all servers.
    pub fn shares(&self) -> Result<Shares> {
        let mut shares = Shares::new();
        for host in servers() {
            for sample in self.metrics(host.name)?.find("foobar_backend_connections_total", &[]) {
                if let (Some(service), Some(backend)) = (sample.labels.get("service"), sample.labels.get("backend")) {
                    let backends = shares.entry(service.clone()).or_default();
                    *backends.entry(backend.clone()).or_default() += sample.value as u64;
                }
            }
        }
        Ok(shares)
    }

    /// The bed's Prometheus, asked on the monitor itself.
    pub fn prometheus(&self) -> Result<Prometheus<'_>> {
        let monitor = Host::named("monitor").context("the bed has no monitor")?;
        let address = SocketAddr::new(IpAddr::V4(monitor.v4()), PROMETHEUS_PORT);
        let target = Target { address, host: monitor.name.to_owned(), tls: None };
        Ok(Prometheus::new(self.host("monitor")?, target))
    }

    /// Stops everything in order and removes it; returns what went wrong or was left behind.
    pub fn close(mut self) -> Vec<String> {
        let mut faults = self.stop();
        if let Some(network) = self.network.take() {
            faults.extend(network.close());
        }
        faults
    }

    /// Asks the agents to stop, waits for them, and names the processes that survived their agent.
    fn stop(&mut self) -> Vec<String> {
        self.stopped = true;
        let mut faults = Vec::new();
        let agents = || self.agents.values().map(|agent| agent.lock().unwrap_or_else(PoisonError::into_inner));
        let mut running: Vec<_> = agents().filter_map(|mut agent| agent.is_running().then_some(agent)).collect();
        for agent in &mut running {
            faults.extend(agent.signal(Signal::SIGTERM).err().map(|error| format!("{error:#}")));
        }
        for agent in &mut running {
            faults.extend(agent.reap(STOP_TIMEOUT).err().map(|error| format!("{error:#}")));
        }
        drop(running);
        for host in &HOSTS {
            for pid in cgroup::processes(&self.network().cgroup(host.name)) {
                let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
                faults.push(format!("{}: process {pid} ({}) outlived its agent", host.name, name.trim()));
            }
        }
        faults
    }

    /// Waits until the site answers over both paths, then until the guest book does.
    fn answers(&self, progress: &dyn Progress) -> Result<()> {
        let https = self.https()?;
        let mut cancelled = false;
        for (target, path) in
            [(&self.plain(), "/"), (&https, "/"), (&https, "/guestbook"), (&self.plain(), "/guestbook")]
        {
            let what = format!("GET {path} from {} answers 200", target.address);
            eventually(PAGE_TIMEOUT, &what, || {
                cancelled = progress.cancelled();
                if cancelled {
                    return Ok(true);
                }
                let response = self.get(target, path)?;
                ensure!(response.status.is_success(), "{}: {}", response.status, response.text().trim());
                Ok(true)
            })
            .with_context(|| self.tail("lb1"))?;
            if cancelled {
                bail!("stopped on request");
            }
        }
        Ok(())
    }

    fn tail(&self, server: &str) -> String {
        self.agent(server).map(|agent| agent.tail()).unwrap_or_default()
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        if !self.stopped {
            for fault in self.stop() {
                eprintln!("foobar-tests: {fault}");
            }
        }
    }
}

/// Connections by service and backend.
pub type Shares = BTreeMap<String, BTreeMap<String, u64>>;

/// Cgroup of what the bed itself starts on a host.
const GROUP: &str = "bed";
const READY_TIMEOUT: Duration = Duration::from_secs(60);
const PAGE_TIMEOUT: Duration = Duration::from_secs(30);
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
