//! The life of one process: adopt or prepare, start, watch, pause, start again; stop when asked.

use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use nix::unistd::Pid;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Duration, Instant, MissedTickBehavior, interval, sleep, timeout};

use super::backoff::Backoff;
use super::board::{ProcessState, ProcessStatus};
use super::hold::Holds;
use super::kind::{self, Surroundings};
use super::launch::Launch;
use super::log;
use super::main_process::{Ended, MainProcess, start_ticks_of};
use super::record::{Record, Records};
use super::spec::Spec;
use crate::plan::ProcessPlan;

/// Time between two looks at the size of a log, in milliseconds.
const LOG_CHECK_MS: u64 = 1_000;

/// Times in a row that a program gives up before it is ready, until something is done about it; and so many more until the next try.
const UNREADY_MAX: u32 = 5;
const UNREADY_MORE: u32 = 3;

/// What the supervisor asks of a process's task.
pub(super) enum Order {
    /// Be this from now on; answers what was wrong with it.
    Update(Box<Spec>, oneshot::Sender<Result<()>>),
    /// End what runs, and start again unless held back; answers when nothing is left of it.
    Halt(End, oneshot::Sender<()>),
    /// Look whether it is still held back: if not, start at once.
    Look(oneshot::Sender<()>),
    /// Stop for good; answers when nothing is left.
    Stop(oneshot::Sender<()>),
}

/// How a running process is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// By its stop signal, with its time to follow it.
    Asked,
    /// By SIGKILL to all of its group.
    Killed,
}

/// How a stretch of a process's life ended.
enum Next {
    /// Start again at once, unless held back.
    Again,
    /// It failed after running this long: pause first.
    Failed(String, Duration),
    /// Asked to stop.
    Stop(oneshot::Sender<()>),
}

/// What became of a new spec for a running process.
enum Updated {
    /// The old one stays in force.
    Refused,
    /// The process goes on, reloaded where needed.
    InPlace,
    /// The process was stopped and has to be started again.
    Halted,
}

/// The task of one process.
pub(super) struct Task {
    pub(super) spec: Spec,
    pub(super) around: Surroundings,
    pub(super) records: Arc<Records>,
    pub(super) orders: mpsc::UnboundedReceiver<Order>,
    pub(super) backoff: Backoff,
    /// Times in a row that it gave up before it was ready.
    pub(super) unready: u32,
    pub(super) holds: Holds,
    /// Whether what an earlier agent started is ended first.
    pub(super) replace: bool,
    /// Which limits are not kept, as told last.
    pub(super) limits_fault: Option<String>,
}

impl Task {
    /// Lives until it is asked to stop.
    pub(super) async fn run(mut self) {
        let afresh = self.replace || self.holds.any();
        let mut next = if afresh { self.end_earlier().await } else { self.resume().await };
        loop {
            let (message, ran) = match next {
                Next::Again => {
                    next = if self.holds.any() { self.rest().await } else { self.start().await };
                    continue;
                }
                Next::Stop(reply) => {
                    self.finish(reply).await;
                    return;
                }
                Next::Failed(message, ran) => (message, ran),
            };
            next = self.pause(message, ran).await;
        }
    }

    /// What an earlier agent started, when it still runs.
    fn earlier(&self) -> Option<(MainProcess, Record)> {
        let name = self.spec.name();
        let record = self.records.find(name).filter(|record| record.pid != 0)?;
        match MainProcess::adopt(Pid::from_raw(record.pid), record.start_ticks) {
            Ok(main) => main.map(|main| (main, record)),
            Err(error) => {
                tracing::error!(process = name, error = %format!("{error:#}"), "cannot adopt; restarting it");
                None
            }
        }
    }

    /// Ends what an earlier agent started.
    async fn end_earlier(&mut self) -> Next {
        if let Some((main, _)) = self.earlier() {
            self.halt(main, None).await;
        }
        Next::Again
    }

    /// Goes on with what an earlier agent started, when it still runs.
    async fn resume(&mut self) -> Next {
        let name = self.spec.name().to_owned();
        let Some((main, record)) = self.earlier() else { return Next::Again };
        let launch = match kind::configure(&self.spec, &self.around).await {
            Ok(launch) => launch,
            Err(error) => {
                // What runs was good enough for the earlier agent: better than nothing.
                let message = format!("adopted as it is, for its new configuration is refused: {error:#}");
                return self.watch(main, None, Some(message)).await;
            }
        };
        if launch.fingerprint() != record.fingerprint {
            self.halt(main, Some(&launch)).await;
            return Next::Again;
        }
        if launch.configuration != record.configuration && !self.reload(&main, &launch) {
            self.halt(main, Some(&launch)).await;
            return Next::Again;
        }
        self.limit();
        tracing::info!(process = name, pid = %main.pid(), "adopted");
        self.watch(main, Some(launch), None).await
    }

