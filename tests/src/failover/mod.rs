//! A database cluster of two servers with its balancer and a client's server, with writers, faults, and what must hold after them.

mod acknowledged;
mod disk;
pub mod etcd;
mod fault;
mod ground;
pub(crate) mod sql;
mod writers;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use foobar_user::datapath::fence::boot_now;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::cluster::Cluster;
use crate::process::Process;
use crate::{cgroup, eventually};

pub use acknowledged::{Acknowledged, Row};
pub(crate) use disk::Disk;
use etcd::Etcd;
pub use fault::{Fault, Outcome};
use ground::SERVERS;
pub(crate) use ground::{Ground, VIP, password_file};
pub use writers::Writers;

/// The servers that run PostgreSQL.
pub const DATABASES: [&str; 2] = ["db1", "db2"];
/// Time that a start of everything may take on a busy machine.
const READY: Duration = Duration::from_secs(90);
/// One cluster at a time in a process.
static ALONE: Mutex<()> = Mutex::new(());

/// Who keeps the lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeping {
    /// The witness in the balancer's agent.
    Witness,
    /// Three members of etcd.
    Etcd,
}

/// A cluster whose agents run.
#[derive(Debug)]
pub struct Failover {
    agents: Vec<(&'static str, Process)>,
    etcd: Option<Etcd>,
    /// Below the database servers' state: small enough to be filled.
    disks: Vec<Disk>,
    cluster: Cluster,
    /// Another cluster beside it would take the time that is measured.
    _alone: MutexGuard<'static, ()>,
}

impl Failover {
    /// Starts the cluster, with these further lines in `[database]`, and waits until a replica is in sync.
    ///
    /// # Errors
    /// It does not come up.
    pub fn start(settings: &str) -> Result<Self> {
        Self::start_by(Keeping::Witness, settings)
    }

    /// The same with the lease kept by one or the other.
    ///
    /// # Errors
    /// It does not come up.
    pub fn start_by(keeping: Keeping, settings: &str) -> Result<Self> {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let Ground { cluster, disks } = Ground::prepare(keeping, settings)?;
        let etcd = (keeping == Keeping::Etcd).then(|| Etcd::start(&cluster)).transpose()?;
        let mut failover = Self { agents: Vec::new(), etcd, disks, cluster, _alone: alone };
        for server in SERVERS {
            failover.start_agent(server)?;
        }
        failover.settled("db1")?;
        failover.sql("db1", sql::TABLE)?;
        Ok(failover)
    }

    /// Starts a server's agent, which does not run.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_agent(&mut self, server: &'static str) -> Result<()> {
        self.agents.retain(|(name, _)| *name != server);
        let agent = self.cluster.start(server)?;
        self.agents.push((server, agent));
        Ok(())
    }

    /// The cluster's servers and files.
    #[must_use]
    pub const fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The members of etcd, with the cluster that they run in.
    ///
    /// # Errors
    /// A witness keeps the lease.
    pub fn etcd(&mut self) -> Result<(&mut Etcd, &Cluster)> {
        Ok((self.etcd.as_mut().context("no etcd")?, &self.cluster))
    }

    /// Waits until `leader` leads with another server in sync, and app servers are sent to it.
    ///
    /// # Errors
    /// It does not come to that in time; with what every server says.
    pub fn settled(&self, leader: &str) -> Result<()> {
        let settled = || self.is_settled(leader);
        eventually(READY, &format!("{leader} leads with a replica"), settled).with_context(|| self.told())
    }

    /// Whether `leader` leads with another server in sync, and app servers are sent to it.
    ///
    /// # Errors
    /// The app server's agent tells no services.
    pub fn is_settled(&self, leader: &str) -> Result<bool> {
        let Ok(status) = self.status(leader) else { return Ok(false) };
        let members = status["members"].as_array().cloned().unwrap_or_default();
        let in_sync = members.iter().any(|member| member["in_sync"] == true && member["role"] == "replica");
        let leads = status["leader"] == leader && status["open"] == true && status["held"] == true;
        Ok(leads && in_sync && self.member("db-write")?.as_deref() == Some(leader))
    }

