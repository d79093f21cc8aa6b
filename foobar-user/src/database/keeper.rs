//! The keeper of one database server: reads the store, looks at PostgreSQL, decides, and acts; several times a second.
//!
//! Nothing that may take long stands between two renewals: statements run beside, and their effect is seen at a later look.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tracing::{error, info, warn};

use super::decide::{Own, Step, View, decide};
use super::duty::{Duties, Duty};
use super::local::{Look, Socket, Watcher};
use super::report::{DatabaseReport, MemberReport};
use super::state::{Member, Members, Role, State, now_ms};
use super::store::{Snapshot, Store};
use super::sync::{self, Change, Mode, Situation, Waits};
use crate::process::postgres::{Grip, slot};
use crate::sets::replace_file;

/// Time between two looks at the store.
const POLL: Duration = Duration::from_millis(200);
/// Time between two while something is changing.
const HURRY: Duration = Duration::from_millis(40);
/// Time between two renewals.
const RENEW: Duration = Duration::from_millis(500);
/// A server whose word has not changed for this long is not counted on.
const HEARD: Duration = Duration::from_millis(1_500);
/// Time that a statement may take.
const STATEMENT: Duration = Duration::from_secs(5);
/// Time that a checkpoint may take.
const CHECKPOINT: Duration = Duration::from_secs(300);
/// Time in which a killed PostgreSQL is expected to be gone, before its lease is given up all the same: it is fenced.
const DEATH: Duration = Duration::from_secs(1);
/// Time that a replica may be without its leader's log before it is asked whether their histories have parted.
const PARTED: Duration = Duration::from_secs(5);
/// Time from a promotion to the next try.
const PROMOTED: Duration = Duration::from_secs(2);
/// Time that a switchover may take.
const HANDOVER: Duration = Duration::from_secs(10);

/// The dead man's switch: whether clients reach PostgreSQL, and until when. In the kernel, so that it falls by itself.
pub trait Fencing: Debug + Send + Sync + 'static {
    /// Nanoseconds of the boot-time clock, by which it falls.
    fn now(&self) -> u64;
    /// Nobody reaches it.
    fn close(&self);
    /// Everybody does: it cannot be written.
    fn open(&self);
    /// Everybody does before this time.
    fn open_until(&self, end: u64);
    /// Whether clients reach it now.
    fn is_open(&self) -> bool;
}

/// A server's place in the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Post {
    /// This server.
    pub me: String,
    /// All database servers, this one among them, with their addresses.
    pub servers: Vec<(String, IpAddr)>,
    /// The one that makes the cluster.
    pub first: String,
    /// What happens to writes while no replica is there.
    pub mode: Mode,
    /// How long a lease lasts.
    pub ttl: Duration,
    /// File that remembers the last epoch.
    pub memory: PathBuf,
}

impl Post {
    /// How long before another server's clock can find the lease over its holder fences itself: more than clocks differ in
    /// rate, and than a packet takes from the fence to the wire.
    #[must_use]
    pub fn margin(&self) -> Duration {
        self.ttl / 8
    }
}

