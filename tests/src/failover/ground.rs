//! What a cluster stands on, whoever keeps its database: servers on a network, secrets, certificates, a small disk for each database.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::disk::Disk;
use super::{Shape, site};
use crate::cluster::Cluster;
use crate::process::run;
use crate::site::Binaries;

/// The one address that writers know.
pub(crate) const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 9, 20);
const PASSWORD: &str = "a secret of the bed\n";

/// A cluster in which nothing runs yet. `disks` come before `cluster` in whatever owns both: they lie below its folder.
#[derive(Debug)]
pub(crate) struct Ground {
    /// Below the database servers' state: small enough to be filled.
    pub(crate) disks: Vec<Disk>,
    pub(crate) cluster: Cluster,
}

impl Ground {
    /// Makes it.
    ///
    /// # Errors
    /// Something cannot be made.
    pub(crate) fn prepare(shape: &Shape<'_>) -> Result<Self> {
        live_apart()?;
        let cluster = Cluster::new(&site::text(shape)?, &shape.servers())?;
        let folder = cluster.folder();
        // PostgreSQL's own account walks through it.
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
        fs::create_dir_all(folder.join("secrets"))?;
        for name in ["guestbook", "replication"] {
            fs::write(password_file(folder, name), PASSWORD)?;
        }
        run(Command::new(Binaries::find()?.foobar).args(["pki", "--site"]).arg(folder.join("site.toml")))?;
        let disks = shape.databases.iter().map(|server| Disk::mount(server, &folder.join("state").join(server)));
        let disks = disks.collect::<Result<_>>()?;
        Ok(Self { disks, cluster })
    }
}

/// The password of a role of the database.
pub(crate) fn password_file(folder: &Path, role: &str) -> PathBuf {
    folder.join(format!("secrets/{role}.password"))
}

/// Gives this thread, and all that it starts, mounts and shared memory of their own: they go with the last of them, however that
/// ends. A PostgreSQL that is killed leaves its shared memory behind.
fn live_apart() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWIPC).context("cannot have mounts of our own")?;
    let all = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, all, None::<&str>).context("cannot keep our mounts to ourselves")?;
    let (flags, kind) = (MsFlags::MS_NOSUID | MsFlags::MS_NODEV, "tmpfs");
    mount(Some(kind), "/dev/shm", Some(kind), flags, Some("mode=1777")).context("cannot have a /dev/shm of our own")
}