    /// The server that app servers are sent to.
    ///
    /// # Errors
    /// The agent of the app server does not answer.
    pub fn member(&self, service: &str) -> Result<Option<String>> {
        let Ok(report) = self.cluster.json("app1", &["services"]) else { return Ok(None) };
        let services = report["services"].as_array().context("services")?.iter();
        let backends = services.filter(|other| other["name"] == service).flat_map(|found| found["backends"].as_array());
        let member = backends.flatten().find(|backend| backend["member"] == true);
        Ok(member.and_then(|member| member["server"].as_str()).map(str::to_owned))
    }

    /// What a database server's agent says of the cluster.
    ///
    /// # Errors
    /// It does not answer.
    pub fn status(&self, server: &str) -> Result<Value> {
        self.cluster.json(server, &["db", "status"])
    }

    /// Everything that helps to understand why something did not happen.
    #[must_use]
    pub fn told(&self) -> String {
        let tail = |server: &&str| {
            let log = fs::read_to_string(self.cluster.folder().join(format!("{server}.log"))).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let status = self.cluster.ask(server, &["db", "status"]).unwrap_or_else(|error| format!("{error:#}\n"));
            format!("{server}:\n{status}{}\n", lines[lines.len().saturating_sub(25)..].join("\n"))
        };
        ["db1", "db2"].iter().map(tail).collect()
    }

    /// Runs a statement on a server's PostgreSQL over its unix socket, as its owner.
    ///
    /// # Errors
    /// What PostgreSQL says.
    pub fn sql(&self, server: &str, statement: &str) -> Result<String> {
        self.psql(server, &format!("set role guestbook; {statement}"))
    }

    /// Has a server begin another segment of its log.
    ///
    /// # Errors
    /// It cannot: there is no room, or nothing answers any more.
    pub fn switch_log(&self, server: &str) -> Result<()> {
        self.psql(server, "select pg_logical_emit_message(false, 'bed', 'a record'), pg_switch_wal()").map(drop)
    }

    /// Runs a statement on a server's PostgreSQL over its unix socket, as its superuser.
    ///
    /// # Errors
    /// What PostgreSQL says.
    pub fn psql(&self, server: &str, statement: &str) -> Result<String> {
        sql::run(&self.socket(server), statement)
    }

    /// A session there that runs these statements, one after the other.
    #[must_use]
    pub fn session(&self, server: &str, statements: &[&str]) -> Command {
        sql::session(&self.socket(server), statements)
    }

    /// The folder of the unix socket of a server's PostgreSQL.
    #[must_use]
    pub fn socket(&self, server: &str) -> PathBuf {
        self.cluster.folder().join("run").join(server).join("postgres")
    }

    /// Folder of a server's PostgreSQL: its data, and what is kept beside it.
    #[must_use]
    pub fn postgres_folder(&self, server: &str) -> PathBuf {
        self.cluster.folder().join("state").join(server).join("postgres")
    }

    /// Begins to write from the app server.
    ///
    /// # Errors
    /// The writers cannot be started.
    pub fn writers(&self, name: &str) -> Result<Writers> {
        self.writers_with(name, "")
    }

    /// The same, with more of how they log in.
    ///
    /// # Errors
    /// The writers cannot be started.
    pub fn writers_with(&self, name: &str, options: &str) -> Result<Writers> {
        Writers::start(&self.cluster, name, options)
    }

    /// Rows that are there on a server.
    ///
    /// # Errors
    /// It cannot be asked.
    pub fn present(&self, server: &str) -> Result<BTreeSet<(i64, i64)>> {
        sql::present(&self.socket(server))
    }

    /// Fails if something that was acknowledged is not on a server, if a reader has seen what is not there, or if two servers were
    /// written at once.
    ///
    /// # Errors
    /// What is wrong.
    pub fn judge(&self, log: &Acknowledged, server: &str) -> Result<()> {
        let present = self.present(server)?;
        let (lost, unexplained) = (log.lost(&present), log.unexplained(&present));
        let some = |rows: &[(i64, i64)]| format!("{} rows, {:?}", rows.len(), &rows[..rows.len().min(5)]);
        ensure!(lost.is_empty(), "acknowledged and lost: {}", some(&lost));
        ensure!(unexplained.is_empty(), "seen and not there: {}", some(&unexplained));
        ensure!(log.overlaps().is_empty(), "two servers were written at once: {:?}", log.overlaps().first());
        Ok(())
    }

