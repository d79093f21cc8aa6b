//! The database's part of an agent: the witness on a balancer, the keeper of the lease on a database server.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::time::timeout;
use tracing::{info, warn};

use super::ServerFolders;
use crate::database::witness::{self, WitnessSettings};
use crate::database::{AnyStore, DatabaseReport, Duties, Fencing, Keeper, Post, State, Store as _, promote};
use crate::plan::{FailoverPlan, Plan, PostgresPlan, ProcessKind, WitnessPlan};
use crate::process::postgres::{self, Grip};

/// Time in which another server is to take over before this one stops all the same.
const RESIGNATION: Duration = Duration::from_secs(10);

/// What this server does for the database beside running it.
#[derive(Debug)]
pub(super) struct Database {
    /// What PostgreSQL is started as.
    pub(super) duties: Duties,
    witness: Option<witness::Server>,
    kept: Option<Kept>,
}

#[derive(Debug)]
struct Kept {
    /// This server.
    me: String,
    plan: FailoverPlan,
    keeper: Keeper,
    store: Arc<AnyStore>,
}

impl Database {
    /// Starts the witness, if this server has it. The keeper comes when processes do.
    ///
    /// # Errors
    /// The witness cannot listen, or its memory cannot be used.
    pub(super) fn start(plan: &Plan, folders: &ServerFolders) -> Result<Self> {
        let witness = plan.witness.as_ref().map(|plan| start_witness(plan, folders)).transpose()?;
        Ok(Self { duties: Duties::default(), witness, kept: None })
    }

    /// The witness, if it is to go or to go on in another way: whoever takes it stops it before [`Database::follow`].
    #[must_use]
    pub(super) fn retire(&mut self, plan: &Plan, folders: &ServerFolders) -> Option<witness::Server> {
        let settings = plan.witness.as_ref().map(|plan| witness_settings(plan, folders));
        self.witness.take_if(|witness| Some(&witness.settings) != settings.as_ref())
    }

    /// Begins to keep the lease, or goes on by another plan.
    ///
    /// # Errors
    /// As [`Database::start`]; the old keeper goes on then.
    pub(super) fn follow(
        &mut self,
        plan: &Plan,
        folders: &ServerFolders,
        fence: Option<&Arc<dyn Fencing>>,
    ) -> Result<()> {
        if self.witness.is_none() {
            self.witness = plan.witness.as_ref().map(|plan| start_witness(plan, folders)).transpose()?;
        }
        let wanted = postgres_of(plan).and_then(|(name, postgres)| Some((name, postgres, postgres.failover.as_ref()?)));
        let (Some((name, postgres, failover)), Some(fence)) = (wanted, fence) else {
            self.kept = None;
            return Ok(());
        };
        if self.kept.as_ref().is_some_and(|kept| kept.plan == *failover) {
            return Ok(());
        }
        let store = Arc::new(AnyStore::new(failover));
        let post = Post {
            me: plan.server.clone(),
            servers: failover.servers.clone(),
            follows: failover.follows.clone(),
            first: postgres.primary.clone(),
            mode: failover.mode,
            ttl: Duration::from_millis(failover.ttl_ms),
            memory: folders.state().join("database.json"),
        };
        let processes = folders.processes();
        let grip = Grip::new(&processes, name, postgres.port)?;
        let socket = postgres::socket(postgres, &processes);
        // One keeper at a time.
        self.kept = None;
        let keeper = Keeper::start(post, Arc::clone(&store), grip, socket, self.duties.clone(), Arc::clone(fence));
        self.kept = Some(Kept { me: plan.server.clone(), plan: failover.clone(), keeper, store });
        Ok(())
    }

    /// Whether a PostgreSQL of an earlier agent runs, whose lease is to be kept on.
    pub(super) fn is_running(plan: &Plan, folders: &ServerFolders) -> bool {
        let grip =
            postgres_of(plan).and_then(|(name, postgres)| Grip::new(&folders.processes(), name, postgres.port).ok());
        grip.is_some_and(|grip| grip.runs())
    }

