//! PostgreSQL: a cluster made from the plan, and its start as what the keeper of the lease says: leader or replica.

mod alone;
mod cluster;
mod configuration;
mod control;
mod diverged;
mod grip;
mod leader;
mod replica;
mod rewind;
mod roles;
mod single;
mod tls;
mod unready;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use self::diverged::Diverged;
pub use self::grip::Grip;
use self::leader::Leader;
pub(crate) use self::leader::{SLOTS, slot};
pub(super) use self::unready::never_ready;
use super::account::Account;
use super::board::ProcessState;
use super::kind::Surroundings;
use super::launch::Launch;
use super::{Folders, files};
use crate::database::{Duty, Socket};
use crate::plan::{PostgresPlan, ProcessPlan};
use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use tokio::time::sleep;

/// Major version that is run.
const VERSION: &str = "15";
const ACCOUNT: &str = "postgres";
/// Role that replicas log in as.
pub(crate) const REPLICATOR: &str = "replicator";
/// Time between two tries to reach a server that starts, in milliseconds.
const RETRY_MS: u64 = 50;
/// Time that one log-in over the socket may take, in milliseconds.
const LOGIN_TIMEOUT_MS: u64 = 5_000;

/// Folder of the unix socket, on which root may log in as `postgres` (peer).
#[must_use]
pub fn socket_folder(folders: &Folders) -> PathBuf {
    sockets(&folders.run)
}

fn sockets(run: &Path) -> PathBuf {
    run.join("postgres")
}

/// The process id of the PostgreSQL whose socket is in a server's run folder, if it lives.
#[must_use]
pub fn postmaster(run: &Path) -> Option<i32> {
    alone::behind(&sockets(run))
}

/// The data folder.
#[must_use]
pub fn data_folder(folders: &Folders) -> PathBuf {
    folder(folders).join("data")
}

fn folder(folders: &Folders) -> PathBuf {
    folders.state.join("postgres")
}

fn binary(name: &str) -> Result<PathBuf> {
    let path = Path::new("/usr/lib/postgresql").join(VERSION).join("bin").join(name);
    if !path.exists() {
        bail!("{} is missing: apt-get install --no-install-recommends postgresql-{VERSION}", path.display());
    }
    Ok(path)
}

fn account(plan: &ProcessPlan) -> Result<Account> {
    Account::named(plan.user.as_deref().unwrap_or(ACCOUNT))
}

/// Writes the configuration and says how to start the postmaster.
pub(super) fn configure(postgres: &PostgresPlan, plan: &ProcessPlan, around: &Surroundings) -> Result<Launch> {
    let account = account(plan)?;
    let program = binary("postgres")?;
    let folder = folder(&around.folders);
    files::owned_folder(&folder, 0o711, &account)?;
    account.can_reach(&folder)?;
    let sockets = socket_folder(&around.folders);
    files::owned_folder(&sockets, 0o700, &account)?;
    account.can_reach(&sockets)?;
    let certificates = match &postgres.tls {
        Some(files) => tls::Paths::of(&folder).copy(files, &account)?,
        None => String::new(),
    };
    let text = configuration::write(postgres, &folder, &sockets, &account)? + &certificates;
    Ok(Launch {
        program,
        arguments: vec![
            "-D".into(),
            data_folder(&around.folders).into(),
            "-c".into(),
            format!("config_file={}", folder.join("postgresql.conf").display()).into(),
        ],
        environment: BTreeMap::new(),
        folder: None,
        account: Some(account),
        stop_signal: Signal::SIGINT,
        reload_signal: Some(Signal::SIGHUP),
        configuration: text,
        // Neither address nor port changes on a reload.
        identity: format!("{:?} {}", postgres.listen, postgres.port),
    })
}