    /// Keeps the leader's log from its replica, both of which live and reach everybody else.
    ///
    /// # Errors
    /// The rule cannot be set.
    pub fn hold_replication(&self, leader: &str, replica: &str) -> Result<()> {
        let rules = format!(
            "add table inet held; add chain inet held wire {{ type filter hook output priority 0; }}; \
             add rule inet held wire ip daddr {} drop",
            address(replica)
        );
        self.cluster.run(leader, "nft", &[&rules]).map(drop)
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// The rule cannot be removed.
    pub fn release_replication(&self, leader: &str) -> Result<()> {
        self.cluster.run(leader, "nft", &["delete", "table", "inet", "held"]).map(drop)
    }

    /// A digest of all rows of a server.
    ///
    /// # Errors
    /// It cannot be asked.
    pub fn digest(&self, server: &str) -> Result<String> {
        let all =
            "select count(*), md5(string_agg(writer || ' ' || number, ',' order by writer, number)) from acknowledged";
        Ok(self.sql(server, all)?.trim().to_owned())
    }

    /// Sends a signal to a server's agent alone.
    ///
    /// # Errors
    /// It does not run.
    pub fn signal_agent(&mut self, server: &str, signal: Signal) -> Result<()> {
        let agent = self.agents.iter_mut().find(|(name, _)| *name == server).context("no agent")?;
        agent.1.signal(signal)
    }

    /// A server dies: its agent and all of its processes, at once.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill_server(&mut self, server: &'static str) -> Result<()> {
        self.signal_agent(server, Signal::SIGKILL)?;
        cgroup::kill(&self.cluster.cgroup(server))?;
        self.agents.retain(|(name, _)| *name != server);
        Ok(())
    }

    /// Whether another server leads by now.
    #[must_use]
    pub fn leader_elsewhere(&self, than: &str) -> bool {
        let others = DATABASES.iter().filter(|server| **server != than);
        others
            .filter_map(|server| self.status(server).ok())
            .any(|status| status["held"] == true && status["leader"] != than)
    }

    /// The server that leads, as another one than `silent` says.
    ///
    /// # Errors
    /// No agent answers.
    pub fn leader(&self) -> Result<&'static str> {
        let of = |server: &&str| self.status(server).ok().filter(|status| status["store_fault"].is_null());
        let status = DATABASES.iter().filter_map(of).next().context("no database server's agent answers")?;
        DATABASES.into_iter().find(|server| status["leader"] == *server).context("nobody leads")
    }

    /// Fills the disk of a server's database.
    ///
    /// # Errors
    /// It cannot be filled.
    pub fn fill_disk(&self, server: &str) -> Result<()> {
        self.disk(server)?.fill()
    }

    /// Makes room there again.
    ///
    /// # Errors
    /// What fills it cannot be removed.
    pub fn empty_disk(&self, server: &str) -> Result<()> {
        self.disk(server)?.empty()
    }

    fn disk(&self, server: &str) -> Result<&Disk> {
        self.disks.iter().find(|disk| disk.server == server).context("no disk of its own")
    }

    /// The cgroup of a server's PostgreSQL.
    #[must_use]
    pub fn postgres_cgroup(&self, server: &str) -> PathBuf {
        self.cluster.cgroup(server).join("postgres")
    }
}

impl Drop for Failover {
    fn drop(&mut self) {
        // What is stopped or frozen does not end in order.
        self.agents.clear();
        for server in DATABASES {
            // Whatever does not die keeps its disk mounted, which the disk's own end tells.
            let _ = fs::write(self.postgres_cgroup(server).join("cgroup.freeze"), "0");
            let _ = cgroup::kill(&self.cluster.cgroup(server));
        }
    }
}

/// The address of a database server.
#[must_use]
pub fn address(server: &str) -> String {
    crate::Host::named(server).map_or_else(String::new, |host| host.v4().to_string())
}

/// Now, in microseconds of the clock that writers log by.
#[must_use]
pub fn now_us() -> i64 {
    (boot_now() / 1_000).cast_signed()
}