/// A keeper that goes on by itself until it is dropped.
#[derive(Debug)]
pub struct Keeper {
    report: watch::Receiver<DatabaseReport>,
    task: JoinHandle<()>,
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Keeper {
    /// Starts to keep.
    pub fn start(
        post: Post,
        store: Arc<impl Store>,
        grip: Grip,
        socket: Socket,
        duties: Duties,
        fence: Arc<dyn Fencing>,
    ) -> Self {
        let (sender, report) = watch::channel(DatabaseReport::default());
        let watcher = Watcher::start(socket.clone());
        let (epoch, leader) = remembered(&post.memory);
        let work = Work {
            others: post.servers.iter().map(|(name, _)| name.clone()).filter(|name| *name != post.me).collect(),
            names: post.servers.iter().map(|(name, _)| name.clone()).collect(),
            post,
            store,
            grip,
            socket,
            duties,
            fence,
            watcher,
            sight: Sight::default(),
            lease: None,
            told: None,
            leading: Leading::default(),
            following: Instant::now(),
            handover: None,
            errand: None,
            epoch,
            leader,
            fault: None,
            note: String::new(),
            promotions: 0,
            promotion: None,
            count: now_ms(),
            report: sender,
        };
        Self { report, task: tokio::spawn(work.run()) }
    }

    /// The cluster as this server sees it.
    #[must_use]
    pub fn report(&self) -> DatabaseReport {
        self.report.borrow().clone()
    }
}

/// What the store said last, and since when it says so.
#[derive(Debug)]
struct Sight {
    snapshot: Snapshot,
    /// When this version was first seen.
    since: Instant,
    /// When it was last read.
    read: Option<Instant>,
    /// When each server's word was last seen to change.
    heard: BTreeMap<String, (u64, Instant)>,
}

impl Default for Sight {
    fn default() -> Self {
        Self { snapshot: Snapshot::default(), since: Instant::now(), read: None, heard: BTreeMap::new() }
    }
}

impl Sight {
    fn take(&mut self, snapshot: Snapshot) {
        let now = Instant::now();
        if self.read.is_none() || snapshot.version != self.snapshot.version {
            self.since = now;
        }
        for (server, word) in &snapshot.members {
            let known = self.heard.get(server).is_some_and(|(count, _)| *count == word.count);
            if !known {
                // A first word may be from long ago: only a change proves that somebody lives.
                let first = !self.heard.contains_key(server);
                let at = if first { now.checked_sub(HEARD).unwrap_or(now) } else { now };
                self.heard.insert(server.clone(), (word.count, at));
            }
        }
        self.read = Some(now);
        self.snapshot = snapshot;
    }

    /// Words of those who were heard lately.
    fn members(&self) -> Members {
        let lately = |server: &String| self.heard.get(server).is_some_and(|(_, at)| at.elapsed() < HEARD);
        let members = self.snapshot.members.iter().filter(|(server, _)| lately(server));
        members.map(|(server, word)| (server.clone(), word.clone())).collect()
    }
}

/// This server's lease.
#[derive(Clone, Copy, Debug)]
struct Lease {
    /// When it was last renewed.
    renewed: Instant,
    /// Its end for this server, in nanoseconds of the boot-time clock.
    end: u64,
}

/// What a leader remembers of its PostgreSQL.
#[derive(Debug, Default)]
struct Leading {
    /// Since when this server has led.
    since: Option<Instant>,
    /// The start of PostgreSQL that all of this is about.
    started: i64,
    /// And its postmaster.
    postmaster: Option<u32>,
    /// When it was last told to become the leader.
    promoting: Option<Instant>,
    /// Where its log ended when it was first seen: what was committed before that may be visible and not on any replica.
    ended: u64,
    /// Whether everybody who may take over has all of that.
    proven: bool,
    /// What it was told to wait for.
    waits: Option<Waits>,
    /// Where its log ended when it was known to wait for that.
    waits_since: Option<u64>,
    /// Since when each replica has been away.
    away: BTreeMap<String, Instant>,
    /// When its slots were last looked after.
    slots: Option<Instant>,
}

/// Something that PostgreSQL is asked beside the loop.
#[derive(Debug)]
struct Errand {
    task: JoinHandle<Result<()>>,
}

impl Drop for Errand {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Debug)]
struct Work<S> {
    post: Post,
    /// All servers but this one.
    others: BTreeSet<String>,
    names: Vec<String>,
    store: Arc<S>,
    grip: Grip,
    socket: Socket,
    duties: Duties,
    fence: Arc<dyn Fencing>,
    watcher: Watcher,
    sight: Sight,
    lease: Option<Lease>,
    told: Option<Instant>,
    leading: Leading,
    /// When this server was last seen to receive its leader's log, or began to follow.
    following: Instant,
    /// When the handing over began.
    handover: Option<Instant>,
    errand: Option<Errand>,
    epoch: u64,
    leader: String,
    fault: Option<String>,
    note: String,
    promotions: u64,
    promotion: Option<Duration>,
    count: u64,
    report: watch::Sender<DatabaseReport>,
}

