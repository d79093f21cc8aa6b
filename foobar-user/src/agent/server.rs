//! One server's part of the site, in force.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, ensure};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tracing::{info, warn};

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
        };
        let mut datapath = Datapath::open(datapath_options, &options.server)?;
        let adopted = datapath.adopted();
        vips::remember(folders.run(), &plan.vips)?;
        vips::add(&plan.vips, &plan.interfaces).await?;
        let edge = match prepare_edge(&plan, &folders) {
            Ok(edge) => edge,
            Err(error) => {
                if !adopted {
                    vips::remove(&plan.vips).await?;
                }
                return Err(error);
            }
        };
        datapath.apply(&plan).context("cannot put the firewall in force")?;
        settings::apply(&plan, &settings::memory(folders.run()))?;
        info!(adopted, modes = ?datapath.modes(), rules = plan.rules.len(), "the firewall is in force");

        let (health, health_changes) = Health::start(&plan.services);
        let mut supervisor = Supervisor::start(plan.processes.clone(), folders.processes())?;
        if let Some(edge) = &edge {
            supervisor.add(edge.spawned(&plan.edge)).await?;
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

    /// Its folders.
    pub(super) const fn folders(&self) -> &ServerFolders {
        &self.folders
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
        vips::add(&new.vips, &new.interfaces).await?;
        let applied = self.replan_edge(&new).and_then(|edge| {
            let applied = lock(&self.datapath).apply(&new);
            applied.map(|()| edge).inspect_err(|_| self.restore_edge())
        });
        let edge = match applied {
            Ok(edge) => edge,
            Err(error) => {
                vips::remove(&only_in(&new.vips, &self.plan.vips)).await?;
                return Err(error);
            }
        };
        self.edge = edge;
        settings::apply(&new, &settings::memory(self.folders.run()))?;
        vips::remove(&only_in(&self.plan.vips, &new.vips)).await?;
        vips::remember(self.folders.run(), &new.vips)?;
        self.members.forget();
        lock(&self.health).apply(&new.services);
        self.follow_health();
        let refused = self.replace_processes(&new).await;
        self.plan = new;
        let sources =
            sources::of(&self.plan, &self.folders, &self.datapath, &self.health, &self.supervisor, &self.reloads);
        self.metrics.replace(sources).await;
        info!(generation = self.generation(), "reloaded");
        refused
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
            warn!("the edge's old listeners could not be restored: {error:#}");
        }
    }

    /// Processes that refuse their new configuration keep the old one; the others go on to the new plan.
    async fn replace_processes(&self, new: &Plan) -> Result<()> {
        // Taken out for the time of the change: a lock is not held while processes stop.
        let Some(mut supervisor) = lock(&self.supervisor).take() else { return Ok(()) };
        let mut result = supervisor.apply(new.processes.clone()).await;
        match &self.edge {
            Some(edge) => result = result.and(supervisor.add(edge.spawned(&new.edge)).await),
            None => supervisor.remove(edge::NAME).await,
        }
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

fn prepare_edge(plan: &Plan, folders: &ServerFolders) -> Result<Option<EdgeProcess>> {
    if plan.edge.is_empty() { Ok(None) } else { EdgeProcess::prepare(&plan.edge, folders).map(Some) }
}

/// What is in `these` and not in `others`.
fn only_in<T: Clone + PartialEq>(these: &[T], others: &[T]) -> Vec<T> {
    these.iter().filter(|item| !others.contains(item)).cloned().collect()
}
