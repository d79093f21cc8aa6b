//! One server's part of the site, in force.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, bail, ensure};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tracing::{error, info, warn};

use super::edge::{self, EdgeProcess};
use super::members::Members;
use super::sources;
use super::status::{self, Status};
use super::{Options, ServerFolders};
use crate::datapath::{self, Datapath};
use crate::health::{Health, HealthState};
use crate::host::{settings, vips};
use crate::metrics::{Listeners, Metrics, Reloads};
use crate::plan::{self, Plan};
use crate::process::Supervisor;
use crate::site::{Checked, Extent, Faults};

/// Shared with the threads that answer scrapes.
pub(super) type Shared<T> = Arc<Mutex<T>>;

/// Everything that one agent runs.
pub(super) struct Server {
    options: Options,
    folders: ServerFolders,
    plan: Plan,
    datapath: Shared<Datapath>,
    health: Shared<Health>,
    health_changes: watch::Receiver<HealthState>,
    members: Members,
    supervisor: Shared<Option<Supervisor>>,
    edge: Option<EdgeProcess>,
    metrics: Arc<Metrics>,
    metrics_task: AbortHandle,
    reloads: Shared<Reloads>,
    last_refusal: Option<String>,
}

/// No named sets yet.
struct NoSets;

impl datapath::SetSource for NoSets {
    fn version(&self) -> u64 {
        0
    }

    fn sets(&self) -> Vec<datapath::sets::Set> {
        Vec::new()
    }
}

