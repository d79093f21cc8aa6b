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
use super::{DATABASES, Keeping, etcd};
use crate::cluster::{Cluster, server};
use crate::process::run;
use crate::site::Binaries;

/// The one address that writers know.
pub(crate) const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 9, 20);
/// The servers.
pub(crate) const SERVERS: [&str; 4] = ["lb1", "db1", "db2", "app1"];
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
    pub(crate) fn prepare(keeping: Keeping, settings: &str) -> Result<Self> {
        live_apart()?;
        let cluster = Cluster::new(&site(keeping, settings)?, &SERVERS)?;
        let folder = cluster.folder();
        // PostgreSQL's own account walks through it.
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
        fs::create_dir_all(folder.join("secrets"))?;
        for name in ["guestbook", "replication"] {
            fs::write(password_file(folder, name), PASSWORD)?;
        }
        run(Command::new(Binaries::find()?.foobar).args(["pki", "--site"]).arg(folder.join("site.toml")))?;
        let disks = DATABASES.iter().map(|server| Disk::mount(server, &folder.join("state").join(server)));
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

fn site(keeping: Keeping, settings: &str) -> Result<String> {
    let (member, etcd) = match keeping {
        Keeping::Witness => (String::new(), String::new()),
        Keeping::Etcd => {
            let members: Vec<String> = etcd::members().iter().map(ToString::to_string).collect();
            (server(etcd::HOST, "monitor", &["eth0"])?, format!("etcd = {{ endpoints = {members:?} }}"))
        }
    };
    let check = "check = { kind = \"postgres\", interval_ms = 200, timeout_ms = 200, rise = 1, fall = 2 }";
    Ok([
        "[site]\ndomain = \"www.foobar.com\"\nadmin = [\"10.0.1.41/32\"]\npki = \"pki\"\n\n".to_owned(),
        server("lb1", "balancer", &["eth0", "eth1"])?,
        server("app1", "app", &["eth0"])?,
        server("db1", "database", &["eth0"])?,
        server("db2", "database", &["eth0"])?,
        member,
        format!(
            "[service.db-write]\nlisten = \"{VIP}:5432\"\nto = \"database:5432\"\nselect = \"primary\"\nfrom = [\"app\"]\n\
             {check}\n\n[service.db-read]\nlisten = \"10.0.9.21:5432\"\nto = \"database:5432\"\nselect = \"replica\"\n\
             from = [\"app\"]\n{check}\n\n"
        ),
        format!(
            "[database]\nname = \"guestbook\"\nuser = \"guestbook\"\npassword_file = \"secrets/guestbook.password\"\n\
             replication_password_file = \"secrets/replication.password\"\nprimary = \"db1\"\n{settings}\n{etcd}\n\n\
             [process.postgres]\non = [\"database\"]\nkind = \"postgres\"\n"
        ),
    ]
    .concat())
}
