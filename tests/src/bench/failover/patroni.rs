//! Patroni with etcd and HAProxy as a contestant: Debian's packages, everything on the servers that ours has.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use nix::unistd::User;
use serde_json::Value;

use super::clock::boot_us;
use super::contestant::Contestant;
use super::measure::until;
use super::{haproxy, settings};
use crate::cluster::Cluster;
use crate::failover::etcd::{Etcd, members_on};
use crate::failover::{DATABASES, Disk, Ground, Shape, address, password_file, sql};
use crate::process::Process;
use crate::progress::Progress;
use crate::{Host, cgroup, client};

/// A cluster that Patroni keeps. Dropping it ends everything of it.
#[derive(Debug)]
pub(super) struct Patroni {
    agents: Vec<(&'static str, Process)>,
    _haproxy: Process,
    _etcd: Etcd,
    _disks: Vec<Disk>,
    cluster: Cluster,
}

impl Patroni {
    /// Starts everything, and waits until a replica is in sync.
    pub(super) fn start(progress: &dyn Progress) -> Result<Self> {
        ensure!(Path::new(PROGRAM).exists(), "{PROGRAM} is missing: apt-get install --no-install-recommends patroni");
        let Ground { cluster, disks } = Ground::prepare(&Shape::default())?;
        let etcd = Etcd::start_on(&cluster, haproxy::HOST)?;
        for server in DATABASES {
            prepare(&cluster, server).with_context(|| format!("cannot prepare Patroni on {server}"))?;
        }
        let first = agent(&cluster, "db1")?;
        let told = || told(&cluster);
        until(progress, "Patroni makes a cluster", || Ok((leading(&cluster)? == Some("db1")).then_some(())))
            .with_context(told)?;
        let socket = folder(&cluster, "db1");
        let password = fs::read_to_string(password_file(cluster.folder(), "guestbook"))?;
        let role = format!("create role guestbook login password '{}'", password.trim());
        for statement in [role.as_str(), "create database guestbook owner guestbook"] {
            sql::run_in(&socket, "postgres", statement)?;
        }
        sql::run(&socket, &format!("set role guestbook; {}", sql::TABLE))?;
        let second = agent(&cluster, "db2")?;
        let haproxy = haproxy::start(&cluster, crate::failover::VIP)?;
        let agents = vec![("db1", first), ("db2", second)];
        let patroni = Self { agents, _haproxy: haproxy, _etcd: etcd, _disks: disks, cluster };
        until(progress, "Patroni has a replica in sync", || Ok(patroni.is_settled("db1")?.then_some(())))
            .with_context(|| patroni.told())?;
        Ok(patroni)
    }
}

impl Contestant for Patroni {
    fn name(&self) -> &'static str {
        "Patroni"
    }

    fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    fn socket(&self, server: &str) -> PathBuf {
        folder(&self.cluster, server)
    }

    fn leader(&self) -> Result<&'static str> {
        leading(&self.cluster)?.context("nobody leads")
    }

    fn is_settled(&self, leader: &str) -> Result<bool> {
        let members = members(&self.cluster, leader)?;
        let is = |member: &Value, role: &str| member["role"] == role && runs(member);
        let has = |name: &str, role: &str| members.iter().any(|member| member["name"] == name && is(member, role));
        Ok(DATABASES.iter().all(|server| has(server, if *server == leader { "leader" } else { "sync_standby" })))
    }

    fn kill(&mut self, server: &'static str) -> Result<()> {
        cgroup::kill(&self.cluster.cgroup(server))?;
        self.agents.retain(|(name, _)| *name != server);
        Ok(())
    }

    fn revive(&mut self, server: &'static str) -> Result<()> {
        self.agents.push((server, agent(&self.cluster, server)?));
        Ok(())
    }

    fn switchover(&self, from: &str, to: &str) -> Result<()> {
        let file = file(&self.cluster, from).display().to_string();
        let order = ["-c", &file, "switchover", "--force", "--master", from, "--candidate", to, settings::SCOPE];
        self.cluster.run(from, "patronictl", &order).map(drop)
    }

    /// As the log of who takes it says, which has microseconds.
    fn taken(&self, server: &str, at: i64) -> Result<i64> {
        let log = fs::read_to_string(log(&self.cluster, server)).context("cannot read Patroni's log")?;
        let taken = log.lines().filter(|line| line.contains(TAKEN));
        let seconds = taken.filter_map(|line| line.split(' ').next()?.parse::<f64>().ok());
        let times = seconds.map(|seconds| boot_us((seconds * 1e6) as i64));
        times.filter(|time| *time >= at).reduce(i64::min).with_context(|| format!("{server} does not say `{TAKEN}`"))
    }

    fn fenced(&self, _: &str) -> Result<Option<i64>> {
        Ok(None)
    }

    fn about(&self) -> String {
        format!(
            "ttl {} s, loop_wait {} s, retry_timeout {} s, synchronous_mode; no fence but its own agent, for there is no \
             watchdog device here",
            settings::TTL,
            settings::LOOP_WAIT,
            settings::RETRY_TIMEOUT
        )
    }

    fn told(&self) -> String {
        told(&self.cluster)
    }
}

