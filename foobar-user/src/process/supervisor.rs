//! All processes of one server: started, changed and stopped together.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, anyhow, bail};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::Folders;
use super::backoff::Backoff;
use super::board::{ProcessState, ProcessStatus, Reporter};
use super::cgroup::Cgroup;
use super::hold::{Hold, Holds};
use super::kind::Surroundings;
use super::record::Records;
use super::spec::{Spawned, Spec};
use super::stopped::Stopped;
use super::task::{End, Order, Task};
use crate::database::Duties;
use crate::plan::ProcessPlan;

/// What a process uses, for metrics.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
    /// Whether it does not run because somebody wants that.
    pub stopped: bool,
    /// Periods of 100 ms in which its CPU quota held it up.
    pub throttled_periods: u64,
    /// Time for which its CPU quota held it up, over all CPUs, in seconds.
    pub throttled_seconds: f64,
    /// Processes of it that were killed because its memory was used up.
    pub oom_kills: u64,
}

/// What becomes of processes that an earlier agent has left running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Earlier {
    /// They go on under this agent, if they are what the plan says.
    Adopt,
    /// They are ended in order, and started anew.
    Replace,
}

/// What an operator wants of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessChange {
    /// That it runs.
    Start,
    /// That it does not run until it is started; remembered over restarts of agents.
    Stop,
    /// That it is stopped and started again.
    Restart,
}

