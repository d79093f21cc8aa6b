//! Back to where this server's log and its leader's parted; what was written here after that is saved before it goes.

use std::path::Path;

use anyhow::{Context as _, Result};
use tracing::info;

use super::super::account::Account;
use super::super::kind::Surroundings;
use super::super::launch;
use super::diverged;
use super::grip::STANDBY_SIGNAL;
use super::leader::{Leader, helper};
use super::single::session;

/// A data folder that nothing runs on, with what tools need that work on it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Here<'h> {
    /// The folder around it.
    pub(super) folder: &'h Path,
    pub(super) data: &'h Path,
    pub(super) account: &'h Account,
    pub(super) around: &'h Surroundings,
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Rewound {
    /// The data is the leader's, up to some point of its history.
    Done,
    /// The data must not be started, or has what is saved nowhere else.
    Impossible(anyhow::Error),
}

/// Rewinds the data, which nothing runs on.
///
/// # Errors
/// The leader cannot be asked: to be tried again.
pub(super) async fn rewind(leader: &Leader, here: &Here<'_>) -> Result<Rewound> {
    // pg_rewind compares by the leader's last checkpoint: right after a promotion that is one of the old timeline, and
    // everything would seem to be well.
    leader.run("CHECKPOINT", here.account, here.around).await?;
    let Err(fault) = go_back(leader, here).await else { return Ok(Rewound::Done) };
    // What fails because the leader has gone away says nothing of the data.
    if leader.answers(here.account, here.around).await { Ok(Rewound::Impossible(fault)) } else { Err(fault) }
}

async fn go_back(leader: &Leader, here: &Here<'_>) -> Result<()> {
    recover(here).await?;
    let said = pg_rewind(leader, here, &["--dry-run"]).await?;
    let Some(parted) = Parted::read(&said) else {
        info!("nothing was written here that {} has not: no rewind", leader.name);
        return Ok(());
    };
    diverged::save(&parted, &leader.name, here).await?;
    pg_rewind(leader, here, &[]).await.map(drop)
}

/// Brings a data folder to an orderly end, as a start after a crash would, with nobody connected.
async fn recover(here: &Here<'_>) -> Result<()> {
    if here.data.join(STANDBY_SIGNAL).exists() {
        // A replica was stopped in order; this mode does not know replicas.
        return Ok(());
    }
    let recovered = session(here, "template1", &[]).await;
    recovered.map(drop).context("PostgreSQL cannot recover what it had written")
}

async fn pg_rewind(leader: &Leader, here: &Here<'_>, options: &[&str]) -> Result<String> {
    let mut rewind = helper("pg_rewind", here.account, here.around)?;
    rewind.args(["--no-ensure-shutdown", "--target-pgdata"]).arg(here.data);
    rewind.arg(format!("--source-server={}", leader.database())).args(options);
    launch::said(rewind).await
}

/// Where two histories parted.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parted {
    /// Position in the log, as PostgreSQL writes it.
    pub(super) position: String,
    /// The timeline on which it is.
    pub(super) timeline: u32,
    /// Position of the last checkpoint before.
    pub(super) checkpoint: Option<String>,
}

impl Parted {
    /// What `pg_rewind` says: "servers diverged at WAL location 0/3000060 on timeline 1", and then perhaps "no rewind required".
    fn read(said: &str) -> Option<Self> {
        if said.contains("no rewind required") {
            return None;
        }
        let (_, rest) = said.split_once("diverged at WAL location ")?;
        let mut words = rest.split_whitespace();
        let position = words.next()?.to_owned();
        let timeline = words.nth(2)?.trim_end_matches([';', '.']).parse().ok()?;
        let checkpoint = said.split_once("last common checkpoint at ");
        let checkpoint = checkpoint.and_then(|(_, rest)| rest.split_whitespace().next()).map(str::to_owned);
        Some(Self { position, timeline, checkpoint })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_histories_parted_is_read() {
        let said = "pg_rewind: servers diverged at WAL location 0/3000060 on timeline 1; pg_rewind: rewinding from last common \
                    checkpoint at 0/2000028 on timeline 1";
        let (position, checkpoint) = ("0/3000060".to_owned(), Some("0/2000028".to_owned()));
        assert_eq!(Parted::read(said), Some(Parted { position, timeline: 1, checkpoint }));
        assert_eq!(Parted::read("servers diverged at WAL location 0/3000060 on timeline 1; no rewind required"), None);
        assert_eq!(Parted::read("no rewind required"), None);
    }
}