    /// Prepares and starts the program, then watches it.
    async fn start(&mut self) -> Next {
        let began = Instant::now();
        self.around.reporter.update(|status| {
            status.pid = None;
            status.adopted = false;
            status.state = ProcessState::Starting;
        });
        let log = self.around.folders.log_of(self.spec.name());
        let log_from = log::size(&log);
        self.limit();
        // So that the next agent knows of it, should this one die before it can tell more.
        self.records.set(self.spec.name(), Some(Record::default()));
        let prepared = tokio::select! {
            biased;
            order = self.orders.recv() => return self.order_while_down(order).await,
            prepared = prepare(&self.spec, &self.around) => prepared,
        };
        if self.holds.any() {
            return Next::Again;
        }
        let started = prepared.and_then(|launch| Ok((self.spawn(&launch)?, launch)));
        match started {
            Ok((main, launch)) => match self.watch(main, Some(launch), None).await {
                Next::Failed(message, ran) => {
                    let message = match log::last_line(&log, log_from) {
                        Some(line) => format!("{message}; its last words in {}: {line}", log.display()),
                        None => message,
                    };
                    Next::Failed(message, ran)
                }
                next => next,
            },
            Err(error) => Next::Failed(format!("{error:#}"), began.elapsed().min(Duration::from_secs(1))),
        }
    }

    fn spawn(&mut self, launch: &Launch) -> Result<MainProcess> {
        let child = match &mut self.spec {
            Spec::Planned(plan) => {
                let log = log::open(&self.around.folders.log_of(&plan.name))?;
                launch.spawn(&self.around.cgroup, &log)?
            }
            Spec::Spawned(spawned) => {
                let child = (spawned.spawn)().with_context(|| format!("cannot start {}", spawned.name))?;
                let raw = child.id().and_then(|id| i32::try_from(id).ok()).context("it ended at once")?;
                self.around.cgroup.adopt(Pid::from_raw(raw))?;
                child
            }
        };
        let main = MainProcess::own(child)?;
        self.note(&main, launch);
        tracing::info!(process = self.spec.name(), pid = %main.pid(), "started");
        Ok(main)
    }

    fn note(&self, main: &MainProcess, launch: &Launch) {
        let record = start_ticks_of(main.pid()).map(|start_ticks| Record {
            pid: main.pid().as_raw(),
            start_ticks,
            fingerprint: launch.fingerprint(),
            configuration: launch.configuration.clone(),
        });
        self.records.set(self.spec.name(), record);
    }