impl Drop for Patroni {
    fn drop(&mut self) {
        // Its children are no process of this one: they end with their cgroup, before the disks that they write.
        for server in DATABASES {
            if let Err(error) = cgroup::kill(&self.cluster.cgroup(server)) {
                eprintln!("foobar-tests: {error:#}");
            }
        }
    }
}

/// Makes a server's folder, certificate and settings, all of them PostgreSQL's own account's.
fn prepare(cluster: &Cluster, server: &str) -> Result<()> {
    let account = User::from_name(ACCOUNT)?.with_context(|| format!("there is no account {ACCOUNT}"))?;
    let own = |path: &Path, mode: u32| {
        chown(path, Some(account.uid.as_raw()), Some(account.gid.as_raw()))?;
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
    };
    let (folder, pki) = (folder(cluster, server), cluster.folder().join("pki"));
    fs::create_dir_all(&folder)?;
    own(&folder, 0o755)?;
    for (from, to) in
        [("ca.pem", "ca.pem"), (&format!("{server}.pem"), "own.pem"), (&format!("{server}.key"), "own.key")]
    {
        fs::copy(pki.join(from), folder.join(to))?;
        own(&folder.join(to), 0o600)?;
    }
    let disk = cluster.folder().join("state").join(server);
    own(&disk, 0o755)?;
    let password = fs::read_to_string(password_file(cluster.folder(), "replication"))?;
    let store = members_on(haproxy::HOST);
    let text = settings::of(server, &folder, &disk.join("data"), password.trim(), &store).to_string();
    fs::write(file(cluster, server), text)?;
    own(&file(cluster, server), 0o600)?;
    Ok(())
}

/// Starts Patroni on a server.
fn agent(cluster: &Cluster, server: &str) -> Result<Process> {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", ACCOUNT, "--regid", ACCOUNT, "--init-groups", "--reset-env", PROGRAM]);
    command.arg(file(cluster, server));
    let log = fs::OpenOptions::new().create(true).append(true).open(log(cluster, server))?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    cluster.place(server, "patroni", &mut command)?;
    Process::spawn("Patroni", &mut command)
}

/// The server that leads, as one of them says.
fn leading(cluster: &Cluster) -> Result<Option<&'static str>> {
    let said = DATABASES.iter().find_map(|server| members(cluster, server).ok());
    let members = said.context("no Patroni answers")?;
    let leader = members.iter().find(|member| member["role"] == "leader" && runs(member));
    Ok(DATABASES.into_iter().find(|server| leader.is_some_and(|leader| leader["name"] == *server)))
}

/// The cluster as the Patroni of a server sees it.
fn members(cluster: &Cluster, server: &str) -> Result<Vec<Value>> {
    let address = SocketAddr::from((Host::named(server).context("a host")?.v4(), settings::API));
    let target = client::Target { address, host: server.to_owned(), tls: None };
    let answer = client::get(cluster.namespace(server)?, &target, "/cluster")?;
    let said: Value = serde_json::from_slice(&answer.body).context("Patroni wrote no JSON")?;
    Ok(said["members"].as_array().cloned().unwrap_or_default())
}

/// Whether its PostgreSQL runs, and streams if it is a replica.
fn runs(member: &Value) -> bool {
    ["running", "streaming"].iter().any(|state| member["state"] == *state)
}

fn told(cluster: &Cluster) -> String {
    let tail = |server: &&str| {
        let log = fs::read_to_string(log(cluster, server)).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let cluster =
            members(cluster, server).map_or_else(|error| format!("{error:#}"), |all| Value::from(all).to_string());
        format!("{server} ({}):\n{cluster}\n{}\n", address(server), lines[lines.len().saturating_sub(25)..].join("\n"))
    };
    DATABASES.iter().map(tail).collect()
}

/// A server's own files, and its PostgreSQL's socket.
fn folder(cluster: &Cluster, server: &str) -> PathBuf {
    cluster.folder().join("patroni").join(server)
}

fn file(cluster: &Cluster, server: &str) -> PathBuf {
    folder(cluster, server).join("patroni.yml")
}

fn log(cluster: &Cluster, server: &str) -> PathBuf {
    cluster.folder().join(format!("{server}.log"))
}

const PROGRAM: &str = "/usr/bin/patroni";
const ACCOUNT: &str = "postgres";
/// What it says of itself when it has taken the lease.
const TAKEN: &str = "promoted self to leader by acquiring session lock";
