//! A replica whose PostgreSQL does not become ready, whatever is tried: its data is rewound, and copied anew where that does not help.
//!
//! Never that of a leader, never for a fault of its settings, and never while the leader cannot be reached: then nothing could be
//! mended, and this data may be the last.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::statvfs::statvfs;
use nix::unistd::Pid;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tracing::{error, info, warn};

use super::super::kind::Surroundings;
use super::control::Control;
use super::grip::{COPY, DOUBT, STANDBY_SIGNAL, forget, note};
use super::{binary, data_folder, folder, planned};
use crate::database::Duty;
use crate::plan::PostgresPlan;

/// Beside the data folder: what has been done for it to start.
const TRIED: &str = "unready";
const REWOUND: &str = "rewound";
const COPIED: &str = "copied";
/// Time to reach the leader.
const REACH: Duration = Duration::from_secs(1);
/// Room that PostgreSQL needs to start: a file of its log, and a few bytes more.
const ROOM: u64 = 64 << 20;
/// Time after which log that does not come is not going to.
const STUCK: Duration = Duration::from_secs(30);
/// Time between two looks.
const LOOK: Duration = Duration::from_secs(1);

/// Does what there is to do about PostgreSQL that has given up several times in a row before it was ready, just now after so long.
pub(in super::super) async fn never_ready(postgres: &PostgresPlan, around: &Surroundings, ran: Duration) {
    let data = data_folder(&around.folders);
    if has_come_to(&data, ran) || Control::read(&data).await.is_err() {
        doubt(postgres, around, "PostgreSQL does not start on its data").await;
    } else {
        warn!(
            "PostgreSQL gives up before it comes to its data: the fault is in its settings or around it, see its log"
        );
    }
}

/// Whether the postmaster, which began so long ago, has come to its data: it writes its options first, when all else that it needs is
/// there, libraries and ports among it.
fn has_come_to(data: &Path, ran: Duration) -> bool {
    let written = fs::metadata(data.join("postmaster.opts")).and_then(|about| about.modified());
    written.is_ok_and(|at| at.elapsed().unwrap_or_default() <= ran)
}

/// Has the data of a replica mended at its next start, if its leader is there to mend it from; returns whether that is to be.
pub(super) async fn doubt(postgres: &PostgresPlan, around: &Surroundings, why: &str) -> bool {
    let (folder, data) = (folder(&around.folders), data_folder(&around.folders));
    let duty = if postgres.failover.is_some() { around.duties.now() } else { planned(postgres) };
    let Duty::Follow { leader, address } = duty else { return false };
    // A replica's data, and not one that a leader has written.
    if !data.join(STANDBY_SIGNAL).exists() {
        return false;
    }
    if room(&folder).is_some_and(|room| room < ROOM) {
        warn!("{why}: its disk is full");
        return false;
    }
    let reached = timeout(REACH, TcpStream::connect(SocketAddr::new(address, postgres.port))).await;
    if !matches!(reached, Ok(Ok(_))) {
        info!("{why}, and the leader {leader} is not there to mend it from");
        return false;
    }
    if let Err(fault) = check_settings(&folder, &data).await {
        warn!("{why}: {fault:#}");
        return false;
    }
    next(&folder, &leader, why).unwrap_or_else(|fault| {
        error!("{why}, and nothing can be noted: {fault:#}");
        false
    })
}

/// Settings of which a replica needs as much as its leader has, and their names in the control file.
const AS_MUCH: [(&str, &str); 5] = [
    ("max_connections", "max_connections setting:"),
    ("max_worker_processes", "max_worker_processes setting:"),
    ("max_wal_senders", "max_wal_senders setting:"),
    ("max_prepared_transactions", "max_prepared_xacts setting:"),
    ("max_locks_per_transaction", "max_locks_per_xact setting:"),
];

/// Fails where PostgreSQL cannot read its settings, or one of them is too low.
async fn check_settings(folder: &Path, data: &Path) -> Result<()> {
    let control = Control::read(data).await.ok();
    for (setting, name) in AS_MUCH {
        let configured = configured(setting, folder, data).await?;
        let needed = control.as_ref().and_then(|control| control.value(name)?.parse().ok()).unwrap_or(0);
        ensure!(
            configured >= needed,
            "{setting} is less than its leader has; restart the leader first where it is lowered"
        );
    }
    Ok(())
}

