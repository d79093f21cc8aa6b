//! The fence of a database server: held to PostgreSQL's cgroup before anything is started in it.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};

use super::ServerFolders;
use crate::database::Fencing;
use crate::datapath::Datapath;
use crate::datapath::fence::{Fence, boot_now};
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

/// The fence, for who keeps the lease; `None`: this server has none.
///
/// # Errors
/// It cannot be opened.
pub(super) fn of(datapath: &Datapath) -> Result<Option<Arc<dyn Fencing>>> {
    Ok(datapath.fence()?.map(|fence| Arc::new(fence) as Arc<dyn Fencing>))
}

/// The one that an earlier agent has left in force: a lease is kept on before everything else of this agent has come up.
///
/// # Errors
/// It is there and cannot be used.
pub(super) fn adopt(bpffs: &Path, server: &str) -> Result<Option<Arc<dyn Fencing>>> {
    Ok(Fence::adopt(bpffs, server)?.map(|fence| Arc::new(fence) as Arc<dyn Fencing>))
}

impl Fencing for Fence {
    fn now(&self) -> u64 {
        boot_now()
    }

    fn close(&self) {
        Self::close(self);
    }

    fn open(&self) {
        Self::open(self);
    }

    fn open_until(&self, end: u64) {
        Self::open_until(self, end);
    }

    fn is_open(&self) -> bool {
        self.end() > boot_now()
    }
}
