//! The fence of a database server: held to PostgreSQL's cgroup before anything is started in it.

use anyhow::{Context, Result};

use super::ServerFolders;
use crate::datapath::Datapath;
use crate::plan::{Plan, ProcessKind};

/// Holds the fence to the cgroup of every PostgreSQL of the plan, if the plan has one.
///
/// # Errors
/// The kernel refuses; then PostgreSQL must not be started.
pub(super) fn hold(datapath: &mut Datapath, plan: &Plan, folders: &ServerFolders) -> Result<()> {
    if plan.fence.is_none() {
        return Ok(());
    }
    let cgroup = folders.processes().cgroup;
    let postgres = plan.processes.iter().filter(|process| matches!(process.kind, ProcessKind::Postgres(_)));
    for process in postgres {
        let held = datapath.attach_fence(&cgroup.join(&process.name));
        held.with_context(|| format!("`{}` cannot be fenced", process.name))?;
    }
    Ok(())
}
