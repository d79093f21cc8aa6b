//! Taking a server's data path out of the kernel, with everything that the agent set on its host.

use std::path::Path;

use anyhow::{Result, bail, ensure};

use super::folders::{lock_path, run_folder};
use super::lock::Lock;
use crate::datapath;
use crate::flood;
use crate::host::{settings, vips};
use crate::process::postgres;

/// Removes programs, maps, VIPs and settings of a server whose agent does not run.
///
/// # Errors
/// Its agent or its fenced PostgreSQL runs, or something cannot be removed.
pub async fn detach(bpffs: &Path, run_dir: &Path, server: &str) -> Result<()> {
    ensure!(nix::unistd::geteuid().is_root(), "detaching takes programs out of the kernel: run it as root");
    let run = run_folder(run_dir, server);
    ensure!(
        run.exists(),
        "there is no run folder {} of `{server}`: is this its --run-dir? Without it nobody can tell whether its agent runs",
        run.display()
    );
    let _lock = Lock::take(&lock_path(&run), server)?;
    ensure_nothing_fenced(bpffs, &run, server)?;
    datapath::detach(bpffs, &run, server)?;
    vips::let_go(&run, &[]).await?;
    flood::restore(&run)?;
    settings::restore(&settings::memory(&run))
}

/// Without the fence clients would write to a server whose lease may be over.
fn ensure_nothing_fenced(bpffs: &Path, run: &Path, server: &str) -> Result<()> {
    let postmaster = datapath::fence::is_held(bpffs, server).then(|| postgres::postmaster(run)).flatten();
    if let Some(pid) = postmaster {
        bail!(
            "PostgreSQL (pid {pid}) runs behind the fence of `{server}`, without which clients could write to it although another \
             server leads: stop it first (kill -INT {pid})"
        );
    }
    Ok(())
}