/// Supervises the processes of one server.
///
/// Orders may come from several places at once. Dropping it without [`Supervisor::stop`] leaves the processes running
/// for the next agent.
#[derive(Debug)]
pub struct Supervisor {
    folders: Folders,
    duties: Duties,
    records: Arc<Records>,
    stopped: Stopped,
    earlier: Earlier,
    board: watch::Sender<Vec<ProcessStatus>>,
    /// In start order; not locked while anything is waited for.
    running: Mutex<Vec<Running>>,
    /// Held by whoever changes which processes there are.
    changing: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Running {
    /// Whether it is of the plan, and not spawned by another part of the agent.
    planned: bool,
    reporter: Reporter,
    handle: Handle,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What gives orders to one process.
#[derive(Clone, Debug)]
struct Handle {
    name: String,
    cgroup: Cgroup,
    holds: Holds,
    orders: mpsc::UnboundedSender<Order>,
}

impl Supervisor {
    /// Starts or adopts every process of the plan, in order.
    ///
    /// # Errors
    /// When the folders or a cgroup cannot be made. A process that does not start is no error: its state tells.
    pub fn start(plans: Vec<ProcessPlan>, folders: Folders) -> Result<Self> {
        Self::start_by(plans, folders, Duties::default(), Earlier::Adopt)
    }

    /// The same, with a PostgreSQL that is started as the keeper of its lease says, and with another way to treat what
    /// an earlier agent has left running.
    ///
    /// # Errors
    /// As [`Supervisor::start`].
    pub fn start_by(plans: Vec<ProcessPlan>, folders: Folders, duties: Duties, earlier: Earlier) -> Result<Self> {
        folders.create()?;
        let records = Arc::new(Records::open(folders.record()));
        let stopped = Stopped::open(folders.stopped())?;
        let supervisor = Self {
            folders,
            duties,
            records,
            stopped,
            earlier,
            board: watch::Sender::new(Vec::new()),
            running: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
        };
        for plan in plans {
            supervisor.launch(Spec::Planned(Box::new(plan)))?;
        }
        Ok(supervisor)
    }

    /// Supervises a child that another part of the agent spawns, or replaces the one of this name.
    ///
    /// # Errors
    /// When its cgroup cannot be made.
    pub async fn add(&self, spawned: Spawned) -> Result<()> {
        let _changing = self.changing.lock().await;
        let found = self.running().iter().find(|running| running.handle.name == spawned.name).map(Running::look);
        match found {
            Some((true, _)) => bail!("a process of the plan is named {} already", spawned.name),
            Some((false, handle)) => handle.update(Spec::Spawned(spawned)).await,
            None => self.launch(Spec::Spawned(spawned)),
        }
    }

    /// Stops one process and forgets it; an unknown name is no error.
    pub async fn remove(&self, name: &str) {
        let _changing = self.changing.lock().await;
        self.forget(name).await;
    }

    /// Changes to a new plan: what is gone stops, what changed is reloaded or restarted, what is new starts.
    ///
    /// # Errors
    /// Names every process whose new configuration was refused; those go on with the old one.
    pub async fn apply(&self, plans: Vec<ProcessPlan>) -> Result<()> {
        let _changing = self.changing.lock().await;
        let gone = |running: &&Running| running.planned && !plans.iter().any(|plan| plan.name == running.handle.name);
        let gone: Vec<String> =
            self.running().iter().rev().filter(gone).map(|running| running.handle.name.clone()).collect();
        for name in gone {
            self.forget(&name).await;
        }
        let order: Vec<String> = plans.iter().map(|plan| plan.name.clone()).collect();
        let mut refused = Vec::new();
        for plan in plans {
            let result = match self.handle(&plan.name) {
                // Also when the plan is the same: certificates and rule files may have changed.
                Ok(handle) => handle.update(Spec::Planned(Box::new(plan))).await,
                Err(_) => self.launch(Spec::Planned(Box::new(plan))),
            };
            if let Err(error) = result {
                refused.push(format!("{error:#}"));
            }
        }
        // What the plan does not name came after it.
        self.running()
            .sort_by_key(|running| order.iter().position(|name| *name == running.handle.name).unwrap_or(usize::MAX));
        if refused.is_empty() { Ok(()) } else { Err(anyhow!("{}", refused.join("; "))) }
    }

    /// Stops everything in reverse order and returns when nothing is left, also of what an earlier agent left.
    pub async fn stop(&self) {
        let _changing = self.changing.lock().await;
        loop {
            let last = self.running().pop();
            let Some(running) = last else { break };
            running.handle.stop().await;
        }
        self.clear_leftovers().await;
    }

    /// Stops one process, which stays stopped until [`Supervisor::start_one`]; returns when nothing of it is left.
    ///
    /// # Errors
    /// No process of this name.
    pub async fn stop_one(&self, name: &str) -> Result<()> {
        let handle = self.handle(name)?;
        handle.holds.set(Hold::Agent);
        handle.halt(End::Asked).await;
        Ok(())
    }

    /// Kills one process with everything in its cgroup, which stays stopped until [`Supervisor::start_one`].
    ///
    /// The signal is sent before the first wait; returns when nothing of it is left.
    ///
    /// # Errors
    /// No process of this name.
    pub async fn kill_one(&self, name: &str) -> Result<()> {
        let handle = self.handle(name)?;
        handle.holds.set(Hold::Agent);
        handle.cgroup.kill();
        // Its task may have been about to start it: it clears the group once more.
        handle.halt(End::Killed).await;
        Ok(())
    }

    /// Lets one process run again, at once, unless an operator holds it back too.
    ///
    /// # Errors
    /// No process of this name.
    pub async fn start_one(&self, name: &str) -> Result<()> {
        let handle = self.handle(name)?;
        handle.holds.clear(Hold::Agent);
        handle.look().await;
        Ok(())
    }

    /// Takes an operator's order, and remembers it before anything follows it; what follows is told by the state.
    ///
    /// # Errors
    /// No process of this name; it cannot be remembered.
    pub fn order(&self, name: &str, change: ProcessChange) -> Result<()> {
        let handle = self.handle(name)?;
        let stop = change == ProcessChange::Stop;
        self.stopped.set(name, stop).context("an order that cannot be remembered is not taken")?;
        if stop {
            handle.holds.set(Hold::Operator);
        } else {
            handle.holds.clear(Hold::Operator);
        }
        // Nobody waits for the answer here.
        let (reply, _) = oneshot::channel();
        let order = if change == ProcessChange::Start { Order::Look(reply) } else { Order::Halt(End::Asked, reply) };
        if handle.orders.send(order).is_err() {
            bail!("the task of {name} is gone: this is a bug; restart the agent");
        }
        Ok(())
    }

    /// Kills what an earlier agent started and nobody names now; to be called when everything was started and added.
    pub async fn clear_leftovers(&self) {
        for name in self.records.names() {
            if self.handle(&name).is_err() {
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
        let handles: Vec<Handle> = self.running().iter().map(|running| running.handle.clone()).collect();
        let of = |handle: Handle| {
            let status = status.iter().find(|status| status.name == handle.name);
            let pressure = handle.cgroup.pressure();
            ProcessUsage {
                stopped: handle.holds.any(),
                throttled_periods: pressure.throttled_periods,
                throttled_seconds: pressure.throttled_seconds,
                oom_kills: pressure.oom_kills,
                cpu_seconds: handle.cgroup.cpu_seconds(),
                memory_bytes: handle.cgroup.memory_bytes(),
                restarts: status.map_or(0, |status| status.restarts),
                up: status.is_some_and(|status| status.state == ProcessState::Running),
                name: handle.name,
            }
        };
        handles.into_iter().map(of).collect()
    }

    fn launch(&self, spec: Spec) -> Result<()> {
        let name = spec.name().to_owned();
        let planned = matches!(spec, Spec::Planned(_));
        let cgroup = Cgroup::create(&self.folders.cgroup, &name)?;
        let reporter = Reporter { board: self.board.clone(), name: name.clone() };
        reporter.enter();
        let (orders, receiver) = mpsc::unbounded_channel();
        let holds = Holds::default();
        if self.stopped.has(&name) {
            holds.set(Hold::Operator);
        }
        let handle = Handle { name, cgroup, holds, orders };
        let task = Task {
            spec,
            around: Surroundings {
                folders: self.folders.clone(),
                cgroup: handle.cgroup.clone(),
                reporter: reporter.clone(),
                duties: self.duties.clone(),
            },
            records: Arc::clone(&self.records),
            orders: receiver,
            backoff: Backoff::default(),
            unready: 0,
            holds: handle.holds.clone(),
            replace: self.earlier == Earlier::Replace,
            limits_fault: None,
        };
        let task = tokio::spawn(task.run());
        self.running().push(Running { planned, reporter, handle, task });
        Ok(())
    }

    /// Stops one process and takes it off the board.
    async fn forget(&self, name: &str) {
        let found = {
            let mut running = self.running();
            let index = running.iter().position(|running| running.handle.name == name);
            index.map(|index| running.remove(index))
        };
        if let Some(running) = found {
            running.handle.stop().await;
            running.reporter.leave();
        }
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

    /// A poisoned lock means a panic elsewhere; the list is as good as it was.
    fn running(&self) -> MutexGuard<'_, Vec<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handle(&self, name: &str) -> Result<Handle> {
        let running = self.running();
        let found = running.iter().find(|running| running.handle.name == name);
        found.map(|running| running.handle.clone()).with_context(|| {
            let names: Vec<&str> = running.iter().map(|running| running.handle.name.as_str()).collect();
            format!("no process is called `{name}` here; there are {}", names.join(", "))
        })
    }
}

impl Running {
    /// Whether it is of the plan, and what gives it orders.
    fn look(&self) -> (bool, Handle) {
        (self.planned, self.handle.clone())
    }
}

impl Handle {
    async fn update(&self, spec: Spec) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        if self.orders.send(Order::Update(Box::new(spec), reply)).is_err() {
            bail!("the task of {} is gone: this is a bug; restart the agent", self.name);
        }
        answer.await.unwrap_or_else(|_| bail!("the task of {} ended in between", self.name))
    }

    /// Ends what runs; whether it starts again is up to who holds it back.
    async fn halt(&self, end: End) {
        self.order(|reply| Order::Halt(end, reply)).await;
    }

    /// Has the process start, if nobody holds it back and it does not run.
    async fn look(&self) {
        self.order(Order::Look).await;
    }

    async fn stop(&self) {
        self.order(Order::Stop).await;
    }

    async fn order(&self, order: impl FnOnce(oneshot::Sender<()>) -> Order) {
        let (reply, answer) = oneshot::channel();
        if self.orders.send(order(reply)).is_ok() {
            // An error means that the task is gone: nothing runs then.
            let _ = answer.await;
        }
    }
}