    /// The cluster as this server sees it; `None`: it has no part in it.
    pub(super) fn report(&self) -> Option<DatabaseReport> {
        self.kept.as_ref().map(|kept| kept.keeper.report())
    }

    /// Has another server lead before this one stops, if it leads and another one can.
    pub(super) fn resign(&self) -> Option<impl Future<Output = ()> + Send + 'static> {
        let kept = self.kept.as_ref()?;
        let before = kept.keeper.report();
        let can = before.members.iter().any(|member| member.heard && member.in_sync);
        if before.lease_left_ms.is_none() || !can {
            return None;
        }
        let (asked, reports) = (self.hand_over(None).ok()?, kept.keeper.reports());
        Some(async move {
            info!("handing the database over before the stop");
            if let Err(error) = asked.await {
                warn!("the database is not handed over: {error:#}");
                return;
            }
            let mut reports = reports;
            let gone = reports.wait_for(|now| !now.held || now.leader != before.leader);
            if timeout(RESIGNATION, gone).await.is_err() {
                warn!("the database is not handed over in time: another server takes over when the lease is over");
            }
        })
    }

    fn kept(&self) -> Result<&Kept> {
        self.kept.as_ref().context("this server runs no PostgreSQL with a lease: ask a database server")
    }

    /// Takes the lease for this server although acknowledged commits are missing here, once it is seen to be over.
    ///
    /// # Errors
    /// This server has no keeper, or as [`promote`].
    pub(super) fn promote(&self) -> Result<impl Future<Output = Result<()>> + Send + 'static> {
        let kept = self.kept()?;
        let (store, me, ttl) = (Arc::clone(&kept.store), kept.me.clone(), Duration::from_millis(kept.plan.ttl_ms));
        let reports = kept.keeper.reports();
        Ok(async move { promote(&*store, &me, ttl, || reports.borrow().clone()).await })
    }

    /// Asks the leader to hand over.
    ///
    /// # Errors
    /// This server has no keeper, the named one cannot take over, or the store does not answer.
    pub(super) fn hand_over(&self, to: Option<String>) -> Result<impl Future<Output = Result<()>> + Send + 'static> {
        let kept = self.kept()?;
        let store = Arc::clone(&kept.store);
        let servers: Vec<(String, IpAddr)> = kept.plan.servers.clone();
        let follows = kept.plan.follows.clone();
        Ok(async move {
            let snapshot = store.read().await?;
            let state = snapshot.state.context("there is no leader yet")?;
            let to = to.unwrap_or_default();
            if !to.is_empty() {
                ensure!(servers.iter().any(|(name, _)| *name == to), "{to} is no database server of the site");
                ensure!(to != state.leader, "{to} leads already");
                if let Some(other) = follows.get(&to) {
                    bail!("{to} `follows` {other} in the site file: commits do not wait for it, so it never leads");
                }
                ensure!(
                    state.in_sync.contains(&to),
                    "{to} has not every acknowledged commit: `foobar db status` tells how far behind it is"
                );
            } else if state.in_sync.is_empty() {
                bail!("no replica has every acknowledged commit: `foobar db status` tells how far behind they are");
            }
            let asked = State { handover: Some(to), ..state };
            let swapped = store.swap(snapshot.version, &asked).await?;
            swapped.map(drop).context("somebody else changed the state at the same time: try again")
        })
    }
}

/// The PostgreSQL that a server runs, with its process's name.
fn postgres_of(plan: &Plan) -> Option<(&str, &PostgresPlan)> {
    plan.processes.iter().find_map(|process| match &process.kind {
        ProcessKind::Postgres(postgres) => Some((process.name.as_str(), &**postgres)),
        _ => None,
    })
}

fn witness_settings(plan: &WitnessPlan, folders: &ServerFolders) -> WitnessSettings {
    WitnessSettings {
        listen: plan.listen.clone(),
        tls: plan.tls.clone(),
        servers: plan.servers.clone(),
        folder: folders.state().to_owned(),
    }
}

fn start_witness(plan: &WitnessPlan, folders: &ServerFolders) -> Result<witness::Server> {
    witness::Server::start(witness_settings(plan, folders)).context("the witness of the database cannot start")
}