impl<S: Store> Work<S> {
    async fn run(mut self) {
        loop {
            let hurry = self.tick().await;
            self.publish();
            tokio::select! {
                () = sleep(if hurry { HURRY } else { POLL }) => {}
                // A change of what PostgreSQL is must not wait.
                () = self.watcher.answered(), if hurry => {}
            }
        }
    }

    /// One round; returns whether something is under way.
    async fn tick(&mut self) -> bool {
        self.finish_errand().await;
        if let Err(fault) = self.look_at_store().await {
            self.tell_fault(Some(format!("{fault:#}")));
            // Without it nothing is decided: a leader's fence falls by itself, and PostgreSQL goes on behind it.
            return false;
        }
        self.tell_fault(None);
        self.remember();
        let members = self.sight.members();
        let own = self.own();
        let step = decide(&View {
            me: &self.post.me,
            servers: &self.names,
            first: &self.post.first,
            ttl: self.post.ttl,
            state: self.sight.snapshot.state.as_ref(),
            unchanged: self.sight.since.elapsed(),
            members: &members,
            own,
            remembered: (self.epoch, &self.leader),
        });
        match self.act(step, &members).await {
            Ok(hurry) => hurry,
            Err(fault) => {
                self.tell_fault(Some(format!("{fault:#}")));
                false
            }
        }
    }

    async fn look_at_store(&mut self) -> Result<()> {
        let snapshot = self.store.read().await?;
        self.sight.take(snapshot);
        if self.told.is_none_or(|told| told.elapsed() >= RENEW) {
            let word = self.word();
            self.store.tell(&self.post.me, &word).await?;
            self.told = Some(Instant::now());
        }
        Ok(())
    }

    fn own(&self) -> Own {
        let look = self.watcher.look();
        Own {
            cluster: look.as_ref().map(|look| look.cluster).or_else(|| self.grip.cluster()),
            role: look.as_ref().map_or(Role::Down, |look| look.role),
            position: look.as_ref().map_or(0, |look| look.position),
            silent: self.watcher.silent(),
        }
    }

    /// What this server says of itself.
    fn word(&mut self) -> Member {
        self.count += 1;
        let (look, own) = (self.watcher.look(), self.own());
        Member {
            count: self.count,
            at_ms: now_ms(),
            epoch: self.epoch,
            leader: self.leader.clone(),
            cluster: own.cluster,
            role: own.role,
            timeline: look.as_ref().map_or(0, |look| look.timeline),
            position: own.position,
            receiving: look.as_ref().is_some_and(|look| look.receiving),
            note: self.note.clone(),
        }
    }

    async fn act(&mut self, step: Step, members: &Members) -> Result<bool> {
        if !matches!(step, Step::HandOver { .. }) {
            self.handover = None;
        }
        if !matches!(step, Step::Renew(_) | Step::Take(_) | Step::HandOver { .. }) {
            self.leading = Leading::default();
        }
        match step {
            Step::Wait(why) => {
                self.rest(why);
                Ok(true)
            }
            Step::Refuse(why) => {
                self.fence.close();
                if self.note != why {
                    error!("{why}");
                }
                if self.grip.runs() {
                    self.grip.stop()?;
                }
                self.rest(why);
                Ok(false)
            }
            Step::Take(state) => {
                info!(epoch = state.epoch, "taking the lease: {}", last_event(&state));
                if self.swap(state).await? {
                    self.leading = Leading { since: Some(Instant::now()), ..Leading::default() };
                    return Ok(self.lead().await);
                }
                Ok(true)
            }
            Step::Renew(state) => {
                let due = self.lease.is_none_or(|lease| lease.renewed.elapsed() >= RENEW);
                let changed = self.sight.snapshot.state.as_ref() != Some(&state);
                if (due || changed) && !self.swap(state).await? {
                    return Ok(true);
                }
                Ok(self.lead().await)
            }
            Step::GiveUp(state) => {
                error!("{}", last_event(&state));
                self.fence.close();
                self.duties.give(Duty::Wait("the lease was given up".to_owned()));
                if timeout(DEATH, self.grip.kill()).await.is_err() {
                    error!("PostgreSQL does not die; it is fenced");
                }
                self.swap(state).await?;
                self.lease = None;
                Ok(true)
            }
            Step::HandOver { to } => self.hand_over(&to, members).await,
            Step::Follow(leader) => self.follow(&leader, members),
        }
    }

