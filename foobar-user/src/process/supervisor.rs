//! All processes of one server: started, changed and stopped together.

use std::sync::Arc;

use anyhow::{Result, anyhow, bail};
use serde::Serialize;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::Folders;
use super::backoff::Backoff;
use super::board::{ProcessState, ProcessStatus, Reporter};
use super::cgroup::Cgroup;
use super::kind::Surroundings;
use super::record::Records;
use super::spec::{Spawned, Spec};
use super::task::{Order, Task};
use crate::database::Duties;
use crate::plan::ProcessPlan;

/// What a process uses, for metrics.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProcessUsage {
    /// Its name in the plan.
    pub name: String,
    /// CPU time of it and its descendants since the first start, in seconds.
    pub cpu_seconds: f64,
    /// Their resident memory, in bytes.
    pub memory_bytes: u64,
    /// Times it was started again after an end nobody asked for.
    pub restarts: u64,
    /// Whether it runs and is ready.
    pub up: bool,
}

/// Supervises the processes of one server.
///
/// Dropping it without [`Supervisor::stop`] leaves them running for the next agent.
#[derive(Debug)]
pub struct Supervisor {
    folders: Folders,
    duties: Duties,
    records: Arc<Records>,
    board: watch::Sender<Vec<ProcessStatus>>,
    running: Vec<Running>,
}

#[derive(Debug)]
struct Running {
    name: String,
    /// The plan in force; `None` for what another part of the agent spawns.
    planned: bool,
    cgroup: Cgroup,
    reporter: Reporter,
    orders: mpsc::UnboundedSender<Order>,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Supervisor {
    /// Starts or adopts every process of the plan, in order.
    ///
    /// # Errors
    /// When the folders or a cgroup cannot be made. A process that does not start is no error: its state tells.
    pub fn start(plans: Vec<ProcessPlan>, folders: Folders) -> Result<Self> {
        Self::start_by(plans, folders, Duties::default())
    }

    /// The same, with a PostgreSQL that is started as the keeper of its lease says.
    ///
    /// # Errors
    /// As [`Supervisor::start`].
    pub fn start_by(plans: Vec<ProcessPlan>, folders: Folders, duties: Duties) -> Result<Self> {
        folders.create()?;
        let records = Arc::new(Records::open(folders.record()));
        let (board, running) = (watch::Sender::new(Vec::new()), Vec::with_capacity(plans.len()));
        let mut supervisor = Self { folders, duties, records, board, running };
        for plan in plans {
            supervisor.launch(Spec::Planned(Box::new(plan)))?;
        }
        Ok(supervisor)
    }

    /// Supervises a child that another part of the agent spawns, or replaces the one of this name.
    ///
    /// # Errors
    /// When its cgroup cannot be made.
    pub async fn add(&mut self, spawned: Spawned) -> Result<()> {
        match self.running.iter().find(|running| running.name == spawned.name) {
            Some(running) if running.planned => bail!("a process of the plan is named {} already", spawned.name),
            Some(running) => running.update(Spec::Spawned(spawned)).await,
            None => self.launch(Spec::Spawned(spawned)),
        }
    }

    /// Stops one process and forgets it; an unknown name is no error.
    pub async fn remove(&mut self, name: &str) {
        if let Some(index) = self.running.iter().position(|running| running.name == name) {
            let running = self.running.remove(index);
            running.stop().await;
            running.reporter.leave();
        }
    }

    /// Changes to a new plan: what is gone stops, what changed is reloaded or restarted, what is new starts.
    ///
    /// # Errors
    /// Names every process whose new configuration was refused; those go on with the old one.
    pub async fn apply(&mut self, plans: Vec<ProcessPlan>) -> Result<()> {
        let gone: Vec<String> = self
            .running
            .iter()
            .rev()
            .filter(|running| running.planned && !plans.iter().any(|plan| plan.name == running.name))
            .map(|running| running.name.clone())
            .collect();
        for name in gone {
            self.remove(&name).await;
        }
        let mut refused = Vec::new();
        for plan in plans {
            let result = match self.running.iter().find(|running| running.name == plan.name) {
                // Also when the plan is the same: certificates and rule files may have changed.
                Some(running) => running.update(Spec::Planned(Box::new(plan))).await,
                None => self.launch(Spec::Planned(Box::new(plan))),
            };
            if let Err(error) = result {
                refused.push(format!("{error:#}"));
            }
        }
        if refused.is_empty() { Ok(()) } else { Err(anyhow!("{}", refused.join("; "))) }
    }

    /// Stops everything in reverse order and returns when nothing is left, also of what an earlier agent left.
    pub async fn stop(mut self) {
        while let Some(running) = self.running.pop() {
            running.stop().await;
        }
        self.clear_leftovers().await;
    }

    /// Kills what an earlier agent started and nobody names now; to be called when everything was started and added.
    pub async fn clear_leftovers(&self) {
        for name in self.records.names() {
            if !self.running.iter().any(|running| running.name == name) {
                tracing::warn!(process = name, "no longer in the plan; ending it");
                self.clear_leftover(&name).await;
            }
        }
    }

    /// What every process is doing, in start order.
    #[must_use]
    pub fn status(&self) -> Vec<ProcessStatus> {
        self.board.borrow().clone()
    }

    /// The same, with notice of every change.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Vec<ProcessStatus>> {
        self.board.subscribe()
    }

