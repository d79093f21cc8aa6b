//! What differs between kinds of processes: configuration, first start, readiness.

use std::time::Duration;

use anyhow::Result;
use nix::sys::signal::Signal;

use super::board::Reporter;
use super::cgroup::Cgroup;
use super::launch::Launch;
use super::spec::Spec;
use super::{Folders, command, nginx, postgres, prometheus, ready};
use crate::database::Duties;
use crate::plan::{ProcessKind, ProcessPlan};

/// What a kind needs beside the plan.
#[derive(Clone, Debug)]
pub(super) struct Surroundings {
    pub(super) folders: Folders,
    pub(super) cgroup: Cgroup,
    pub(super) reporter: Reporter,
    /// What PostgreSQL is started as.
    pub(super) duties: Duties,
}

/// Writes the configuration, tests it where the program can, and says how to start the program.
///
/// A configuration that fails its test is not put in place.
pub(super) async fn configure(spec: &Spec, around: &Surroundings) -> Result<Launch> {
    let mut launch = match spec {
        Spec::Planned(plan) => configure_plan(plan, around).await?,
        Spec::Spawned(spawned) => Launch {
            program: "/".into(),
            arguments: Vec::new(),
            environment: std::collections::BTreeMap::new(),
            folder: None,
            account: None,
            stop_signal: Signal::SIGTERM,
            reload_signal: None,
            configuration: String::new(),
            identity: spawned.fingerprint.clone(),
        },
    };
    if let Some(signal) = spec.stop_signal()? {
        launch.stop_signal = signal;
    }
    Ok(launch)
}

async fn configure_plan(plan: &ProcessPlan, around: &Surroundings) -> Result<Launch> {
    match &plan.kind {
        ProcessKind::Command { .. } => command::configure(plan),
        ProcessKind::Nginx(nginx) => nginx::configure(nginx, plan, around).await,
        ProcessKind::Postgres(postgres) => postgres::configure(postgres, plan, around),
        ProcessKind::Prometheus(prometheus) => prometheus::configure(prometheus, plan, around).await,
    }
}

/// Does what must be done before a start, when nothing of the process runs; may take minutes and may be cancelled.
pub(super) async fn initialise(spec: &Spec, around: &Surroundings) -> Result<()> {
    let Spec::Planned(plan) = spec else { return Ok(()) };
    match &plan.kind {
        ProcessKind::Postgres(postgres) => postgres::initialise(postgres, plan, around).await,
        ProcessKind::Nginx(_) => nginx::initialise(&around.folders),
        ProcessKind::Command { .. } | ProcessKind::Prometheus(_) => Ok(()),
    }
}

/// Returns when the process, now started, is ready for its clients, or says why it does not become so.
pub(super) async fn settle(plan: Option<ProcessPlan>, around: Surroundings) -> Result<(), String> {
    match plan {
        Some(ProcessPlan { kind: ProcessKind::Postgres(postgres), .. }) => postgres::settle(&postgres, &around).await,
        Some(plan) => ready::wait(&plan, &around).await,
        None => Ok(()),
    }
}

/// Does what there is to do about a process that has given up several times in a row before it was ready, just now after so long.
pub(super) async fn never_ready(spec: &Spec, around: &Surroundings, ran: Duration) {
    let Spec::Planned(plan) = spec else { return };
    if let ProcessKind::Postgres(postgres) = &plan.kind {
        postgres::never_ready(postgres, around, ran).await;
    }
}