/// A poisoned lock means a panic elsewhere; the value is as good as it was.
pub(super) fn lock<T>(shared: &Shared<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads the site file and derives this server's plan.
fn read_plan(options: &Options) -> Result<Plan> {
    let checked = Checked::read(&options.site).map_err(refusal)?;
    tell(&checked.warnings);
    tell(&checked.check_files(Extent::Server(&options.server)).refuse_errors().map_err(refusal)?);
    Ok(plan::plan(&checked.site, &options.server)?)
}

fn refusal(faults: Faults) -> anyhow::Error {
    anyhow::Error::new(faults)
}

fn tell(warnings: &Faults) {
    if !warnings.is_empty() {
        warn!("{warnings}");
    }
}

impl Server {
    /// Checks everything that can be refused, then puts the plan in force.
    ///
    /// # Errors
    /// Why it was refused.
    pub(super) async fn start(options: Options, folders: ServerFolders) -> Result<Self> {
        let plan = read_plan(&options)?;
        for interface in &plan.interfaces {
            datapath::links::index(interface)?;
        }
        let listeners = Listeners::bind(&plan.metrics)?;
        let datapath_options = datapath::Options {
            bpffs: options.bpffs.clone(),
            run: folders.run().to_owned(),
            cgroup: folders.cgroup.clone(),
            mode: options.mode,
            log_drops: options.log_drops,
        };
        let mut datapath = Datapath::open(datapath_options, &options.server)?;
        let adopted = datapath.adopted();
        let earlier_vips = vips::hold(folders.run(), &plan.vips, &plan.interfaces).await?;
        let prepared = prepare_edge(&plan, &folders).and_then(|edge| {
            datapath.apply(&plan, &NoSets, None).context("cannot put the firewall in force").map(|()| edge)
        });
        let edge = match prepared {
            Ok(edge) => edge,
            Err(error) => {
                vips::let_go(folders.run(), &earlier_vips).await?;
                return Err(error);
            }
        };
        vips::let_go(folders.run(), &plan.vips).await?;
        settings::apply(&plan, &settings::memory(folders.run()))?;
        info!(adopted, modes = ?datapath.modes(), rules = plan.rules.len(), "the firewall is in force");

        let (health, health_changes) = Health::start(&plan.services);
        let mut supervisor = Supervisor::start(plan.processes.clone(), folders.processes())?;
        if let Some(edge) = &edge
            && let Err(error) = supervisor.add(edge.spawned(&plan.edge)).await
        {
            supervisor.stop().await;
            return Err(error);
        }
        supervisor.clear_leftovers().await;
        let (datapath, health) = (Arc::new(Mutex::new(datapath)), Arc::new(Mutex::new(health)));
        let (supervisor, reloads) = (Arc::new(Mutex::new(Some(supervisor))), Arc::new(Mutex::new(Reloads::default())));
        let metrics = Arc::new(Metrics::new(sources::of(&plan, &folders, &datapath, &health, &supervisor, &reloads)));
        let serving = tokio::spawn(listeners.serve(metrics.renderer()));
        Ok(Self {
            options,
            folders,
            plan,
            datapath,
            health,
            health_changes,
            members: Members::default(),
            supervisor,
            edge,
            metrics,
            metrics_task: serving.abort_handle(),
            reloads,
            last_refusal: None,
        })
    }

    /// The server's name.
    pub(super) fn name(&self) -> &str {
        &self.plan.server
    }

    /// Number of the generation in force.
    pub(super) fn generation(&self) -> u32 {
        lock(&self.datapath).generation()
    }

    /// Wakes when health changes; the first time at once.
    pub(super) fn members(&self) -> watch::Receiver<HealthState> {
        let mut changes = self.health_changes.clone();
        changes.mark_changed();
        changes
    }

    /// Writes the members that health has chosen into the kernel's tables.
    pub(super) fn follow_health(&mut self) {
        let state = self.health_changes.borrow().clone();
        self.members.follow(&state, &mut lock(&self.datapath));
    }

    /// Puts the firewall on an interface that has come in place of another of its name.
    pub(super) fn follow_interfaces(&mut self) {
        let mut datapath = lock(&self.datapath);
        let Some(interface) = datapath.displaced().map(str::to_owned) else { return };
        warn!(interface, "another interface has taken this name: it gets the firewall");
        if let Err(error) = datapath.apply(&self.plan, &NoSets, None) {
            error!(interface, "the firewall cannot be put on it, the next try is in a second: {error:#}");
            return;
        }
        drop(datapath);
        self.members.forget();
        self.follow_health();
    }

    /// Reads the site file again and puts it in force, whole or not at all.
    ///
    /// # Errors
    /// Why it was refused; what ran keeps running.
    pub(super) async fn reload(&mut self) -> Result<()> {
        let result = self.replace_plan().await;
        let mut reloads = lock(&self.reloads);
        match &result {
            Ok(()) => {
                (reloads.applied, reloads.last_successful) = (reloads.applied + 1, true);
                self.last_refusal = None;
            }
            Err(refusal) => {
                (reloads.refused, reloads.last_successful) = (reloads.refused + 1, false);
                self.last_refusal = Some(format!("{refusal:#}"));
            }
        }
        result
    }

    async fn replace_plan(&mut self) -> Result<()> {
        let new = read_plan(&self.options)?;
        ensure!(
            new.metrics == self.plan.metrics,
            "the addresses of /metrics cannot change in a running agent: restart it to move them to {:?}",
            new.metrics
        );
        for interface in &new.interfaces {
            datapath::links::index(interface)?;
        }
        let earlier_vips = vips::hold(self.folders.run(), &new.vips, &new.interfaces).await?;
        let applied =
            self.replan_edge(&new).and_then(|edge| lock(&self.datapath).apply(&new, &NoSets, None).map(|()| edge));
        let edge = match applied {
            Ok(edge) => edge,
            Err(error) => {
                self.restore_edge();
                // The tables may have lost members on the way there and back.
                self.members.forget();
                self.follow_health();
                vips::let_go(self.folders.run(), &earlier_vips).await?;
                return Err(error);
            }
        };
        // The new plan is in force: what fails from here on is told, and does not undo it.
        self.edge = edge;
        self.plan = new;
        self.commit().await
    }

    /// Has everything follow the plan that is in force now.
    async fn commit(&mut self) -> Result<()> {
        let plan = self.plan.clone();
        if let Some(edge) = &self.edge {
            edge.retire();
        }
        let mut faults = Vec::new();
        faults.extend(vips::let_go(self.folders.run(), &plan.vips).await.err());
        faults.extend(settings::apply(&plan, &settings::memory(self.folders.run())).err());
        self.members.forget();
        lock(&self.health).apply(&plan.services);
        self.follow_health();
        faults.extend(self.replace_processes(&plan).await.err());
        let sources = sources::of(&plan, &self.folders, &self.datapath, &self.health, &self.supervisor, &self.reloads);
        self.metrics.replace(sources).await;
        info!(generation = self.generation(), "reloaded");
        if faults.is_empty() {
            return Ok(());
        }
        let faults: Vec<String> = faults.iter().map(|fault| format!("{fault:#}")).collect();
        bail!("the new plan is in force as generation {}, but: {}", self.generation(), faults.join("; "))
    }

    fn replan_edge(&self, new: &Plan) -> Result<Option<EdgeProcess>> {
        match &self.edge {
            Some(edge) if !new.edge.is_empty() => {
                edge.replan(&new.edge)?;
                Ok(Some(edge.clone()))
            }
            _ => prepare_edge(new, &self.folders),
        }
    }

    fn restore_edge(&self) {
        if let Some(edge) = &self.edge
            && let Err(error) = edge.replan(&self.plan.edge)
        {
            warn!("the edge's old plan could not be restored: {error:#}");
        }
        if let Some(edge) = &self.edge {
            edge.retire();
        }
    }

    /// Processes that refuse their new configuration keep the old one; the others go on to the new plan.
    async fn replace_processes(&mut self, new: &Plan) -> Result<()> {
        // Taken out for the time of the change: a lock is not held while processes stop.
        let Some(mut supervisor) = lock(&self.supervisor).take() else { return Ok(()) };
        let result = {
            let mut change = pin!(change(&mut supervisor, self.edge.clone(), new));
            let mut health = self.health_changes.clone();
            // Processes take their time to stop; a backend that dies meanwhile leaves the tables all the same.
            loop {
                tokio::select! {
                    result = &mut change => break result,
                    Ok(()) = health.changed() => self.follow_health(),
                }
            }
        };
        *lock(&self.supervisor) = Some(supervisor);
        result
    }

    /// What the server is doing.
    pub(super) fn status(&self) -> Status {
        let health = self.health_changes.borrow().clone();
        let processes = lock(&self.supervisor).as_ref().map(Supervisor::status).unwrap_or_default();
        status::report(
            &self.plan,
            &lock(&self.datapath),
            &health,
            processes,
            *lock(&self.reloads),
            self.last_refusal.clone(),
        )
    }

    /// Ends the processes in order. The firewall stays in force until `foobar detach`.
    pub(super) async fn stop(self) {
        let supervisor = lock(&self.supervisor).take();
        if let Some(supervisor) = supervisor {
            supervisor.stop().await;
        }
        self.metrics_task.abort();
    }
}

async fn change(supervisor: &mut Supervisor, edge: Option<EdgeProcess>, new: &Plan) -> Result<()> {
    let planned = supervisor.apply(new.processes.clone()).await;
    match edge {
        Some(edge) => planned.and(supervisor.add(edge.spawned(&new.edge)).await),
        None => {
            supervisor.remove(edge::NAME).await;
            planned
        }
    }
}

fn prepare_edge(plan: &Plan, folders: &ServerFolders) -> Result<Option<EdgeProcess>> {
    if plan.edge.is_empty() { Ok(None) } else { EdgeProcess::prepare(&plan.edge, folders).map(Some) }
}
