//! Putting another plan in force, whole or not at all, for good or until it is taken back.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::admin::{self, Firewall};
use super::control::{Applied, Apply};
use super::edge::{self, EdgeProcess};
use super::fence;
use super::load::Loaded;
use super::origin::Origins;
use super::server::{Server, learn_ways, lock, prepare_edge, settle};
use super::sources;
use super::window::{KeepInKernel, Open};
use crate::datapath::links;
use crate::host::{settings, vips};
use crate::plan::Plan;
use crate::process::Supervisor;
use crate::sets::Now;

/// Shortest time to confirm: who is cut off has to notice it.
const CONFIRM_MIN: Duration = Duration::from_secs(1);
/// Longest time to confirm: a change that nobody has looked at for a day is kept or taken back by hand.
const CONFIRM_MAX: Duration = Duration::from_secs(24 * 60 * 60);

impl Server {
    /// Reads the site file again and puts it in force, whole or not at all.
    ///
    /// # Errors
    /// Why it was refused; what ran keeps running.
    pub(super) async fn apply(&mut self, how: &Apply) -> Result<Applied> {
        let result = self.apply_file(how).await;
        {
            let mut reloads = lock(&self.reloads);
            match &result {
                Ok(()) => {
                    (reloads.applied, reloads.last_successful) = (reloads.applied + 1, true);
                    (self.last_refusal, self.notice) = (None, None);
                }
                Err(refusal) => {
                    (reloads.refused, reloads.last_successful) = (reloads.refused + 1, false);
                    self.last_refusal = Some(format!("{refusal:#}"));
                }
            }
        }
        result.map(|()| {
            let in_force = Applied { generation: self.generation(), left_ms: None };
            self.window.waiting().unwrap_or(in_force)
        })
    }

    async fn apply_file(&mut self, how: &Apply) -> Result<()> {
        if let Some(waiting) = self.window.waiting() {
            bail!(
                "generation {} waits for its confirmation, {} left: `foobar confirm` keeps it, `foobar revert` takes it back",
                waiting.generation,
                crate::sets::ttl::format(waiting.left().unwrap_or_default())
            );
        }
        let within = how.confirm_ms.map(Duration::from_millis);
        if let Some(within) = within {
            ensure!(
                (CONFIRM_MIN..=CONFIRM_MAX).contains(&within),
                "the time to confirm must be between 1s and 24h: what is not confirmed in it is taken back"
            );
        }
        let new = Loaded::read(&self.options)?;
        ensure!(
            new.plan.metrics == self.loaded.plan.metrics,
            "the addresses of /metrics cannot change in a running agent: restart it to move them to {:?}",
            new.plan.metrics
        );
        self.refuse_to_cut(how, &new)?;
        if within.is_some() {
            self.memory.begin(&new.snapshot).context("a change that waits must be remembered")?;
        }
        let old = self.loaded.clone();
        let begun = Instant::now();
        let put = match self.put_in_force(new, within).await {
            Ok(put) => put,
            Err(refusal) => {
                if within.is_some() {
                    self.memory.forget_unconfirmed()?;
                }
                return Err(refusal);
            }
        };
        let remembering = match within {
            Some(within) => {
                self.open_window(old, begun + within);
                None
            }
            None => Some(self.remember()),
        };
        let followed = put.follow(self).await;
        let remembered = match remembering {
            Some(task) => task.await.context("remembering it ended with a panic").flatten(),
            None => Ok(()),
        };
        let faults = faults([followed, remembered.context("it is in force, but cannot be remembered")]);
        if faults.is_empty() { Ok(()) } else { bail!(faults.join("; ")) }
    }

    /// Remembers what is in force, beside other work: the disk takes its time.
    fn remember(&self) -> JoinHandle<Result<()>> {
        let (memory, snapshot, files) = (self.memory.clone(), Arc::clone(&self.loaded.snapshot), self.sets.files());
        spawn_blocking(move || memory.keep(&snapshot).and_then(|()| files.drop_others()))
    }

    /// Refuses a plan that would cut the connection of who asks.
    fn refuse_to_cut(&self, how: &Apply, new: &Loaded) -> Result<()> {
        let (Some(connection), false) = (&how.admin.connection, how.admin.force) else { return Ok(()) };
        let ends = [connection.client.ip(), connection.server.ip()];
        let before = self.sets.around(&ends);
        let after = self.sets.around_with(&ends, &new.declared);
        admin::refuse_to_cut(
            connection,
            Firewall { plan: &self.loaded.plan, sets: &before },
            Firewall { plan: &new.plan, sets: &after },
            &Origins::of_file(&self.options.site),
        )
    }

    /// Puts a plan in force in the kernel; processes and the rest have to follow it.
    async fn put_in_force(&mut self, new: Loaded, confirm_within: Option<Duration>) -> Result<Put> {
        for interface in &new.plan.interfaces {
            links::index(interface)?;
        }
        settings::before_vips(&new.plan, &settings::memory(self.folders.run()))?;
        let earlier_vips = vips::hold(self.folders.run(), &new.plan.held(), new.plan.vip_interfaces()).await?;
        let earlier_sets = self.sets.declare(new.declared.clone(), Now::read())?;
        let applied = self
            .replan_edge(&new.plan)
            .and_then(|edge| lock(&self.datapath).apply(&new.plan, &self.sets, confirm_within).map(|()| edge));
        match applied {
            Ok(edge) => {
                // The new plan is in force: what fails from here on is told, and does not undo it.
                self.edge = edge;
                self.flood.set_half_open(new.plan.syn_cookies);
                self.loaded = new;
                self.events.tell_watched();
                Ok(Put)
            }
            Err(error) => {
                self.restore_edge();
                self.sets.declare(earlier_sets, Now::read())?;
                // The tables may have lost members on the way there and back.
                self.members.forget();
                self.follow_health();
                vips::let_go(self.folders.run(), &earlier_vips).await?;
                Err(error)
            }
        }
    }

