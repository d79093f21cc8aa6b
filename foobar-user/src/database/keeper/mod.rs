//! The keeper of one database server: reads the store, looks at PostgreSQL, decides, and acts; several times a second.
//!
//! Nothing that may take long stands between two renewals: statements run beside, and their effect is seen at a later look.

mod chores;
mod errand;
mod follow;
mod hand_over;
mod lead;
mod sight;
mod slots;

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tracing::{error, info};

use self::chores::Chores;
use self::errand::Errand;
use self::lead::Leading;
use self::sight::Sight;
use self::slots::Kept;
use super::decide::{Own, Step, View, decide};
use super::duty::{Duties, Duty};
use super::local::{Socket, Watcher};
use super::report::{DatabaseReport, MemberReport};
use super::state::{Member, Members, Role, State, now_ms};
use super::store::Store;
use super::sync::Mode;
use super::upstream::Follows;
use crate::process::postgres::Grip;
use crate::sets::replace_file;

/// Time between two looks at the store.
const POLL: Duration = Duration::from_millis(200);
/// Time between two while something is changing.
const HURRY: Duration = Duration::from_millis(40);
/// Time between two renewals.
const RENEW: Duration = Duration::from_millis(500);
/// Time that a statement may take.
const STATEMENT: Duration = Duration::from_secs(5);
/// Time in which a killed PostgreSQL is expected to be gone, before its lease is given up all the same: it is fenced.
const DEATH: Duration = Duration::from_secs(1);

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
    /// Whom those follow that do not follow the leader.
    pub follows: Follows,
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
        let others = || post.servers.iter().map(|(name, _)| name.clone()).filter(|name| *name != post.me);
        let work = Work {
            others: others().collect(),
            peers: others().filter(|name| !post.follows.contains_key(name)).collect(),
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
            doubted: true,
            replayed: 0,
            errand_ended: Instant::now(),
            following: Instant::now(),
            shunned: None,
            slots: None,
            handover: None,
            errand: None,
            epoch,
            leader,
            fault: None,
            note: String::new(),
            chores: Chores::default(),
            promotions: 0,
            promotion: None,
            count: now_ms(),
            report: sender,
        };
        Self { report, task: tokio::spawn(work.run()) }
    }

    /// The same, with notice of every round.
    #[must_use]
    pub fn reports(&self) -> watch::Receiver<DatabaseReport> {
        self.report.clone()
    }

    /// The cluster as this server sees it.
    #[must_use]
    pub fn report(&self) -> DatabaseReport {
        self.report.borrow().clone()
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

#[derive(Debug)]
struct Work<S> {
    post: Post,
    /// All servers but this one.
    others: BTreeSet<String>,
    /// Those of them that follow the leader: who may be waited for, and lead.
    peers: BTreeSet<String>,
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
    /// Whether its data may have been doubted to be of its leader's history.
    doubted: bool,
    /// How far it had replayed its log in the last round.
    replayed: u64,
    /// When the last errand ended: older looks may not have seen what it did.
    errand_ended: Instant,
    /// When this server was last seen to receive its leader's log, or began to follow.
    following: Instant,
    /// When another replica that it is to follow was given up for a while.
    shunned: Option<Instant>,
    /// When it last looked after its slots.
    slots: Option<Kept>,
    /// When the handing over began.
    handover: Option<Instant>,
    errand: Option<Errand>,
    epoch: u64,
    leader: String,
    fault: Option<String>,
    note: String,
    chores: Chores,
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
        self.sight.take(snapshot, self.post.ttl);
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
        self.look_for_chores();
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
            receiving: look.as_ref().is_some_and(|look| look.source.is_some()),
            source: look.as_ref().and_then(|look| self.named(look.source?)).unwrap_or_default(),
            note: self.told(),
        }
    }

    /// The server at this address.
    fn named(&self, address: IpAddr) -> Option<String> {
        self.post.servers.iter().find(|(_, other)| *other == address).map(|(name, _)| name.clone())
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
                    self.leading = Leading::begun(Some(Instant::now()));
                    return Ok(self.lead(members).await);
                }
                Ok(true)
            }
            Step::Renew(state) => {
                let due = self.lease.is_none_or(|lease| lease.renewed.elapsed() >= RENEW);
                let changed = self.sight.snapshot.state.as_ref() != Some(&state);
                if (due || changed) && !self.swap(state).await? {
                    return Ok(true);
                }
                Ok(self.lead(members).await)
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

    async fn swapped(&mut self, state: State) -> bool {
        if let Err(fault) = self.swap(state).await {
            self.tell_fault(Some(format!("{fault:#}")));
        }
        true
    }

    /// Remembers the last epoch, for a store that forgets.
    fn remember(&mut self) {
        let Some(state) = &self.sight.snapshot.state else { return };
        if state.epoch < self.epoch || (state.epoch, &state.leader) == (self.epoch, &self.leader) {
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
        let remembered = || State { epoch: self.epoch, leader: self.leader.clone(), ..State::default() };
        let state = self.sight.snapshot.state.clone().unwrap_or_else(remembered);
        let heard = self.sight.members();
        let words = &self.sight.snapshot.members;
        let end = end_of_log(words, &state.leader);
        let member = |(name, _): &(String, IpAddr)| {
            let word = words.get(name).cloned().unwrap_or_default();
            MemberReport {
                server: name.clone(),
                role: if heard.contains_key(name) { word.role } else { Role::Down },
                heard: heard.contains_key(name),
                leads: state.held && state.leader == *name,
                in_sync: state.in_sync.contains(name),
                timeline: word.timeline,
                position: word.position,
                lag_bytes: Some(word.position).filter(|at| *at > 0).map(|at| end.saturating_sub(at)),
                receiving: word.receiving,
                source: word.source,
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
            pending_restart: self.pending(),
            diverged_transactions: self.chores.diverged.transactions,
            diverged_files: self.chores.diverged.files.clone(),
            note: self.note.clone(),
            members: self.post.servers.iter().map(member).collect(),
            events: state.events.clone(),
        });
    }
}

/// Where the leader's log ended when it last said so; where it says nothing, for its PostgreSQL does not run, how far anybody has it.
fn end_of_log(words: &Members, leader: &str) -> u64 {
    let said = words.get(leader).map(|word| word.position).filter(|position| *position > 0);
    said.or_else(|| words.values().map(|word| word.position).max()).unwrap_or(0)
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