    /// Watches a running process until it ends or an order ends it.
    async fn watch(&mut self, mut main: MainProcess, mut launch: Option<Launch>, message: Option<String>) -> Next {
        let began = Instant::now();
        let oom_kills = self.around.cgroup.pressure().oom_kills;
        self.around.reporter.update(|status| {
            status.pid = Some(main.pid().as_raw());
            status.adopted = main.adopted();
            status.state = ProcessState::Starting;
        });
        let mut settle = Box::pin(kind::settle(self.plan(), self.around.clone()));
        let mut settled = false;
        let mut log_check = interval(Duration::from_millis(LOG_CHECK_MS));
        log_check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Ended { how, by_itself } = main.ended() => {
                    drop(settle);
                    let killed = self.around.cgroup.pressure().oom_kills.saturating_sub(oom_kills);
                    let how = if killed > 0 { format!("{how}; its memory limit had {killed} of its processes killed") } else { how };
                    if by_itself && !settled {
                        self.count_unready(began.elapsed()).await;
                    }
                    // A run that was never ready was not a good one.
                    return self.ended(how, if settled { began.elapsed() } else { Duration::ZERO }).await;
                }
                result = &mut settle, if !settled => match result {
                    Ok(()) => {
                        settled = true;
                        self.unready = 0;
                        self.around.reporter.state(ProcessState::Running, message.clone());
                    }
                    Err(unready) => {
                        self.halt(main, launch.as_ref()).await;
                        return Next::Failed(unready, Duration::ZERO);
                    }
                },
                order = self.orders.recv() => match order {
                    Some(Order::Update(spec, reply)) => {
                        match self.update(*spec, reply, &mut main, &mut launch).await {
                            Updated::Refused => {}
                            Updated::InPlace => {
                                settle = Box::pin(kind::settle(self.plan(), self.around.clone()));
                                settled = false;
                            }
                            Updated::Halted => return Next::Again,
                        }
                    }
                    Some(Order::Stop(reply)) => {
                        self.halt(main, launch.as_ref()).await;
                        return Next::Stop(reply);
                    }
                    Some(Order::Halt(end, reply)) => {
                        self.end(main, launch.as_ref(), end).await;
                        self.backoff.reset();
                        told(reply);
                        return Next::Again;
                    }
                    Some(Order::Look(reply)) => told(reply),
                    // The supervisor is gone without a stop: the process goes on for the next agent.
                    None => std::future::pending().await,
                },
                _ = log_check.tick() => log::turn_over(&self.around.folders.log_of(self.spec.name())),
            }
        }
    }

    /// What gives up again and again before it is ready has a fault that another start does not mend.
    async fn count_unready(&mut self, ran: Duration) {
        self.unready += 1;
        if self.unready >= UNREADY_MAX {
            self.unready -= UNREADY_MORE;
            kind::never_ready(&self.spec, &self.around, ran).await;
        }
    }

    async fn ended(&mut self, how: String, ran: Duration) -> Next {
        self.around.reporter.update(|status| status.pid = None);
        // What the main process left (nginx's workers hold its ports) must be gone before the next start.
        let how = match self.around.cgroup.clear().await {
            Ok(()) => how,
            Err(error) => format!("{how}; {error:#}"),
        };
        self.records.set(self.spec.name(), None);
        Next::Failed(how, ran)
    }

    fn plan(&self) -> Option<ProcessPlan> {
        match &self.spec {
            Spec::Planned(plan) => Some((**plan).clone()),
            Spec::Spawned(_) => None,
        }
    }

    /// Takes a new spec while the process runs.
    async fn update(
        &mut self,
        spec: Spec,
        reply: oneshot::Sender<Result<()>>,
        main: &mut MainProcess,
        launch: &mut Option<Launch>,
    ) -> Updated {
        let new = match kind::configure(&spec, &self.around).await {
            Ok(new) => new,
            Err(error) => {
                let refusal = format!("{error:#}");
                self.around.reporter.update(|status| status.message = Some(format!("reload refused: {refusal}")));
                answer(reply, Err(anyhow!("{}: {refusal}; the old configuration stays in force", spec.name())));
                return Updated::Refused;
            }
        };
        self.spec = spec;
        self.backoff.reset();
        self.limit();
        let same_run = launch.as_ref().is_some_and(|old| old.fingerprint() == new.fingerprint());
        let same_configuration = launch.as_ref().is_some_and(|old| old.configuration == new.configuration);
        if !same_run || (!same_configuration && !self.reload(main, &new)) {
            self.halt_in_place(main, launch.as_ref().or(Some(&new))).await;
            answer(reply, Ok(()));
            return Updated::Halted;
        }
        *launch = Some(new);
        self.around.reporter.update(|status| status.message = None);
        answer(reply, Ok(()));
        Updated::InPlace
    }

    /// Puts its limits in force, also for what runs, and tells those that cannot be kept.
    fn limit(&mut self) {
        let fault = self.around.cgroup.limit(&self.spec.limits()).err();
        if let Some(fault) = &fault
            && self.limits_fault.as_ref() != Some(fault)
        {
            tracing::warn!(process = self.spec.name(), "{fault}");
        }
        self.limits_fault.clone_from(&fault);
        self.around.reporter.update(|status| status.limits_fault = fault);
    }

    /// Makes a running process read its configuration again; false when it has to be restarted for that.
    fn reload(&self, main: &MainProcess, launch: &Launch) -> bool {
        let Some(signal) = launch.reload_signal else { return false };
        main.signal(signal);
        self.note(main, launch);
        tracing::info!(process = self.spec.name(), pid = %main.pid(), "reloaded");
        true
    }

    async fn halt(&self, main: MainProcess, launch: Option<&Launch>) {
        self.end(main, launch, End::Asked).await;
    }

    async fn end(&self, mut main: MainProcess, launch: Option<&Launch>, end: End) {
        match end {
            End::Asked => self.halt_in_place(&mut main, launch).await,
            End::Killed => {
                self.around.reporter.state(ProcessState::Stopping, None);
                self.clear(&mut main).await;
            }
        }
    }

    /// Asks the process to stop, kills it when it does not, and returns when nothing of it is left.
    async fn halt_in_place(&self, main: &mut MainProcess, launch: Option<&Launch>) {
        self.around.reporter.state(ProcessState::Stopping, None);
        let wanted = self.spec.stop_signal().ok().flatten();
        let signal = wanted.or(launch.map(|launch| launch.stop_signal)).unwrap_or(nix::sys::signal::Signal::SIGTERM);
        main.signal(signal);
        let patience = self.spec.stop_timeout();
        if timeout(patience, main.ended()).await.is_err() {
            tracing::warn!(process = self.spec.name(), patience_ms = patience.as_millis(), "does not stop; killing it");
        }
        self.clear(main).await;
    }

    /// Kills everything in the group and returns when nothing of it is left.
    async fn clear(&self, main: &mut MainProcess) {
        if let Err(error) = self.around.cgroup.clear().await {
            tracing::error!(process = self.spec.name(), error = %format!("{error:#}"), "cannot be killed");
        }
        // Reaps our own child; an adopted one is reaped by init.
        let _ = timeout(Duration::from_secs(1), main.ended()).await;
        self.records.set(self.spec.name(), None);
        self.around.reporter.update(|status| status.pid = None);
    }

    /// Waits out the pause after a failure, or the order that ends it.
    async fn pause(&mut self, message: String, ran: Duration) -> Next {
        let pause = self.backoff.failed(ran);
        let state = if self.backoff.crash_loop() { ProcessState::CrashLoop } else { ProcessState::Backoff };
        tracing::warn!(process = self.spec.name(), pause_ms = pause.as_millis(), "{message}");
        self.around.reporter.state(state, Some(message));
        tokio::select! {
            () = sleep(pause) => {
                self.around.reporter.update(|status| status.restarts += 1);
                Next::Again
            }
            order = self.orders.recv() => self.order_while_down(order).await,
        }
    }

    async fn order_while_down(&mut self, order: Option<Order>) -> Next {
        match order {
            Some(Order::Update(spec, reply)) => {
                self.spec = *spec;
                self.backoff.reset();
                answer(reply, Ok(()));
                Next::Again
            }
            Some(Order::Halt(_, reply)) => {
                if let Err(error) = self.around.cgroup.clear().await {
                    tracing::error!(process = self.spec.name(), error = %format!("{error:#}"), "cannot be killed");
                }
                self.backoff.reset();
                told(reply);
                Next::Again
            }
            Some(Order::Look(reply)) => {
                self.backoff.reset();
                told(reply);
                Next::Again
            }
            Some(Order::Stop(reply)) => Next::Stop(reply),
            None => std::future::pending().await,
        }
    }

    /// Does not run until nobody holds it back any more, or an order ends it.
    async fn rest(&mut self) -> Next {
        self.around.reporter.state(ProcessState::Stopped, Some(self.holds.reason()));
        let order = self.orders.recv().await;
        self.order_while_down(order).await
    }

    /// Leaves nothing behind and tells who asked.
    async fn finish(&mut self, reply: oneshot::Sender<()>) {
        if let Err(error) = self.around.cgroup.clear().await {
            tracing::error!(process = self.spec.name(), error = %format!("{error:#}"), "left behind");
        }
        self.records.set(self.spec.name(), None);
        self.around.cgroup.remove();
        self.around.reporter.state(ProcessState::Stopped, None);
        told(reply);
    }
}