/// Waits until it is said what this server is, and makes its data folder that of one.
pub(super) async fn initialise(postgres: &PostgresPlan, plan: &ProcessPlan, around: &Surroundings) -> Result<()> {
    let account = account(plan)?;
    if postgres.failover.is_none() {
        return prepare(&planned(postgres), postgres, &account, around).await;
    }
    let mut duties = around.duties.watch();
    around.duties.ask();
    loop {
        let duty = duties.borrow_and_update().clone();
        tokio::select! {
            prepared = prepare(&duty, postgres, &account, around) => return prepared,
            // The keeper goes when the agent does, which ends this task.
            _ = duties.changed() => {}
        }
    }
}

/// The part of a server where nobody fails over: always the same.
fn planned(postgres: &PostgresPlan) -> Duty {
    if postgres.server == postgres.primary {
        return Duty::Lead;
    }
    Duty::Follow { leader: postgres.primary.clone(), address: postgres.primary_address }
}

async fn prepare(duty: &Duty, postgres: &PostgresPlan, account: &Account, around: &Surroundings) -> Result<()> {
    let wait = |why: &str| around.reporter.state(ProcessState::Waiting, Some(why.to_owned()));
    match duty {
        Duty::Undecided => wait("waiting to learn who leads"),
        Duty::Wait(why) => wait(why),
        Duty::Lead => return lead(account, around).await,
        Duty::Follow { leader, address } => {
            let leader = Leader::new(leader, *address, postgres, account, around)?;
            return replica::prepare(&leader, account, around).await;
        }
    }
    std::future::pending().await
}

/// The data folder of a leader; one of a replica stays what it is, until it is promoted.
async fn lead(account: &Account, around: &Surroundings) -> Result<()> {
    let data = data_folder(&around.folders);
    if data.exists() {
        if folder(&around.folders).join(grip::DOUBT).exists() {
            bail!("{} was about to be rewound to another leader's history: it cannot lead", data.display());
        }
        return cluster::check(&data, account);
    }
    let new = folder(&around.folders).join("data.new");
    cluster::discard(&new)?;
    cluster::initdb(&new, account, around).await?;
    std::fs::rename(&new, &data).with_context(|| format!("cannot rename {} to {}", new.display(), data.display()))?;
    files::sync_folder(&folder(&around.folders))
}

/// Returns when the server answers, and, on a primary, when its roles and database are there; or why a replica never will.
pub(super) async fn settle(postgres: &PostgresPlan, around: &Surroundings) -> std::result::Result<(), String> {
    let mut waiting = unready::Waiting::new();
    loop {
        match ready(postgres, &around.folders).await {
            Ok(()) => {
                unready::is_ready(&folder(&around.folders));
                return Ok(());
            }
            Err(Unready::NotYet) => {}
            Err(Unready::Refused(error)) => {
                let message = format!("PostgreSQL runs, but cannot be set up: {error:#}");
                around.reporter.state(ProcessState::Starting, Some(message));
            }
        }
        if let Some(why) = waiting.in_vain(around)
            && unready::doubt(postgres, around, &why).await
        {
            return Err(why);
        }
        sleep(Duration::from_millis(RETRY_MS)).await;
    }
}

enum Unready {
    /// No answer yet.
    NotYet,
    /// It answers, and its roles cannot be made.
    Refused(anyhow::Error),
}

async fn ready(postgres: &PostgresPlan, folders: &Folders) -> std::result::Result<(), Unready> {
    // Asked first, so that a start that takes long does not fill the log with refusals.
    if !cluster::says_ready(&data_folder(folders)) {
        return Err(Unready::NotYet);
    }
    let patience = Duration::from_millis(LOGIN_TIMEOUT_MS);
    let client = match tokio::time::timeout(patience, socket(postgres, folders).connect()).await {
        Ok(Ok(client)) => client,
        Ok(Err(_)) | Err(_) => return Err(Unready::NotYet),
    };
    let recovery: bool = client.query_one("select pg_is_in_recovery()", &[]).await.map_err(|_| Unready::NotYet)?.get(0);
    if recovery {
        return Ok(());
    }
    roles::ensure(&client, postgres).await.map_err(Unready::Refused)
}

/// Where root may log in as `postgres`.
pub(crate) fn socket(postgres: &PostgresPlan, folders: &Folders) -> Socket {
    Socket { folder: socket_folder(folders), port: postgres.port }
}