async fn configured(setting: &str, folder: &Path, data: &Path) -> Result<u64> {
    let owner = fs::metadata(data).with_context(|| format!("cannot reach {}", data.display()))?;
    let mut postgres = tokio::process::Command::new(binary("postgres")?);
    postgres.kill_on_drop(true).uid(owner.uid()).gid(owner.gid()).args(["-C", setting, "-D"]).arg(data);
    postgres.arg("-c").arg(format!("config_file={}", folder.join("postgresql.conf").display()));
    let output = postgres.output().await.context("cannot run postgres")?;
    ensure!(output.status.success(), "its settings are wrong: {}", String::from_utf8_lossy(&output.stderr).trim());
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().parse().with_context(|| format!("{setting} is no number"))
}

/// Notes the next thing to try.
fn next(folder: &Path, leader: &str, why: &str) -> Result<bool> {
    let tried = fs::read_to_string(folder.join(TRIED)).unwrap_or_default();
    let (what, now) = match tried.as_str() {
        COPIED => {
            error!(
                "{why}, and a new copy of {leader} has not helped: the fault is not in the data, see PostgreSQL's log"
            );
            return Ok(false);
        }
        REWOUND => (COPY, COPIED),
        _ => ("", REWOUND),
    };
    warn!("{why}: it is {} from {leader} before the next start", if what == COPY { "copied anew" } else { "rewound" });
    note(folder, TRIED, now)?;
    note(folder, DOUBT, what)?;
    Ok(true)
}

/// It is ready: what was tried has helped.
pub(super) fn is_ready(folder: &Path) {
    if let Err(fault) = forget(folder, TRIED) {
        warn!("{fault:#}");
    }
}

/// Bytes that are free on the disk of a folder.
fn room(folder: &Path) -> Option<u64> {
    let told = statvfs(folder).ok()?;
    Some(told.blocks_available() * told.fragment_size())
}

/// What a replica that starts waits for, looked at again and again.
#[derive(Debug)]
pub(super) struct Waiting {
    looked: Option<Instant>,
    /// The file of the log that it waits for, and since when.
    file: Option<(String, Instant)>,
}

impl Waiting {
    pub(super) const fn new() -> Self {
        Self { looked: None, file: None }
    }

    /// Whether it has waited for the same file for too long; then not again for as long.
    pub(super) fn in_vain(&mut self, around: &Surroundings) -> Option<String> {
        if self.looked.is_some_and(|at| at.elapsed() < LOOK) {
            return None;
        }
        self.looked = Some(Instant::now());
        let file = around.cgroup.pids().into_iter().find_map(waits_for);
        let has = self.has_waited(file.as_deref(), Instant::now());
        file.filter(|_| has).map(|file| format!("{file} of the log, which it needs to start, does not come"))
    }

    fn has_waited(&mut self, file: Option<&str>, now: Instant) -> bool {
        let before = self.file.take();
        let Some(file) = file else { return false };
        let since = before.filter(|(before, _)| before == file).map_or(now, |(_, since)| since);
        let has = now.duration_since(since) >= STUCK;
        self.file = Some((file.to_owned(), if has { now } else { since }));
        has
    }
}

/// The file that recovery waits for, as the process calls itself.
fn waits_for(pid: Pid) -> Option<String> {
    let title = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
    let (_, file) = title.split_once("startup waiting for ")?;
    Some(file.trim_end_matches(['\0', ' ']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_for_a_file_is_told_of_once_in_a_while() {
        let mut waiting = Waiting::new();
        let began = Instant::now();
        let mut at = |file, seconds| waiting.has_waited(file, began + Duration::from_secs(seconds));
        let mut has_waited = |file, seconds| at(Some(file), seconds);
        assert!(!has_waited("a", 0) && !has_waited("a", 29) && has_waited("a", 30));
        assert!(!has_waited("a", 31) && !has_waited("a", 59) && has_waited("a", 60));
        assert!(!has_waited("b", 89) && !has_waited("b", 118) && has_waited("b", 119));
        assert!(!at(None, 140) && !at(Some("b"), 150));
    }

    #[test]
    fn who_gives_up_before_it_has_written_its_options_has_not_come_to_its_data() {
        let data = tempfile::tempdir().expect("a folder");
        let hour = Duration::from_secs(3_600);
        assert!(!has_come_to(data.path(), hour));
        let options = fs::File::create(data.path().join("postmaster.opts")).expect("a file");
        assert!(has_come_to(data.path(), hour));
        options.set_modified(std::time::SystemTime::now() - 2 * hour).expect("another time");
        assert!(!has_come_to(data.path(), hour));
    }
}
