//! What a leader does: it is promoted, waits for whoever may take over, and is open to clients while its lease lasts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use tokio::time::sleep;
use tracing::{error, info, warn};

use super::{HURRY, STATEMENT, Work};
use crate::database::duty::Duty;
use crate::database::local::Look;
use crate::database::state::{Members, Role, State};
use crate::database::store::Store;
use crate::database::sync::{self, Change, Mode, Situation, Waits};

/// Time from a promotion to the next try.
const PROMOTED: Duration = Duration::from_secs(2);
/// Time that a checkpoint may take.
const CHECKPOINT: Duration = Duration::from_secs(300);

/// What a leader remembers of its PostgreSQL.
#[derive(Debug, Default)]
pub(super) struct Leading {
    /// Since when this server has led.
    since: Option<Instant>,
    /// The start of PostgreSQL that all of this is about.
    started: i64,
    /// And its postmaster.
    postmaster: Option<u32>,
    /// Older looks are of a PostgreSQL that has ended.
    after: Option<Instant>,
    /// When it was last told to become the leader.
    promoting: Option<Instant>,
    /// Where its log ended when it was first seen: what was committed before that may be visible and not on any replica.
    ended: u64,
    /// Whether everybody who may take over has all of that.
    proven: bool,
    /// What it was told to wait for.
    waits: Option<Waits>,
    /// What all of its processes are known to wait for.
    confirmed: Option<Waits>,
    /// Where its log ended when it was known to wait for that.
    waits_since: Option<u64>,
    /// Since when each replica has been away.
    away: BTreeMap<String, Instant>,
}

impl Leading {
    /// Of who has led since then; nothing is known of its PostgreSQL.
    pub(super) fn begun(since: Option<Instant>) -> Self {
        Self { since, ..Self::default() }
    }

    /// What it was told last may not have arrived: it is told again what the state says.
    pub(super) fn begin_anew(&mut self) {
        (self.waits, self.waits_since) = (None, None);
    }
}

impl<S: Store> Work<S> {
    /// What a leader does in a round; returns whether something is under way.
    pub(super) async fn lead(&mut self, members: &Members) -> bool {
        if self.duties.now() == Duty::Undecided {
            // It is about to start, with what nobody else may have.
            self.fence.close();
            self.leading = Leading { after: Some(Instant::now()), ..Leading::begun(self.leading.since) };
        }
        self.duties.give(Duty::Lead);
        let after = self.leading.after;
        let Some(look) = self.watcher.look().filter(|look| after.is_none_or(|after| look.at > after)) else {
            self.note = "PostgreSQL does not answer".to_owned();
            // Slow is not gone: the one that clients were let to goes on.
            match self.lease.filter(|_| self.leading.proven && self.grip.postmaster() == self.leading.postmaster) {
                Some(lease) => self.fence.open_until(lease.end),
                None => self.fence.close(),
            }
            return true;
        };
        match look.role {
            Role::Primary => self.lead_primary(&look, members).await,
            Role::Replica | Role::Down => {
                self.fence.close();
                // An operator's order took the lease for it otherwise than by its own decision.
                self.leading.since.get_or_insert_with(Instant::now);
                self.promote();
                true
            }
        }
    }

    fn promote(&mut self) {
        self.note = "being promoted".to_owned();
        let waits = Waits::alone(self.post.mode, &self.peers);
        // What it is by the last look may be what it was.
        let lately = self.leading.promoting.is_some_and(|at| at.elapsed() < PROMOTED);
        if self.errand.is_some() || lately {
            return;
        }
        if let Err(fault) = self.grip.wait_for(&waits.names()) {
            error!("{fault:#}");
            return;
        }
        self.leading.promoting = Some(Instant::now());
        if let Err(fault) = self.grip.trust() {
            error!("{fault:#}");
        }
        info!(epoch = self.epoch, "promoting PostgreSQL");
        let socket = self.socket.clone();
        self.send(async move {
            socket.run("select pg_reload_conf()", STATEMENT).await?;
            socket.run("select pg_promote(true, 60)", Duration::from_secs(60)).await
        });
    }

    async fn lead_primary(&mut self, look: &Look, members: &Members) -> bool {
        let Some(state) = self.sight.snapshot.state.clone() else { return true };
        if self.leading.started != look.started {
            self.leading = Leading {
                since: self.leading.since,
                after: self.leading.after,
                started: look.started,
                postmaster: self.grip.postmaster(),
                ended: look.position,
                away: self.others.iter().map(|name| (name.clone(), Instant::now())).collect(),
                ..Leading::default()
            };
            self.slots = None;
        }
        if state.cluster.is_none() {
            let known = State { cluster: Some(look.cluster), ..state };
            return self.swapped(known).await;
        }
        for standby in &look.standbys {
            self.leading.away.insert(standby.name.clone(), Instant::now());
        }
        let flushed = |name: &String| look.standbys.iter().find(|standby| standby.name == *name).map(|by| by.flushed);
        let has_all = |name: &String| flushed(name).is_some_and(|flushed| flushed >= self.leading.ended);
        self.leading.proven |= state.in_sync.iter().all(has_all);
        let busy = self.keep_in_sync(look, &state).await;
        let obeys = self.obeys(look, &state.in_sync);
        match self.lease.filter(|_| self.leading.proven && obeys) {
            Some(lease) => {
                self.fence.open_until(lease.end);
                if let Some(since) = self.leading.since.take() {
                    let took = since.elapsed();
                    (self.promotions, self.promotion) = (self.promotions + 1, Some(took));
                    info!(epoch = self.epoch, took_ms = took.as_millis(), "clients reach the leader");
                }
                self.note = self.degraded(&state);
            }
            None => {
                self.fence.close();
                self.note = "waiting until a replica has what was committed before the start".to_owned();
            }
        }
        let me = self.post.me.clone();
        self.look_after_slots(&me, members);
        busy || !self.leading.proven
    }

