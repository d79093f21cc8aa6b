//! The data folder: made once by initdb, checked before every start.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::super::account::Account;
use super::super::board::ProcessState;
use super::super::kind::Surroundings;
use super::super::launch;
use super::{VERSION, alone, binary};

/// Removes a folder that a crash left half made.
pub(super) fn discard(new: &Path) -> Result<()> {
    match fs::remove_dir_all(new) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove the unfinished {}", new.display()))
        }
        _ => Ok(()),
    }
}

/// Makes an empty cluster in `new`.
pub(super) async fn initdb(new: &Path, account: &Account, around: &Surroundings) -> Result<()> {
    around.reporter.state(ProcessState::Starting, Some("making the cluster".to_owned()));
    let mut command = launch::helper(&binary("initdb")?, Some(account), &around.cgroup)?;
    command
        .args(["--username=postgres", "--auth-host=scram-sha-256", "--auth-local=peer"])
        .args(["--data-checksums", "--encoding=UTF8", "--locale=C.UTF-8", "-D"])
        .arg(new);
    launch::run(command).await
}

/// Fails when the data folder cannot be started: another version, another owner, or a postmaster on it already.
pub(super) fn check(data: &Path, account: &Account) -> Result<()> {
    let version_file = data.join("PG_VERSION");
    let version =
        fs::read_to_string(&version_file).with_context(|| format!("cannot read {}", version_file.display()))?;
    if version.trim() != VERSION {
        bail!(
            "{} is of PostgreSQL {}, and PostgreSQL {VERSION} is run here: upgrade it with pg_upgrade, or move it away",
            data.display(),
            version.trim()
        );
    }
    let owner = fs::metadata(data).with_context(|| format!("cannot read {}", data.display()))?.uid();
    if owner != account.uid.as_raw() {
        bail!(
            "{} belongs to uid {owner} and not to {}: `chown -R {} {}`",
            data.display(),
            account.name,
            account.name,
            data.display()
        );
    }
    alone::check(data)
}

/// The postmaster that runs on the data folder, if one does.
pub(super) fn postmaster_of(data: &Path) -> Option<u32> {
    let text = fs::read_to_string(data.join("postmaster.pid")).ok()?;
    let pid: u32 = text.lines().next()?.trim().parse().ok()?;
    // The file outlives a killed postmaster, and its id may be another's now: a postmaster's folder is its data folder.
    let works_in = fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
    (works_in == data.canonicalize().ok()?).then_some(pid)
}

/// Whether the postmaster has written that it accepts connections (line 8 of its file, as `pg_ctl` reads it).
pub(super) fn says_ready(data: &Path) -> bool {
    fs::read_to_string(data.join("postmaster.pid"))
        .is_ok_and(|text| text.lines().nth(7).is_some_and(|status| status.trim() == "ready"))
}
