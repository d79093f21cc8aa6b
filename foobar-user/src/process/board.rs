//! What every process is doing, for people and metrics: one snapshot, replaced by the processes' tasks.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// What a process is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProcessState {
    /// Being prepared, or not answering yet.
    Starting,
    /// Waits for something outside this server; the message says for what.
    Waiting,
    /// Runs and is ready.
    Running,
    /// Ended, and will be started again after a pause.
    Backoff,
    /// Ended quickly several times in a row; started again every ten seconds.
    CrashLoop,
    /// Was asked to stop.
    Stopping,
    /// Does not run, as asked.
    Stopped,
}

impl ProcessState {
    /// Its name for people, and in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Backoff => "backoff",
            Self::CrashLoop => "crash-loop",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
        }
    }
}

/// One process, as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessStatus {
    /// Its name in the plan.
    pub name: String,
    /// What it is doing.
    pub state: ProcessState,
    /// Its main process, when there is one.
    pub pid: Option<i32>,
    /// Whether an earlier agent started it.
    pub adopted: bool,
    /// Times it was started again after an end nobody asked for.
    pub restarts: u64,
    /// Since when it has been in this state, in milliseconds of Unix time.
    pub since_ms: u64,
    /// Why it is in this state, or what was wrong last.
    pub message: Option<String>,
    /// Which of its limits are not kept, and why.
    pub limits_fault: Option<String>,
}

/// The tasks' end of the snapshot of one process.
#[derive(Clone, Debug)]
pub(super) struct Reporter {
    pub(super) board: watch::Sender<Vec<ProcessStatus>>,
    pub(super) name: String,
}

impl Reporter {
    /// Puts the process on the board.
    pub(super) fn enter(&self) {
        self.board.send_modify(|all| {
            all.retain(|status| status.name != self.name);
            all.push(ProcessStatus {
                name: self.name.clone(),
                state: ProcessState::Starting,
                pid: None,
                adopted: false,
                restarts: 0,
                since_ms: now_ms(),
                message: None,
                limits_fault: None,
            });
        });
    }

    /// Takes the process off the board.
    pub(super) fn leave(&self) {
        self.board.send_modify(|all| all.retain(|status| status.name != self.name));
    }

    /// Changes the process's entry; wakes readers only when something changed.
    pub(super) fn update(&self, change: impl FnOnce(&mut ProcessStatus)) {
        self.board.send_if_modified(|all| {
            let Some(status) = all.iter_mut().find(|status| status.name == self.name) else { return false };
            let old = status.clone();
            change(status);
            if status.state != old.state {
                status.since_ms = now_ms();
            }
            *status != old
        });
    }

    /// Sets the state and its reason.
    pub(super) fn state(&self, state: ProcessState, message: Option<String>) {
        self.update(|status| {
            status.state = state;
            status.message = message;
        });
    }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX))
}