    /// Whether PostgreSQL waits for everybody who may take over.
    fn obeys(&self, look: &Look, in_sync: &BTreeSet<String>) -> bool {
        let Leading { waits, confirmed: Some(confirmed), .. } = &self.leading else { return false };
        let known = waits.iter().chain([confirmed]).any(|waits| waits.names() == look.names);
        // The state of a moment ago may be what has just been changed.
        let in_sync = self.sight.snapshot.state.as_ref().map_or(in_sync, |state| &state.in_sync);
        known && confirmed.keeps(in_sync, self.post.mode)
    }

    fn degraded(&self, state: &State) -> String {
        match (state.in_sync.is_empty(), self.post.mode) {
            (false, _) => String::new(),
            (true, Mode::Strict) => "no replica is in sync: writes wait for one".to_owned(),
            (true, Mode::Available { .. }) => {
                "no replica is in sync: writes are kept here alone, and nobody takes over".to_owned()
            }
        }
    }

    /// One step towards waiting for every replica that is there; returns whether another one follows.
    async fn keep_in_sync(&mut self, look: &Look, state: &State) -> bool {
        let waits = self.leading.waits.get_or_insert_with(|| {
            if state.in_sync.is_empty() {
                Waits::alone(self.post.mode, &self.peers)
            } else {
                Waits::All(state.in_sync.clone())
            }
        });
        let waits = waits.clone();
        if self.errand.is_some() {
            self.let_joiners_go(state, &waits);
            return true;
        }
        if look.at < self.errand_ended {
            return true;
        }
        if look.names != waits.names() {
            self.have_it_wait(&waits, look.names.is_empty());
            return true;
        }
        // Known only now, after everything that it was told has been done.
        let waits_since = *self.leading.waits_since.get_or_insert(look.position);
        self.leading.confirmed = Some(waits.clone());
        let situation = Situation {
            mode: self.post.mode,
            others: &self.peers,
            in_sync: &state.in_sync,
            standbys: &look.standbys,
            waits: &waits,
            waits_since,
            position: look.position,
        };
        let away = |name: &str| self.leading.away.get(name).map_or(Duration::MAX, Instant::elapsed);
        match sync::next(&situation, away) {
            Change::None => false,
            Change::Wait(next) => {
                let from_nobody = waits == Waits::None;
                (self.leading.waits, self.leading.waits_since) = (Some(next.clone()), None);
                self.have_it_wait(&next, from_nobody);
                true
            }
            Change::InSync(in_sync) => {
                let names: Vec<&str> = in_sync.iter().map(String::as_str).collect();
                let what = if names.is_empty() { "nobody".to_owned() } else { names.join(", ") };
                warn!(in_sync = what, "who has every acknowledged commit has changed");
                let next = State { in_sync, ..state.clone() }.with_event(format!("in sync: {what}"));
                self.swapped(next).await
            }
        }
    }

    /// A replica that joins and goes again keeps writes waiting no longer than one that was in sync.
    fn let_joiners_go(&mut self, state: &State, waits: &Waits) {
        let (Mode::Available { degrade_after_ms }, Waits::All(joining)) = (self.post.mode, waits) else { return };
        let gone = |name: &String| {
            let away = self.leading.away.get(name).map_or(Duration::MAX, Instant::elapsed);
            away >= Duration::from_millis(degrade_after_ms)
        };
        if state.in_sync.is_empty() && joining.iter().all(gone) {
            warn!("who was about to join is gone: writes go on without it");
            self.errand = None;
            self.errand_ended = Instant::now();
            self.leading.begin_anew();
        }
    }

    /// Has PostgreSQL wait for others from now on. From nobody to somebody, every process of it must have heard: the checkpointer,
    /// whose word counts, does so before it writes a checkpoint.
    fn have_it_wait(&mut self, waits: &Waits, checkpoint: bool) {
        if self.errand.is_some() {
            return;
        }
        if let Err(fault) = self.grip.wait_for(&waits.names()) {
            error!("{fault:#}");
            return;
        }
        let socket = self.socket.clone();
        self.send(async move {
            socket.run("select pg_reload_conf()", STATEMENT).await?;
            if checkpoint {
                sleep(HURRY).await;
                socket.run("checkpoint", CHECKPOINT).await?;
            }
            Ok(())
        });
    }
}