    fn open_window(&mut self, old: Loaded, until: Instant) {
        let datapath = Arc::clone(&self.datapath);
        let keep: KeepInKernel = Box::new(move || lock(&datapath).confirm());
        self.fallback = Some(old);
        let generation = self.generation();
        let left = until.saturating_duration_since(Instant::now());
        warn!(generation, "in force for {} s, then taken back unless it is confirmed", left.as_secs());
        self.window.open(Open {
            generation,
            until,
            snapshot: Arc::clone(&self.loaded.snapshot),
            memory: self.memory.clone(),
            files: self.sets.files(),
            keep,
        });
    }

    /// Takes back what waits for confirmation; `asked`: by hand, not because its time is over.
    ///
    /// # Errors
    /// Nothing waits, or not everything could be taken back.
    pub(super) async fn roll_back(&mut self, asked: bool) -> Result<u32> {
        let open = self.window.close().context("nothing waits for confirmation: what is in force stays in force")?;
        let why = if asked { "as asked" } else { "because nobody confirmed it in time" };
        error!(generation = open.generation, "taking it back, {why}");
        // When its time is over, the kernel has taken the rules back by itself; everything else follows now.
        let remembered = self.memory.taken_back(&open.snapshot);
        let old = self.fallback.take().context("no plan to go back to: this is a bug")?;
        let followed = match self.put_in_force(old, None).await {
            Ok(put) => put.follow(self).await,
            Err(error) => Err(error),
        };
        let told = format!(
            "generation {} was taken back, {why}: in force is the site as it was last confirmed. `foobar apply` puts the \
             site file in force again",
            open.generation
        );
        let faults = faults([remembered, followed]);
        if faults.is_empty() {
            self.notice = Some(told);
            return Ok(self.generation());
        }
        let told = format!("{told}. Not everything could be taken back: {}", faults.join("; "));
        self.notice = Some(told.clone());
        bail!(told)
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
            && let Err(error) = edge.replan(&self.loaded.plan.edge)
        {
            warn!("the edge's old plan could not be restored: {error:#}");
        }
        if let Some(edge) = &self.edge {
            edge.retire();
        }
    }

    /// Processes that refuse their new configuration keep the old one; the others go on to the new plan.
    async fn replace_processes(&mut self, new: &Plan) -> Result<()> {
        let supervisor = Arc::clone(&self.supervisor);
        let mut change = pin!(change(&supervisor, self.edge.clone(), new));
        let mut health = self.health_changes.clone();
        // Processes take their time to stop; a backend that dies meanwhile leaves the tables all the same.
        loop {
            tokio::select! {
                result = &mut change => return result,
                Ok(()) = health.changed() => self.follow_health(),
            }
        }
    }
}

/// What went wrong, for people.
fn faults(results: impl IntoIterator<Item = Result<()>>) -> Vec<String> {
    results.into_iter().filter_map(|result| result.err().map(|fault| format!("{fault:#}"))).collect()
}

/// A plan that is in force in the kernel, and nowhere else yet.
#[must_use = "processes do not follow a plan by themselves"]
struct Put;

impl Put {
    /// Has everything follow the plan that is in force now.
    async fn follow(self, server: &mut Server) -> Result<()> {
        let plan = server.loaded.plan.clone();
        if let Some(edge) = &server.edge {
            edge.retire();
        }
        let let_go = vips::let_go(server.folders.run(), &plan.held()).await;
        let set = settle(&plan, &server.folders, &mut server.vlans, &lock(&server.datapath));
        server.learner = learn_ways(&plan);
        server.members.forget();
        lock(&server.health).apply(&plan.services);
        server.follow_health();
        let fenced = fence::hold(&mut lock(&server.datapath), &plan, &server.folders);
        let replaced = server.replace_processes(&plan).await;
        let retired = lock(&server.database).retire(&plan, &server.folders);
        if let Some(witness) = retired {
            witness.stop().await;
        }
        let kept = fence::of(&lock(&server.datapath))
            .and_then(|fence| lock(&server.database).follow(&plan, &server.folders, fence.as_ref()));
        let sources = sources::of(&plan, &server.folders, server.asked.clone());
        server.metrics.replace(sources).await;
        info!(generation = server.generation(), "reloaded");
        let faults = faults([let_go, set, fenced, replaced, kept]);
        if faults.is_empty() {
            return Ok(());
        }
        bail!("the new plan is in force as generation {}, but: {}", server.generation(), faults.join("; "))
    }
}

async fn change(supervisor: &Supervisor, edge: Option<EdgeProcess>, new: &Plan) -> Result<()> {
    let planned = supervisor.apply(new.processes.clone()).await;
    match edge {
        Some(edge) => planned.and(supervisor.add(edge.spawned(&new.edge)).await),
        None => {
            supervisor.remove(edge::NAME).await;
            planned
        }
    }
}
