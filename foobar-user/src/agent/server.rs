//! One server's part of the site, in force.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, ensure};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tracing::{error, info, warn};

use super::database::Database;
use super::edge::EdgeProcess;
use super::events::{Events, Subscription};
use super::load::Loaded;
use super::members::Members;
use super::memory::Memory;
use super::sources::Asked;
use super::status::{Facts, Status};
use super::window::Window;
use super::{Options, ServerFolders};
use super::{ejections, fence, flows, orders, ring, sources};
use crate::database::{DatabaseReport, Duties};
use crate::datapath::{self, Datapath};
use crate::flood;
use crate::health::{Health, HealthState, ServiceHealth};
use crate::host::vlans::Watch;
use crate::host::way::{self, Learner};
use crate::host::{settings, vips};
use crate::metrics::{Listeners, Metrics, Reloads};
use crate::plan::Plan;
use crate::process::{Earlier, Supervisor};
use crate::sets::{Now, Sets};

/// Shared with the threads that answer scrapes.
pub(super) type Shared<T> = Arc<Mutex<T>>;

/// Everything that one agent runs.
pub(super) struct Server {
    pub(super) options: Options,
    pub(super) folders: ServerFolders,
    /// What is in force.
    pub(super) loaded: Loaded,
    /// What was in force before a change that waits for its confirmation.
    pub(super) fallback: Option<Loaded>,
    pub(super) window: Arc<Window>,
    pub(super) memory: Memory,
    pub(super) sets: Sets,
    pub(super) datapath: Shared<Datapath>,
    pub(super) events: Events,
    pub(super) health: Shared<Health>,
    pub(super) health_changes: watch::Receiver<HealthState>,
    pub(super) members: Members,
    /// Whether some weight has not been whole yet.
    starting: bool,
    pub(super) supervisor: Arc<Supervisor>,
    pub(super) database: Shared<Database>,
    pub(super) edge: Option<EdgeProcess>,
    pub(super) metrics: Arc<Metrics>,
    /// What the metrics are made of.
    pub(super) asked: Asked,
    metrics_task: AbortHandle,
    ring_task: AbortHandle,
    ejections_task: AbortHandle,
    pub(super) vlans: Watch,
    pub(super) flood: flood::Guard,
    /// Of the way to backends that are reached by tunnel.
    pub(super) learner: Learner,
    pub(super) reloads: Shared<Reloads>,
    pub(super) last_refusal: Option<String>,
    /// Why what is in force is not the site file, if it is not.
    pub(super) notice: Option<String>,
}

