//! A replica whose PostgreSQL does not become ready, whatever is tried: its data is rewound, and copied anew where that does not help.
//!
//! Never that of a leader, and never while the leader cannot be reached: then nothing could be mended, and this data may be the last.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
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

/// Has the data of a replica mended at its next start, if its leader is there to mend it from; returns whether that is to be.
pub(in super::super) async fn doubt(postgres: &PostgresPlan, around: &Surroundings, why: &str) -> bool {
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
    if let Some(setting) = is_less_than_leaders(&folder, &data).await {
        warn!("{why}: {setting} is less than its leader has; restart the leader first where it is lowered");
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

/// The first of them that is configured too low, if that can be told.
async fn is_less_than_leaders(folder: &Path, data: &Path) -> Option<&'static str> {
    let control = Control::read(data).await.ok()?;
    for (setting, name) in AS_MUCH {
        let needed: u64 = control.value(name)?.parse().ok()?;
        if configured(setting, folder, data).await? < needed {
            return Some(setting);
        }
    }
    None
}

async fn configured(setting: &str, folder: &Path, data: &Path) -> Option<u64> {
    let owner = fs::metadata(data).ok()?;
    let mut postgres = tokio::process::Command::new(binary("postgres").ok()?);
    postgres.kill_on_drop(true).uid(owner.uid()).gid(owner.gid()).args(["-C", setting, "-D"]).arg(data);
    postgres.arg("-c").arg(format!("config_file={}", folder.join("postgresql.conf").display()));
    String::from_utf8(postgres.output().await.ok()?.stdout).ok()?.trim().parse().ok()
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

    /// Whether it has waited for the same file for too long.
    pub(super) fn in_vain(&mut self, around: &Surroundings) -> Option<String> {
        if self.looked.is_some_and(|at| at.elapsed() < LOOK) {
            return None;
        }
        self.looked = Some(Instant::now());
        let file = around.cgroup.pids().into_iter().find_map(waits_for);
        let since = self.file.take().filter(|(before, _)| Some(before) == file.as_ref()).map(|(_, since)| since);
        let since = since.unwrap_or_else(Instant::now);
        self.file = file.map(|file| (file, since));
        let (file, since) = self.file.as_ref()?;
        (since.elapsed() >= STUCK).then(|| format!("{file} of the log, which it needs to start, does not come"))
    }
}

/// The file that recovery waits for, as the process calls itself.
fn waits_for(pid: Pid) -> Option<String> {
    let title = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
    let (_, file) = title.split_once("startup waiting for ")?;
    Some(file.trim_end_matches(['\0', ' ']).to_owned())
}