    /// Nothing is started; what runs goes on.
    fn rest(&mut self, why: String) {
        self.lease = None;
        self.duties.give(Duty::Wait(why.clone()));
        self.note = why;
        if self.watcher.look().is_some_and(|look| look.role == Role::Replica) {
            self.fence.open();
        }
    }

    /// Puts a state in, which this server leads by or gives up with; returns whether it was.
    async fn swap(&mut self, state: State) -> Result<bool> {
        // The lease counts from before the question: whoever sees the new version sees it later.
        let (asked, now) = (Instant::now(), self.fence.now());
        let Some(version) = self.store.swap(self.sight.snapshot.version, &state).await? else { return Ok(false) };
        let length = self.post.ttl - self.post.margin();
        let leads = state.held && state.leader == self.post.me;
        self.lease = leads.then(|| Lease {
            renewed: asked,
            end: now.saturating_add(u64::try_from(length.as_nanos()).unwrap_or(u64::MAX)),
        });
        self.sight.snapshot.version = version;
        self.sight.snapshot.state = Some(state);
        self.sight.since = Instant::now();
        self.remember();
        Ok(true)
    }

    /// What a leader does in a round; returns whether something is under way.
    async fn lead(&mut self) -> bool {
        if self.duties.now() == Duty::Undecided {
            // It is about to start, with what nobody else may have.
            self.fence.close();
            self.leading = Leading { since: self.leading.since, ..Leading::default() };
        }
        self.duties.give(Duty::Lead);
        let Some(look) = self.watcher.look() else {
            self.note = "PostgreSQL does not answer".to_owned();
            // Slow is not gone: the one that clients were let to goes on.
            match self.lease.filter(|_| self.leading.proven && self.grip.postmaster() == self.leading.postmaster) {
                Some(lease) => self.fence.open_until(lease.end),
                None => self.fence.close(),
            }
            return true;
        };
        match look.role {
            Role::Primary => self.lead_primary(&look).await,
            Role::Replica | Role::Down => {
                self.fence.close();
                self.promote();
                true
            }
        }
    }

    fn promote(&mut self) {
        self.note = "being promoted".to_owned();
        let waits = Waits::alone(self.post.mode, &self.others);
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
        info!(epoch = self.epoch, "promoting PostgreSQL");
        let socket = self.socket.clone();
        self.send(async move {
            socket.run("select pg_reload_conf()", STATEMENT).await?;
            socket.run("select pg_promote(true, 60)", Duration::from_secs(60)).await
        });
    }

