//! The processes of a server with what they use, for `foobar process`.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use serde::{Deserialize, Serialize};
use tracing::info;

use super::control::ProcessOrder;
use super::server::{Server, lock};
use crate::plan::{Limits, ProcessKind};
use crate::process::{ProcessStatus, ProcessUsage};
use crate::sets::ttl;
use crate::table::{Column, table};

/// Bytes of a mebibyte.
const MEBIBYTE: u64 = 1 << 20;

/// Every process of a server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProcessesReport {
    /// The server.
    pub server: String,
    /// Its processes, in the order in which they start.
    pub processes: Vec<ProcessReport>,
}

/// One process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProcessReport {
    /// What it is doing.
    #[serde(flatten)]
    pub status: ProcessStatus,
    /// What it uses and has run into.
    pub usage: ProcessUsage,
    /// What it may use.
    pub limits: Limits,
}

impl Server {
    /// The processes, with what they use.
    pub(super) fn processes(&self) -> ProcessesReport {
        let usage = self.supervisor.usage();
        let planned = &self.loaded.plan.processes;
        let mut processes: Vec<ProcessReport> = Vec::new();
        let pending = lock(&self.database).report().map(|report| report.pending_restart).unwrap_or_default();
        for mut status in self.supervisor.status() {
            let is_postgres =
                planned.iter().any(|plan| plan.name == status.name && matches!(plan.kind, ProcessKind::Postgres(_)));
            if is_postgres && !pending.is_empty() && status.message.is_none() {
                status.message = Some(format!("a restart puts {} in force", pending.join(", ")));
            }
            let Some(usage) = usage.iter().find(|usage| usage.name == status.name) else { continue };
            let plan = planned.iter().find(|plan| plan.name == status.name);
            let limits = plan.map(|plan| plan.limits).unwrap_or_default();
            processes.push(ProcessReport { status, usage: usage.clone(), limits });
        }
        ProcessesReport { server: self.name().to_owned(), processes }
    }

    /// Takes an order about a process; what follows is told by its state.
    ///
    /// # Errors
    /// No such process; the order cannot be remembered.
    pub(super) fn order_process(&self, order: &ProcessOrder) -> Result<ProcessesReport> {
        let before = self.processes();
        self.supervisor.order(&order.process, order.change)?;
        info!(process = order.process, change = ?order.change, "ordered");
        Ok(before)
    }
}

impl ProcessesReport {
    /// The process of this name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&ProcessReport> {
        self.processes.iter().find(|process| process.status.name == name)
    }
}

impl ProcessReport {
    fn row(&self) -> Vec<String> {
        let ProcessStatus { name, state, pid, since_ms, restarts, message, limits_fault, .. } = &self.status;
        let said: Vec<&str> = message.iter().chain(limits_fault).map(String::as_str).collect();
        vec![
            name.clone(),
            state.as_str().to_owned(),
            pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
            since(*since_ms),
            restarts.to_string(),
            format!("{:.1} s", self.usage.cpu_seconds),
            format!("{} MiB", self.usage.memory_bytes / MEBIBYTE),
            self.limits.to_string(),
            if self.usage.oom_kills == 0 { String::new() } else { self.usage.oom_kills.to_string() },
            said.join("; ").lines().next().unwrap_or_default().to_owned(),
        ]
    }
}

/// How long ago.
fn since(unix_ms: u64) -> String {
    let then = UNIX_EPOCH + Duration::from_millis(unix_ms);
    let ago = SystemTime::now().duration_since(then).unwrap_or_default();
    ttl::format(Duration::from_secs(ago.as_secs()))
}

impl fmt::Display for ProcessesReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = [
            Column::Text("process"),
            Column::Text("state"),
            Column::Number("pid"),
            Column::Number("for"),
            Column::Number("restarts"),
            Column::Number("CPU time"),
            Column::Number("memory"),
            Column::Text("limits"),
            Column::Number("OOM kills"),
            Column::Text("because of"),
        ];
        let rows: Vec<Vec<String>> = self.processes.iter().map(ProcessReport::row).collect();
        if rows.is_empty() {
            return writeln!(f, "{} has no processes", self.server);
        }
        write!(f, "{}", table(&columns, &rows))
    }
}
