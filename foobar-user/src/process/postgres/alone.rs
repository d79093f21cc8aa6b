//! Never two postmasters on a data folder: one that somebody else started is found before ours starts.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// Fails when a PostgreSQL runs on this data folder; our own group has been cleared before.
pub(super) fn check(data: &Path) -> Result<()> {
    let data = data.canonicalize().with_context(|| format!("cannot reach {}", data.display()))?;
    let found = match recorded(&data).filter(|pid| runs_on(*pid, &data)) {
        Some(pid) => Some(pid),
        // The record may be lost: then the folder that they all run in tells.
        None => running().find(|pid| runs_on(*pid, &data)),
    };
    if let Some(pid) = found {
        bail!(
            "a postmaster that this agent did not start (pid {pid}) runs on {}: stop it first (kill -INT {pid})",
            data.display()
        );
    }
    Ok(())
}

/// The living postmaster that has locked a socket in this folder.
pub(super) fn behind(sockets: &Path) -> Option<i32> {
    let locks = fs::read_dir(sockets).ok()?.flatten().map(|entry| entry.path());
    locks.filter(|path| path.extension().is_some_and(|extension| extension == "lock")).find_map(|lock| {
        // The process id, and then the data folder.
        let text = fs::read_to_string(lock).ok()?;
        let mut lines = text.lines();
        let (pid, data) = (lines.next()?.trim().parse().ok()?, Path::new(lines.next()?).canonicalize().ok()?);
        runs_on(pid, &data).then_some(pid)
    })
}

/// The postmaster that `postmaster.pid` names.
fn recorded(data: &Path) -> Option<i32> {
    fs::read_to_string(data.join("postmaster.pid")).ok()?.lines().next()?.trim().parse().ok()
}

fn running() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Whether a living process is a PostgreSQL of this folder, whatever its id was before.
fn runs_on(pid: i32, data: &Path) -> bool {
    let link = |name: &str| fs::read_link(format!("/proc/{pid}/{name}"));
    // An upgraded program is `postgres (deleted)`.
    let is_postgres = link("exe").is_ok_and(|exe| {
        exe.file_name().is_some_and(|name| name.to_string_lossy().trim_end_matches(" (deleted)") == "postgres")
    });
    is_postgres && link("cwd").is_ok_and(|folder| folder == data)
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    struct Killed(Child);

    impl Drop for Killed {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn another_postmaster_is_found_with_and_without_its_record() {
        let place = tempfile::tempdir().unwrap();
        let data = place.path().join("data");
        fs::create_dir(&data).unwrap();
        check(&data).unwrap();
        let program = place.path().join("postgres");
        fs::copy("/bin/sleep", &program).unwrap();
        let start = |program: &Path| Killed(Command::new(program).arg("1000").current_dir(&data).spawn().unwrap());
        let other = start(Path::new("/bin/sleep"));
        fs::write(data.join("postmaster.pid"), format!("{}\n", other.0.id())).unwrap();
        check(&data).unwrap();
        let postmaster = start(&program);
        let found = format!("{:#}", check(&data).unwrap_err());
        assert!(found.contains(&format!("(pid {})", postmaster.0.id())), "{found}");
        fs::write(data.join("postmaster.pid"), format!("{}\n", postmaster.0.id())).unwrap();
        assert!(check(&data).is_err());
        let sockets = place.path().join("sockets");
        fs::create_dir(&sockets).unwrap();
        fs::write(sockets.join(".s.PGSQL.5432.lock"), format!("{}\n{}\n", postmaster.0.id(), data.display())).unwrap();
        assert_eq!(behind(&sockets), Some(postmaster.0.id().cast_signed()));
        drop(postmaster);
        check(&data).unwrap();
        assert_eq!(behind(&sockets), None);
    }
}