/// A poisoned lock means a panic elsewhere; the value is as good as it was.
pub(super) fn lock<T>(shared: &Shared<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Server {
    /// Checks everything that can be refused, then puts the plan in force.
    ///
    /// # Errors
    /// Why it was refused.
    pub(super) async fn start(options: Options, folders: ServerFolders, window: Arc<Window>) -> Result<Self> {
        let memory = Memory::new(folders.state());
        let (loaded, notice) = Loaded::at_start(&options, &memory)?;
        let plan = &loaded.plan;
        let mut sets = Sets::new(&folders.state().join("sets"));
        sets.declare(loaded.declared.clone(), Now::read())?;
        for interface in &plan.interfaces {
            datapath::links::index(interface)?;
        }
        let listeners = Listeners::bind(&plan.metrics)?;
        let mut vlans = Watch::start()?;
        // Before the programs are loaded, which takes longer than a lease lasts: who leads goes on leading, and is witnessed.
        let mut database = Database::start(plan, &folders)?;
        if Database::is_running(plan, &folders)
            && let Some(fence) = fence::adopt(&options.bpffs, &options.server)?
        {
            database.follow(plan, &folders, Some(&fence))?;
        }
        let (datapath, edge) = close_firewall(&options, &folders, plan, &sets, &mut vlans).await?;
        vlans.warn_of_hidden_tags(carriers(&datapath));
        let datapath = Arc::new(Mutex::new(datapath));
        let (events, ring_task) = follow_events(&datapath)?;
        let flows = flows::keep(lock(&datapath).flow_tables()?)?;
        let handshakes = lock(&datapath).handshakes()?;
        let flood = flood::Guard::start(handshakes, plan.syn_cookies, folders.run())
            .context("SYN floods cannot be watched for")?;
        let remembered = if notice.is_some() {
            memory.settle()
        } else {
            memory.keep(&loaded.snapshot).and_then(|()| sets.files().drop_others())
        };
        if let Err(error) = remembered {
            warn!("what is in force cannot be remembered for a next start: {error:#}");
        }

        let (health, health_changes) = Health::start(&plan.services, orders::read(folders.state())?);
        fence::hold(&mut lock(&datapath), plan, &folders)?;
        let supervisor = start_processes(plan, &folders, edge.as_ref(), &database.duties, options.earlier).await?;
        let supervisor = Arc::new(supervisor);
        database.follow(plan, &folders, fence::of(&lock(&datapath))?.as_ref())?;
        let database = Arc::new(Mutex::new(database));
        let health = Arc::new(Mutex::new(health));
        let ejections_task = ejections::watch(Arc::clone(&datapath), Arc::clone(&health))?;
        let reloads = Arc::new(Mutex::new(Reloads::default()));
        let asked = Asked {
            datapath: Arc::clone(&datapath),
            flows,
            flood: flood.told(),
            health: Arc::clone(&health),
            supervisor: Arc::clone(&supervisor),
            database: Arc::clone(&database),
            reloads: Arc::clone(&reloads),
        };
        let learner = learn_ways(plan);
        let metrics = Arc::new(Metrics::new(sources::of(plan, &folders, asked.clone())));
        let serving = tokio::spawn(listeners.serve(metrics.renderer()));
        Ok(Self {
            options,
            folders,
            loaded,
            fallback: None,
            window,
            memory,
            sets,
            datapath,
            events,
            health,
            health_changes,
            members: Members::default(),
            starting: false,
            supervisor,
            database,
            edge,
            metrics,
            asked,
            metrics_task: serving.abort_handle(),
            ring_task,
            ejections_task,
            vlans,
            flood,
            learner,
            reloads,
            last_refusal: None,
            notice,
        })
    }

    /// The server's name.
    pub(super) fn name(&self) -> &str {
        &self.loaded.plan.server
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

    /// Gives backends that have recovered more, as their slow start goes on; the last time when it is over.
    pub(super) fn follow_slow_starts(&mut self) {
        let starting = self.health_changes.borrow().services.iter().any(ServiceHealth::starts_slowly);
        if starting || self.starting {
            self.follow_health();
        }
        self.starting = starting;
    }

    /// Lets backends go that no plan has any more, once their flows are over.
    pub(super) fn follow_leaving(&self) {
        if let Err(error) = lock(&self.datapath).follow_leaving() {
            error!("backends that have left keep their slots: {error:#}");
        }
    }

    /// Has the packet path know the devices of VLANs that have come, and forget those that have gone.
    pub(super) async fn follow_vlans(&mut self) {
        let looked = self.vlans.look().await;
        let mut datapath = lock(&self.datapath);
        let mut followed = looked.and_then(|vlans| datapath.set_vlans(vlans));
        if self.vlans.unsettled() {
            followed = followed.and(settle(&self.loaded.plan, &self.folders, &mut self.vlans, &datapath));
        }
        if let Err(error) = followed {
            error!("services may not reach what is behind a VLAN; the next try is in a second: {error:#}");
        }
        self.vlans.warn_of_hidden_tags(carriers(&datapath));
    }

    /// Puts the firewall on an interface that has come in place of another of its name, or takes larger frames than before.
    pub(super) async fn follow_interfaces(&mut self) {
        let Some(changed) = lock(&self.datapath).changed_interface() else { return };
        warn!("{changed}: the firewall is put on it anew");
        if self.window.waiting().is_some() {
            // What it gets must be what stays: there is no way back from rules that are written twice.
            if let Err(error) = self.roll_back(false).await {
                error!("{error:#}");
            }
            return;
        }
        if let Err(error) = lock(&self.datapath).apply(&self.loaded.plan, &self.sets, None) {
            error!("{changed}, but the firewall cannot be put on it; the next try is in a second: {error:#}");
            return;
        }
        self.events.tell_watched();
        self.members.forget();
        self.follow_health();
    }

    /// Events from now on; of one rule only, if it is named.
    ///
    /// # Errors
    /// No such rule.
    pub(super) fn watch(&self, rule: Option<String>) -> Result<Subscription> {
        if let Some(name) = &rule {
            let known = self.loaded.plan.rules.iter().any(|planned| planned.rule.name == *name);
            ensure!(known, "this server has no rule `{name}`: `foobar rules --server {}` lists them", self.name());
        }
        Ok(self.events.subscribe(rule))
    }

    /// The cluster of the database, as this server sees it.
    ///
    /// # Errors
    /// It has no part in it.
    pub(super) fn database(&self) -> Result<DatabaseReport> {
        let report = lock(&self.database).report();
        report.with_context(|| {
            format!("{} runs no PostgreSQL with a lease: ask a database server of a site that has several", self.name())
        })
    }

    /// What the server is doing.
    pub(super) fn status(&self) -> Status {
        let health = self.health_changes.borrow().clone();
        let waiting = self.window.waiting();
        Facts {
            plan: &self.loaded.plan,
            health: &health,
            processes: self.supervisor.status(),
            reloads: *lock(&self.reloads),
            last_refusal: self.last_refusal.clone(),
            waiting,
            notice: self.notice.clone(),
            answering: self.flood.told().answering(),
        }
        .report(&lock(&self.datapath))
    }

    /// Ends the processes in order. The firewall stays in force until `foobar detach`.
    pub(super) async fn stop(self) {
        let resigning = lock(&self.database).resign();
        if let Some(resigning) = resigning {
            resigning.await;
        }
        self.supervisor.stop().await;
        self.metrics_task.abort();
        self.ring_task.abort();
        self.ejections_task.abort();
    }
}

/// Interfaces that carry the firewall, with their indices.
fn carriers(datapath: &Datapath) -> impl Iterator<Item = (String, u32)> {
    datapath.indices().iter().map(|(name, index)| (name.clone(), *index))
}

/// Has the stack's settings follow the plan, on its interfaces and on the devices of VLANs there.
pub(super) fn settle(plan: &Plan, folders: &ServerFolders, vlans: &mut Watch, datapath: &Datapath) -> Result<()> {
    settings::apply(plan, &vlans.on(carriers(datapath)), &settings::memory(folders.run()))?;
    vlans.settle();
    Ok(())
}

/// Puts the first plan in force, and prepares the edge; what is refused leaves everything as an earlier agent left it.
async fn close_firewall(
    options: &Options,
    folders: &ServerFolders,
    plan: &Plan,
    sets: &Sets,
    vlans: &mut Watch,
) -> Result<(Datapath, Option<EdgeProcess>)> {
    let datapath_options = datapath::Options {
        bpffs: options.bpffs.clone(),
        run: folders.run().to_owned(),
        cgroup: folders.cgroup.clone(),
        mode: options.mode,
        log_drops: options.log_drops,
    };
    let mut datapath = Datapath::open(datapath_options, &options.server)?;
    let adopted = datapath.adopted();
    datapath.set_vlans(vlans.look().await?)?;
    settings::before_vips(plan, &settings::memory(folders.run()))?;
    let earlier_vips = vips::hold(folders.run(), &plan.held(), plan.vip_interfaces()).await?;
    let prepared = prepare_edge(plan, folders)
        .and_then(|edge| datapath.apply(plan, sets, None).context("cannot put the firewall in force").map(|()| edge));
    let edge = match prepared {
        Ok(edge) => edge,
        Err(error) => {
            vips::let_go(folders.run(), &earlier_vips).await?;
            return Err(error);
        }
    };
    vips::let_go(folders.run(), &plan.held()).await?;
    settle(plan, folders, vlans, &datapath)?;
    info!(adopted, modes = ?datapath.modes(), rules = plan.rules.len(), "the firewall is in force");
    Ok((datapath, edge))
}

/// Follows how much room there is on the way to backends, and warns where it is too little.
pub(super) fn learn_ways(plan: &Plan) -> Learner {
    way::cramped(plan).iter().for_each(|message| warn!("{message}"));
    Learner::of(plan)
}

/// Hands on what the packet path tells, from now on.
fn follow_events(datapath: &Shared<Datapath>) -> Result<(Events, AbortHandle)> {
    let watched = Arc::clone(datapath);
    let events = Events::new(Box::new(move |on| {
        if let Err(error) = lock(&watched).set_watched(on) {
            warn!("the packet path does not know whether somebody watches: {error:#}");
        }
    }));
    let ring = lock(datapath).events()?;
    let task = tokio::spawn(ring::read(ring, events.clone(), Arc::clone(datapath)));
    Ok((events, task.abort_handle()))
}

async fn start_processes(
    plan: &Plan,
    folders: &ServerFolders,
    edge: Option<&EdgeProcess>,
    duties: &Duties,
    earlier: Earlier,
) -> Result<Supervisor> {
    let supervisor = Supervisor::start_by(plan.processes.clone(), folders.processes(), duties.clone(), earlier)?;
    if let Some(edge) = edge
        && let Err(error) = supervisor.add(edge.spawned(&plan.edge)).await
    {
        supervisor.stop().await;
        return Err(error);
    }
    supervisor.clear_leftovers().await;
    Ok(supervisor)
}

pub(super) fn prepare_edge(plan: &Plan, folders: &ServerFolders) -> Result<Option<EdgeProcess>> {
    if plan.edge.is_empty() { Ok(None) } else { EdgeProcess::prepare(&plan.edge, folders).map(Some) }
}