    /// What every process uses, in start order.
    #[must_use]
    pub fn usage(&self) -> Vec<ProcessUsage> {
        let status = self.status();
        let of = |running: &Running| {
            let status = status.iter().find(|status| status.name == running.name);
            ProcessUsage {
                name: running.name.clone(),
                cpu_seconds: running.cgroup.cpu_seconds(),
                memory_bytes: running.cgroup.memory_bytes(),
                restarts: status.map_or(0, |status| status.restarts),
                up: status.is_some_and(|status| status.state == ProcessState::Running),
            }
        };
        self.running.iter().map(of).collect()
    }

    fn launch(&mut self, spec: Spec) -> Result<()> {
        let name = spec.name().to_owned();
        let planned = matches!(spec, Spec::Planned(_));
        let cgroup = Cgroup::create(&self.folders.cgroup, &name)?;
        let reporter = Reporter { board: self.board.clone(), name: name.clone() };
        reporter.enter();
        let (orders, receiver) = mpsc::unbounded_channel();
        let task = Task {
            spec,
            around: Surroundings {
                folders: self.folders.clone(),
                cgroup: cgroup.clone(),
                reporter: reporter.clone(),
                duties: self.duties.clone(),
            },
            records: Arc::clone(&self.records),
            orders: receiver,
            backoff: Backoff::default(),
        };
        let task = tokio::spawn(task.run());
        self.running.push(Running { name, planned, cgroup, reporter, orders, task });
        Ok(())
    }

    /// Ends what an earlier agent started and this plan does not name.
    async fn clear_leftover(&self, name: &str) {
        let cleared = match Cgroup::create(&self.folders.cgroup, name) {
            Ok(cgroup) => cgroup.clear().await.map(|()| cgroup.remove()),
            Err(error) => Err(error),
        };
        match cleared {
            Ok(()) => self.records.set(name, None),
            Err(error) => tracing::error!(process = name, error = %format!("{error:#}"), "left behind"),
        }
    }
}

impl Running {
    async fn update(&self, spec: Spec) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        if self.orders.send(Order::Update(Box::new(spec), reply)).is_err() {
            bail!("the task of {} is gone: this is a bug; restart the agent", self.name);
        }
        answer.await.unwrap_or_else(|_| bail!("the task of {} ended in between", self.name))
    }

    async fn stop(&self) {
        let (reply, answer) = oneshot::channel();
        if self.orders.send(Order::Stop(reply)).is_ok() {
            // An error means that the task is gone: nothing runs then.
            let _ = answer.await;
        }
    }
}