    async fn lead_primary(&mut self, look: &Look) -> bool {
        let Some(state) = self.sight.snapshot.state.clone() else { return true };
        if self.leading.started != look.started {
            self.leading = Leading {
                since: self.leading.since,
                started: look.started,
                postmaster: self.grip.postmaster(),
                ended: look.position,
                away: self.others.iter().map(|name| (name.clone(), Instant::now())).collect(),
                ..Leading::default()
            };
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
        let obeys = self.leading.waits.as_ref().is_some_and(|waits| waits.names() == look.names);
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
        self.look_after_slots();
        busy || !self.leading.proven
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
                Waits::alone(self.post.mode, &self.others)
            } else {
                Waits::All(state.in_sync.clone())
            }
        });
        let waits = waits.clone();
        if look.names != waits.names() {
            self.have_it_wait(&waits, false);
            return true;
        }
        if self.errand.is_some() {
            return true;
        }
        // Known only now, after everything that it was told has been done.
        let waits_since = *self.leading.waits_since.get_or_insert(look.position);
        let situation = Situation {
            mode: self.post.mode,
            others: &self.others,
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

    async fn swapped(&mut self, state: State) -> bool {
        if let Err(fault) = self.swap(state).await {
            self.tell_fault(Some(format!("{fault:#}")));
        }
        true
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

    /// Replicas find their slots at a leader that was one of them a moment ago.
    fn look_after_slots(&mut self) {
        let due = self.leading.slots.is_none_or(|at| at.elapsed() >= Duration::from_secs(10));
        if !due || self.errand.is_some() {
            return;
        }
        self.leading.slots = Some(Instant::now());
        let wanted: Vec<String> = self.others.iter().map(|name| format!("'{}'", slot(name))).collect();
        let (socket, wanted) = (self.socket.clone(), wanted.join(", "));
        self.send(async move {
            let make = format!(
                "select pg_create_physical_replication_slot(name, true) from unnest(array[{wanted}]::name[]) as wanted (name) \
                 where not exists (select from pg_replication_slots where slot_name = name)"
            );
            socket.run(&make, STATEMENT).await
        });
    }

    fn send(&mut self, work: impl Future<Output = Result<()>> + Send + 'static) {
        self.errand = Some(Errand { task: tokio::spawn(work) });
    }

    async fn finish_errand(&mut self) {
        let Some(errand) = self.errand.take_if(|errand| errand.task.is_finished()) else { return };
        let mut errand = errand;
        match (&mut errand.task).await {
            Ok(Ok(())) => {}
            Ok(Err(fault)) => {
                warn!("{fault:#}");
                // Whatever it was told to wait for: begin from what the state says.
                (self.leading.waits, self.leading.waits_since) = (None, None);
            }
            Err(gone) => error!("{gone}"),
        }
    }

    /// Stops PostgreSQL in order, with its clients told, and lets the lease go when the successor has the whole log.
    async fn hand_over(&mut self, to: &str, members: &Members) -> Result<bool> {
        let Some(state) = self.sight.snapshot.state.clone() else { return Ok(true) };
        let began = *self.handover.get_or_insert_with(Instant::now);
        if self.grip.runs() {
            if self.duties.give(Duty::Wait(format!("handing over to {to}"))) {
                info!(to, "handing over");
                self.grip.stop()?;
            }
        } else if let Some(end) = self.grip.end().await {
            self.fence.close();
            if members.get(to).is_some_and(|word| word.position >= end) {
                let given = State { held: false, handover: Some(to.to_owned()), ..state };
                self.swap(given.with_event(format!("{} hands over to {to}", self.post.me))).await?;
                self.lease = None;
                return Ok(true);
            }
        }
        if began.elapsed() >= HANDOVER {
            let kept =
                State { handover: None, ..state }.with_event(format!("no switchover: {to} did not get the whole log"));
            self.swap(kept).await?;
            self.duties.give(Duty::Lead);
        } else if self.lease.is_none_or(|lease| lease.renewed.elapsed() >= RENEW) {
            self.swap(state).await?;
        }
        Ok(true)
    }

    /// What a replica does in a round.
    fn follow(&mut self, leader: &str, members: &Members) -> Result<bool> {
        self.lease = None;
        self.note = String::new();
        let Some((_, address)) = self.post.servers.iter().find(|(name, _)| name == leader) else {
            self.rest(format!("{leader} leads, which is no database server of this site file"));
            return Ok(false);
        };
        let address = *address;
        self.duties.give(Duty::Follow { leader: leader.to_owned(), address });
        if self.grip.runs_as_leader() {
            warn!(leader, "another server leads: PostgreSQL is killed here, to start again as its replica");
            self.fence.close();
            let grip = self.grip.clone();
            self.send(async move { grip.kill().await });
            return Ok(true);
        }
        if self.grip.runs() && self.grip.follows().is_some_and(|other| other != address) {
            if self.errand.is_none() {
                info!(leader, "following another leader");
                self.restart_as_replica();
            }
            return Ok(true);
        }
        let Some(look) = self.watcher.look().filter(|look| look.role == Role::Replica) else {
            self.fence.close();
            self.following = Instant::now();
            return Ok(true);
        };
        self.fence.open();
        let leads = members.get(leader).is_some_and(|word| word.role == Role::Primary && word.epoch == self.epoch);
        if look.receiving || !leads {
            self.following = Instant::now();
        } else if self.following.elapsed() >= PARTED {
            warn!(leader, "it streams nothing although the leader is there: their histories may have parted");
            self.following = Instant::now();
            self.grip.doubt()?;
            self.restart_as_replica();
        }
        // Who may have to take over looks often.
        Ok(false)
    }

    /// Its task starts it again, as its duty says then.
    fn restart_as_replica(&mut self) {
        let grip = self.grip.clone();
        self.send(async move {
            grip.stop()?;
            let gone = async {
                while grip.runs() {
                    sleep(HURRY).await;
                }
            };
            if timeout(Duration::from_secs(10), gone).await.is_err() {
                grip.kill().await?;
            }
            Ok(())
        });
    }

    /// Remembers the last epoch, for a store that forgets.
    fn remember(&mut self) {
        let Some(state) = &self.sight.snapshot.state else { return };
        if (state.epoch, &state.leader) == (self.epoch, &self.leader) {
            return;
        }
        (self.epoch, self.leader) = (state.epoch, state.leader.clone());
        let text = serde_json::json!({ "epoch": self.epoch, "leader": self.leader }).to_string();
        if let Err(fault) = replace_file(&self.post.memory, text.as_bytes()) {
            error!("the epoch cannot be remembered: {fault:#}");
        }
    }

    fn tell_fault(&mut self, fault: Option<String>) {
        if let (Some(fault), None) = (&fault, &self.fault) {
            error!("{fault}");
        }
        if let (None, Some(_)) = (&fault, &self.fault) {
            info!("the store answers again");
        }
        self.fault = fault;
    }

    fn publish(&self) {
        let state = self.sight.snapshot.state.clone().unwrap_or_default();
        let heard = self.sight.members();
        let end = heard.get(&state.leader).map_or(0, |word| word.position);
        let member = |(name, _): &(String, IpAddr)| {
            let word = self.sight.snapshot.members.get(name).cloned().unwrap_or_default();
            MemberReport {
                server: name.clone(),
                role: if heard.contains_key(name) { word.role } else { Role::Down },
                heard: heard.contains_key(name),
                leads: state.held && state.leader == *name,
                in_sync: state.in_sync.contains(name),
                timeline: word.timeline,
                lag_bytes: if *name == state.leader { 0 } else { end.saturating_sub(word.position) },
                receiving: word.receiving,
                note: word.note,
            }
        };
        let now = self.fence.now();
        let ms = |age: Duration| u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        self.report.send_replace(DatabaseReport {
            epoch: state.epoch,
            leader: state.leader.clone(),
            held: state.held,
            lease_left_ms: self.lease.map(|lease| lease.end.saturating_sub(now) / 1_000_000),
            store_age_ms: self.sight.read.map(|read| ms(read.elapsed())),
            store_fault: self.fault.clone(),
            open: self.fence.is_open(),
            promotions: self.promotions,
            promotion_ms: self.promotion.map(ms),
            note: self.note.clone(),
            members: self.post.servers.iter().map(member).collect(),
            events: state.events.clone(),
        });
    }
}

fn last_event(state: &State) -> &str {
    state.events.last().map_or("", |event| &event.what)
}

/// The last epoch that this server knew of, and its leader.
fn remembered(path: &std::path::Path) -> (u64, String) {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    (value["epoch"].as_u64().unwrap_or(0), value["leader"].as_str().unwrap_or_default().to_owned())
}
