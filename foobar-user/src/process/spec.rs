//! What a supervised process is: a process of the plan, or a child that another part of the agent spawns.

use std::fmt;
use std::io;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use tokio::process::Child;

use crate::plan::{Limits, ProcessPlan};

/// Spawns a child; called again for every restart.
pub type SpawnFn = Box<dyn FnMut() -> io::Result<Child> + Send + Sync>;

/// A child that another part of the agent spawns (the TLS edge), supervised like any other.
///
/// The closure must put the child in a session of its own; the supervisor moves it to its cgroup.
pub struct Spawned {
    /// Its name: label of its metrics, name of its cgroup.
    pub name: String,
    /// Changes when a running child must be restarted, and when an earlier agent's child cannot be adopted.
    pub fingerprint: String,
    /// Asks it to stop.
    pub stop_signal: Signal,
    /// Time until SIGKILL, in milliseconds.
    pub stop_timeout_ms: u64,
    /// Spawns it.
    pub spawn: SpawnFn,
}

impl fmt::Debug for Spawned {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Spawned").field("name", &self.name).field("fingerprint", &self.fingerprint).finish()
    }
}

/// A supervised process.
#[derive(Debug)]
pub(super) enum Spec {
    /// Of the plan.
    Planned(Box<ProcessPlan>),
    /// Of another part of the agent.
    Spawned(Spawned),
}

impl Spec {
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Planned(plan) => &plan.name,
            Self::Spawned(spawned) => &spawned.name,
        }
    }

    pub(super) fn stop_timeout(&self) -> Duration {
        Duration::from_millis(match self {
            Self::Planned(plan) => plan.stop_timeout_ms,
            Self::Spawned(spawned) => spawned.stop_timeout_ms,
        })
    }

    pub(super) fn limits(&self) -> Limits {
        match self {
            Self::Planned(plan) => plan.limits,
            Self::Spawned(_) => Limits::default(),
        }
    }

    /// Processes that must be ready before it starts.
    pub(super) fn after(&self) -> &[String] {
        match self {
            Self::Planned(plan) => &plan.after,
            Self::Spawned(_) => &[],
        }
    }

    /// The signal that the plan names, if it names one.
    pub(super) fn stop_signal(&self) -> Result<Option<Signal>> {
        match self {
            Self::Planned(plan) => plan.stop_signal.as_deref().map(signal_named).transpose(),
            Self::Spawned(spawned) => Ok(Some(spawned.stop_signal)),
        }
    }
}

pub(super) fn signal_named(name: &str) -> Result<Signal> {
    let whole = if name.starts_with("SIG") { name.to_owned() } else { format!("SIG{name}") };
    Signal::from_str(&whole).with_context(|| format!("there is no signal {name}: try TERM, INT, QUIT or HUP"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_named_with_and_without_sig() {
        assert_eq!(signal_named("TERM").ok(), Some(Signal::SIGTERM));
        assert_eq!(signal_named("SIGQUIT").ok(), Some(Signal::SIGQUIT));
        assert!(signal_named("NOPE").is_err());
    }
}
