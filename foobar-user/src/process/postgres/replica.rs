//! The start of a replica: a copy of its leader on the first one, and later, where the histories have parted, a rewind.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, bail};
use tokio::time::sleep;
use tracing::{info, warn};

use super::super::account::Account;
use super::super::board::ProcessState;
use super::super::files;
use super::super::kind::Surroundings;
use super::super::launch;
use super::grip::{COPY, DOUBT, FOLLOW_FILE, STANDBY_SIGNAL, forget, note, write_setting};
use super::leader::{Leader, helper};
use super::rewind::{self, Here, Rewound};
use super::{cluster, data_folder, folder};

/// What names of folders with data of before begin with.
pub(super) const ASIDE: &str = "data.before-";
/// So many are kept; then somebody has to look at them first.
const ASIDE_MAX: usize = 3;
/// Time between two tries to reach the leader.
const RETRY: Duration = Duration::from_millis(500);
/// The longest time between two tries to do what fails although the leader answers.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Makes the data folder one that follows the leader; waits for it as long as it takes.
pub(super) async fn prepare(leader: &Leader, account: &Account, around: &Surroundings) -> Result<()> {
    let (folder, data) = (folder(&around.folders), data_folder(&around.folders));
    if data.exists() {
        cluster::check(&data, account)?;
        if is_doubtful(&folder, &data) {
            patiently(leader, account, around, || mend(leader, &folder, &data, account, around)).await;
        }
    } else {
        let new = folder.join("data.new");
        patiently(leader, account, around, || copy(leader, &new, account, around)).await;
        enter(&new, &data)?;
        forget(&folder, DOUBT)?;
    }
    follow(leader, &folder, &data, account)
}

/// Whether what is in the data folder may not be a part of the leader's history: it was written here.
fn is_doubtful(folder: &Path, data: &Path) -> bool {
    !data.join(STANDBY_SIGNAL).exists() || folder.join(DOUBT).exists()
}

async fn patiently<F: Future<Output = Result<()>>>(
    leader: &Leader,
    account: &Account,
    around: &Surroundings,
    mut try_it: impl FnMut() -> F,
) {
    let mut pause = RETRY;
    loop {
        let Err(error) = try_it().await else { return };
        let message = format!("waiting for the leader {}: {error:#}", leader.name);
        around.reporter.state(ProcessState::Waiting, Some(message));
        // What a leader that answers cannot help takes time, or an operator.
        pause = if leader.answers(account, around).await { (pause * 2).min(RETRY_MAX) } else { RETRY };
        sleep(pause).await;
    }
}

async fn copy(leader: &Leader, new: &Path, account: &Account, around: &Surroundings) -> Result<()> {
    cluster::discard(new)?;
    leader.reserve(account, around).await?;
    around.reporter.state(ProcessState::Starting, Some(format!("copying the leader {}", leader.name)));
    let mut copy = helper("pg_basebackup", account, around)?;
    copy.args(["--wal-method=stream", "--checkpoint=fast", "--no-password", "--slot", &leader.slot]);
    copy.args(["-d", &leader.connection, "-D"]).arg(new);
    launch::run(copy).await
}

/// Rewinds the data to where it and the leader's history parted; copies the leader anew where that cannot be done.
async fn mend(leader: &Leader, folder: &Path, data: &Path, account: &Account, around: &Surroundings) -> Result<()> {
    leader.reserve(account, around).await?;
    around.reporter.state(ProcessState::Starting, Some(format!("rewinding to the history of {}", leader.name)));
    let doubt = fs::read_to_string(folder.join(DOUBT)).unwrap_or_default();
    let has_lost_log = leader.has_lost_log(account, around).await?;
    if has_lost_log {
        leader.release(account, around).await?;
        leader.reserve(account, around).await?;
    }
    let rewound = if doubt == COPY {
        Rewound::Impossible(anyhow!("a rewind does not help"))
    } else if has_lost_log {
        Rewound::Impossible(anyhow!("the leader has no longer kept the log that is missing here"))
    } else {
        // A rewind that ends in the middle leaves what nobody must start.
        note(folder, DOUBT, doubt.as_str())?;
        rewind::rewind(leader, &Here { folder, data, account, around }).await?
    };
    match rewound {
        Rewound::Done => {}
        Rewound::Impossible(why) => {
            warn!("the data is not rewound, and the leader copied anew: {why:#}");
            // A rewind that is tried again has the leader write a checkpoint again.
            note(folder, DOUBT, COPY)?;
            let new = folder.join("data.new");
            leave_room(folder)?;
            copy(leader, &new, account, around).await?;
            let aside = folder.join(format!("{ASIDE}{}", seconds()));
            fs::rename(data, &aside)
                .with_context(|| format!("cannot move {} to {}", data.display(), aside.display()))?;
            enter(&new, data)?;
            warn!("what was here before is kept in {}: remove it when nobody misses anything", aside.display());
        }
    }
    forget(folder, DOUBT)
}

/// Data of before is nobody's to remove but the operator's, and must not fill the disk.
fn leave_room(folder: &Path) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let is_aside = |name: &std::ffi::OsString| name.to_string_lossy().starts_with(ASIDE);
    let aside: Vec<_> = entries.flatten().map(|entry| entry.file_name()).filter(is_aside).collect();
    if aside.len() < ASIDE_MAX {
        return Ok(());
    }
    bail!(
        "its data must be copied anew, and what was here before is kept {} times already: remove {}/{ASIDE}* that nobody misses",
        aside.len(),
        folder.display()
    )
}

fn enter(new: &Path, data: &Path) -> Result<()> {
    fs::rename(new, data).with_context(|| format!("cannot rename {} to {}", new.display(), data.display()))?;
    files::sync_folder(data.parent().context("the data folder is no root")?)
}

/// From here on the folder is a replica's, whatever becomes of the next steps.
fn follow(leader: &Leader, folder: &Path, data: &Path, account: &Account) -> Result<()> {
    let signal = data.join(STANDBY_SIGNAL);
    files::write_if_changed(&signal, "# Written by foobar agent.\n", 0o600, Some(account))?;
    files::sync_folder(data)?;
    forget_own_settings(data, account)?;
    write_setting(
        &folder.join(FOLLOW_FILE),
        &[
            ("primary_conninfo", &leader.named()),
            ("primary_slot_name", &leader.slot),
            ("recovery_target_timeline", "latest"),
        ],
    )?;
    info!(leader = leader.name, "PostgreSQL follows");
    Ok(())
}

/// What a tool has left in the file that overrides ours.
fn forget_own_settings(data: &Path, account: &Account) -> Result<()> {
    let path = data.join("postgresql.auto.conf");
    let text = files::read_own(&path)?;
    let ours = ["primary_conninfo", "primary_slot_name", "synchronous_standby_names"];
    let kept: Vec<&str> =
        text.lines().filter(|line| !ours.iter().any(|name| line.trim_start().starts_with(name))).collect();
    files::write_if_changed(&path, &format!("{}\n", kept.join("\n")), 0o600, Some(account)).map(drop)
}

/// Seconds of Unix time.
pub(super) fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs())
}
