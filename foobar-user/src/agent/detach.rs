//! Taking a server's data path out of the kernel, with everything that the agent set on its host.

use std::path::Path;

use anyhow::{Result, ensure};

use super::folders::{lock_path, run_folder};
use super::lock::Lock;
use crate::datapath;
use crate::flood;
use crate::host::{settings, vips};

/// Removes programs, maps, VIPs and settings of a server whose agent does not run.
///
/// # Errors
/// Its agent runs, or something cannot be removed.
pub async fn detach(bpffs: &Path, run_dir: &Path, server: &str) -> Result<()> {
    ensure!(nix::unistd::geteuid().is_root(), "detaching takes programs out of the kernel: run it as root");
    let run = run_folder(run_dir, server);
    ensure!(
        run.exists(),
        "there is no run folder {} of `{server}`: is this its --run-dir? Without it nobody can tell whether its agent runs",
        run.display()
    );
    let _lock = Lock::take(&lock_path(&run), server)?;
    datapath::detach(bpffs, &run, server)?;
    vips::let_go(&run, &[]).await?;
    flood::restore(&run)?;
    settings::restore(&settings::memory(&run))
}
