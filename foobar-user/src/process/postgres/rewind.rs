//! Back to where this server's log and its leader's parted; what was written here after that is saved before it goes.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tracing::{info, warn};

use super::super::account::Account;
use super::super::files;
use super::super::kind::Surroundings;
use super::super::launch;
use super::leader::{Leader, helper};
use super::replica::seconds;

/// What came of it.
#[derive(Debug)]
pub(super) enum Rewound {
    /// The data is the leader's, up to some point of its history.
    Done,
    /// The data must not be started.
    Impossible(anyhow::Error),
}

/// Rewinds the data, which nothing runs on.
///
/// # Errors
/// The leader cannot be asked: to be tried again.
pub(super) async fn rewind(
    leader: &Leader,
    folder: &Path,
    data: &Path,
    account: &Account,
    around: &Surroundings,
) -> Result<Rewound> {
    // pg_rewind compares by the leader's last checkpoint: right after a promotion that is one of the old timeline, and
    // everything would seem to be well.
    leader.run("CHECKPOINT", account, around).await?;
    if let Err(error) = recover(folder, data, account, around).await {
        return Ok(Rewound::Impossible(error.context("PostgreSQL cannot recover what it had written")));
    }
    let said = match pg_rewind(leader, data, account, around, &["--dry-run"]).await {
        Ok(said) => said,
        Err(error) => return Ok(Rewound::Impossible(error)),
    };
    let Some(parted) = Parted::read(&said) else {
        info!("nothing was written here that {} has not: no rewind", leader.name);
        return Ok(Rewound::Done);
    };
    save(&parted, folder, data, account, around).await;
    match pg_rewind(leader, data, account, around, &[]).await {
        Ok(_) => Ok(Rewound::Done),
        Err(error) => Ok(Rewound::Impossible(error)),
    }
}

/// Brings a data folder to an orderly end, as a start after a crash would, with nobody connected.
async fn recover(folder: &Path, data: &Path, account: &Account, around: &Surroundings) -> Result<()> {
    let signal = data.join(super::grip::STANDBY_SIGNAL);
    if signal.exists() {
        // A replica was stopped in order; this mode does not know replicas.
        return Ok(());
    }
    let mut single = helper("postgres", account, around)?;
    let configuration = folder.join("postgresql.conf");
    single.args(["--single", "-F", "-D"]).arg(data);
    single.arg("-c").arg(format!("config_file={}", configuration.display())).arg("template1");
    launch::run(single).await
}

async fn pg_rewind(
    leader: &Leader,
    data: &Path,
    account: &Account,
    around: &Surroundings,
    options: &[&str],
) -> Result<String> {
    let mut rewind = helper("pg_rewind", account, around)?;
    rewind.args(["--no-ensure-shutdown", "--target-pgdata"]).arg(data);
    rewind.arg(format!("--source-server={}", leader.database())).args(options);
    launch::said(rewind).await
}

/// Where two histories parted.
#[derive(Debug, PartialEq, Eq)]
struct Parted {
    /// Position in the log, as PostgreSQL writes it.
    position: String,
    /// The timeline on which it is.
    timeline: u32,
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
        Some(Self { position, timeline })
    }
}

/// Saves what the log has after that point, for people; a failure must not keep the server away for ever.
async fn save(parted: &Parted, folder: &Path, data: &Path, account: &Account, around: &Surroundings) {
    let path = folder.join(format!("diverged-{}.txt", seconds()));
    match dump(parted, data, &path, account, around).await {
        Ok(commits) => warn!(
            "{commits} transactions were committed here after the histories parted at {} of timeline {}, which nobody was told: \
             they are rewound away, and kept as log records in {}",
            parted.position,
            parted.timeline,
            path.display()
        ),
        Err(error) => warn!("what is rewound away cannot be saved: {error:#}"),
    }
}

async fn dump(parted: &Parted, data: &Path, path: &PathBuf, account: &Account, around: &Surroundings) -> Result<usize> {
    let mut dump = helper("pg_waldump", account, around)?;
    dump.arg("--path").arg(data.join("pg_wal"));
    dump.args(["--timeline", &parted.timeline.to_string(), "--start", &parted.position]);
    // It ends with an error: where the log ends is no record.
    let output = dump.output().await.context("cannot run pg_waldump")?;
    let text = String::from_utf8_lossy(&output.stdout);
    files::write_if_changed(path, &text, 0o600, None)?;
    fs::metadata(path)?;
    Ok(text.lines().filter(|line| line.contains("rmgr: Transaction") && line.contains("desc: COMMIT")).count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_histories_parted_is_read() {
        let said = "pg_rewind: servers diverged at WAL location 0/3000060 on timeline 1; pg_rewind: rewinding from last common \
                    checkpoint at 0/2000028 on timeline 1";
        assert_eq!(Parted::read(said), Some(Parted { position: "0/3000060".into(), timeline: 1 }));
        assert_eq!(Parted::read("servers diverged at WAL location 0/3000060 on timeline 1; no rewind required"), None);
        assert_eq!(Parted::read("no rewind required"), None);
    }
}
