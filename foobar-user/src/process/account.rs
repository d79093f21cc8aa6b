//! The account that a child runs as: looked up before the fork, because look-ups allocate.

use std::ffi::CString;
use std::fs::File;
use std::os::unix::fs::{MetadataExt, chown, fchown};
use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::unistd::{Gid, Uid, User, geteuid, getgrouplist};

/// An account with all its groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) name: String,
    pub(super) uid: Uid,
    pub(super) gid: Gid,
    pub(super) groups: Vec<Gid>,
}

impl Account {
    /// Looks an account up by name.
    pub(super) fn named(name: &str) -> Result<Self> {
        let user = User::from_name(name).with_context(|| format!("cannot look up the account {name}"))?.with_context(
            || format!("there is no account {name}: make it (adduser --system {name}) or name another"),
        )?;
        let c_name = CString::new(name).context("an account's name cannot hold a NUL byte")?;
        let groups = getgrouplist(&c_name, user.gid).with_context(|| format!("cannot look up the groups of {name}"))?;
        let account = Self { name: name.to_owned(), uid: user.uid, gid: user.gid, groups };
        if !geteuid().is_root() && geteuid() != account.uid {
            bail!("cannot become {name}: the agent is not root; run it as root");
        }
        Ok(account)
    }

    /// Gives a folder to this account; its parent must be root's.
    pub(super) fn own(&self, path: &Path) -> std::io::Result<()> {
        if !geteuid().is_root() {
            return Ok(());
        }
        chown(path, Some(self.uid.as_raw()), Some(self.gid.as_raw()))
    }

    /// Gives an open file to this account: not by its path, which an account that owns the folder could exchange.
    pub(super) fn own_file(&self, file: &File) -> std::io::Result<()> {
        if !geteuid().is_root() {
            return Ok(());
        }
        fchown(file, Some(self.uid.as_raw()), Some(self.gid.as_raw()))
    }

    /// Fails with the first folder on the way to `path` that this account cannot walk through.
    pub(super) fn can_reach(&self, path: &Path) -> Result<()> {
        if self.uid.is_root() {
            return Ok(());
        }
        let whole = path.canonicalize().with_context(|| format!("cannot reach {}", path.display()))?;
        let mut folders: Vec<&Path> = whole.ancestors().filter(|folder| folder.is_dir()).collect();
        folders.reverse();
        for folder in folders {
            let about = folder.metadata().with_context(|| format!("cannot read {}", folder.display()))?;
            let bit = if about.uid() == self.uid.as_raw() {
                0o100
            } else if self.groups.iter().any(|group| group.as_raw() == about.gid()) {
                0o010
            } else {
                0o001
            };
            if about.mode() & bit == 0 {
                bail!(
                    "the account {} cannot reach {}: {} is closed to it; `chmod o+x {}` or choose another place",
                    self.name,
                    path.display(),
                    folder.display(),
                    folder.display()
                );
            }
        }
        Ok(())
    }
}