/// Everything before the start; whatever is left in the group is nobody's and goes first.
async fn prepare(spec: &Spec, around: &Surroundings) -> Result<Launch> {
    around.cgroup.clear().await?;
    wait_for_others(spec.after(), around).await;
    let launch = kind::configure(spec, around).await?;
    kind::initialise(spec, around).await?;
    Ok(launch)
}

/// Returns when all those named are ready; one that does not run, as asked, is not waited for.
async fn wait_for_others(names: &[String], around: &Surroundings) {
    let mut board = around.reporter.board.subscribe();
    let unready = |all: &[ProcessStatus]| {
        let wanted = |status: &&ProcessStatus| {
            names.contains(&status.name) && !matches!(status.state, ProcessState::Running | ProcessState::Stopped)
        };
        all.iter().find(wanted).map(|status| status.name.clone())
    };
    loop {
        let first = unready(&board.borrow_and_update());
        let Some(name) = first else { return };
        around.reporter.state(ProcessState::Waiting, Some(format!("waits until {name} is ready")));
        if board.changed().await.is_err() {
            return;
        }
    }
}

fn answer(reply: oneshot::Sender<Result<()>>, result: Result<()>) {
    // Who asked may have gone away; the board tells the same.
    let _ = reply.send(result);
}

fn told(reply: oneshot::Sender<()>) {
    // Nobody waits any more: as good as told.
    let _ = reply.send(());
}
