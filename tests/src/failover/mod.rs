//! A database cluster of two or three servers with its balancer and a client's server, with writers, faults, and what must hold after them.

mod acknowledged;
mod disk;
pub mod etcd;
mod fault;
mod ground;
mod site;
pub(crate) mod sql;
mod starve;
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
pub(crate) use ground::{Ground, VIP, password_file};
use starve::Starving;
pub use writers::Writers;

/// The servers that run PostgreSQL where there are two of them.
pub const DATABASES: [&str; 2] = ["db1", "db2"];
/// And where there are three.
pub const THREE: [&str; 3] = ["db1", "db2", "db3"];
/// Time that a start of everything may take on a busy machine.
const READY: Duration = Duration::from_secs(180);
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

/// What a cluster is made of.
#[derive(Clone, Copy, Debug)]
pub struct Shape<'a> {
    /// The servers that run PostgreSQL; db1 leads first.
    pub databases: &'static [&'static str],
    /// Who follows whom, but for those that follow the leader.
    pub follows: &'a [(&'a str, &'a str)],
    /// Who keeps the lease.
    pub keeping: Keeping,
    /// Further lines in `[database]`.
    pub settings: &'a str,
}

impl Default for Shape<'_> {
    fn default() -> Self {
        Self { databases: &DATABASES, follows: &[], keeping: Keeping::Witness, settings: "" }
    }
}

impl Shape<'_> {
    /// All of its servers that run agents.
    pub(crate) fn servers(&self) -> Vec<&'static str> {
        [&["lb1", "app1"], self.databases].concat()
    }
}

/// A cluster whose agents run.
#[derive(Debug)]
pub struct Failover {
    databases: &'static [&'static str],
    /// Those of them that follow the leader.
    peers: Vec<&'static str>,
    /// Before the agents, which are to end in order.
    starving: Option<Starving>,
    agents: Vec<(&'static str, Process)>,
    etcd: Option<Etcd>,
    /// Below the database servers' state: small enough to be filled.
    disks: Vec<Disk>,
    cluster: Cluster,
    /// Another cluster beside it would take the time that is measured.
    _alone: MutexGuard<'static, ()>,
}

impl Failover {
    /// Starts two servers, with these further lines in `[database]`, and waits until the replica is in sync.
    ///
    /// # Errors
    /// It does not come up.
    pub fn start(settings: &str) -> Result<Self> {
        Self::start_as(&Shape { settings, ..Shape::default() })
    }

    /// Starts a cluster, and waits until every replica that follows the leader is in sync.
    ///
    /// # Errors
    /// It does not come up.
    pub fn start_as(shape: &Shape<'_>) -> Result<Self> {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let Ground { cluster, disks } = Ground::prepare(shape)?;
        let etcd = (shape.keeping == Keeping::Etcd).then(|| Etcd::start(&cluster)).transpose()?;
        let follows = |server: &&str| shape.follows.iter().any(|(name, _)| name == server);
        let peers = shape.databases.iter().copied().filter(|server| !follows(server)).collect();
        let databases = shape.databases;
        let mut failover =
            Self { databases, peers, starving: None, agents: Vec::new(), etcd, disks, cluster, _alone: alone };
        for server in shape.servers() {
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

    /// Waits until `leader` leads with all others in sync that follow it, and app servers are sent to it.
    ///
    /// # Errors
    /// It does not come to that in time; with what every server says.
    pub fn settled(&self, leader: &str) -> Result<()> {
        self.settled_with(leader, &self.peers_of(leader))
    }

    /// Waits until `leader` leads with exactly these in sync, and app servers are sent to it.
    ///
    /// # Errors
    /// It does not come to that in time; with what every server says.
    pub fn settled_with(&self, leader: &str, others: &[&str]) -> Result<()> {
        let settled = || self.at_rest(leader, others).map(|()| true);
        let what = format!("{leader} leads with {} in sync", others.join(", "));
        eventually(READY, &what, settled).with_context(|| self.told())
    }

    /// Whether `leader` leads with all others in sync that follow it, and app servers are sent to it.
    #[must_use]
    pub fn is_settled(&self, leader: &str) -> bool {
        self.at_rest(leader, &self.peers_of(leader)).is_ok()
    }

    /// Those who follow a leader, where all are well.
    fn peers_of(&self, leader: &str) -> Vec<&str> {
        self.peers.iter().copied().filter(|server| *server != leader).collect()
    }

    fn at_rest(&self, leader: &str, others: &[&str]) -> Result<()> {
        let status = self.status(leader)?;
        let members = status["members"].as_array().context("members")?;
        let in_sync = members.iter().filter(|member| member["in_sync"] == true);
        let runs = in_sync.clone().all(|member| member["role"] == "replica");
        let in_sync: Vec<&str> = in_sync.filter_map(|member| member["server"].as_str()).collect();
        let leads = status["leader"] == leader && status["open"] == true && status["held"] == true;
        let written = self.members("db-write")?;
        ensure!(
            leads && runs && in_sync == others && written == [leader],
            "in sync {in_sync:?}, all running: {runs}, written at {written:?}"
        );
        Ok(())
    }

    /// The servers that app servers are sent to; none where the app server's agent does not answer.
    ///
    /// # Errors
    /// Its answer is none.
    pub fn members(&self, service: &str) -> Result<Vec<String>> {
        let Ok(report) = self.cluster.json("app1", &["services"]) else { return Ok(Vec::new()) };
        let services = report["services"].as_array().context("services")?.iter();
        let backends = services.filter(|other| other["name"] == service).flat_map(|found| found["backends"].as_array());
        let members = backends.flatten().filter(|backend| backend["member"] == true);
        let names: BTreeSet<&str> = members.filter_map(|member| member["server"].as_str()).collect();
        Ok(names.into_iter().map(str::to_owned).collect())
    }

    /// The servers that stream from a server's PostgreSQL.
    ///
    /// # Errors
    /// What PostgreSQL says.
    pub fn streaming(&self, server: &str) -> Result<Vec<String>> {
        let names = "select application_name from pg_stat_replication where state = 'streaming' order by 1";
        Ok(self.psql(server, names)?.lines().map(str::to_owned).collect())
    }

    /// When a server's PostgreSQL was started.
    ///
    /// # Errors
    /// What PostgreSQL says.
    pub fn started(&self, server: &str) -> Result<String> {
        self.psql(server, "select pg_postmaster_start_time()")
    }

    /// Where the log begins that a server keeps in a slot for another one, which does not use it; `None`: the slot holds back old rows,
    /// too.
    ///
    /// # Errors
    /// What PostgreSQL says; there is no such slot, or it is in use.
    pub fn kept_from(&self, server: &str, other: &str) -> Result<Option<u64>> {
        let question = format!(
            "select (restart_lsn - '0/0')::bigint, xmin is not null from pg_replication_slots \
             where slot_name = 'foobar_{other}' and not active"
        );
        let text = self.psql(server, &question)?;
        let (from, rows) = text.trim().split_once('|').context("no slot that is not in use")?;
        let from = from.parse().with_context(|| format!("{from:?} is no position"))?;
        Ok((rows == "f").then_some(from))
    }

    /// Where a leader's log ends.
    ///
    /// # Errors
    /// What PostgreSQL says.
    pub fn end_of_log(&self, leader: &str) -> Result<u64> {
        Ok(self.psql(leader, "select (pg_current_wal_lsn() - '0/0')::bigint")?.trim().parse()?)
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
        self.databases.iter().map(tail).collect()
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

    /// Leaves a server's agent and its PostgreSQL no processor for [`Fault::lasting`].
    ///
    /// # Errors
    /// There is one processor only, or the kernel lets nothing run at real-time priority.
    pub fn starve(&mut self, server: &str) -> Result<()> {
        let of = |mine: bool| {
            let agents = self.agents.iter().filter(|(name, _)| (*name == server) == mine);
            let children = agents.clone().flat_map(|(name, _)| cgroup::processes(&self.cluster.cgroup(name)));
            agents.map(|(_, agent)| agent.pid().as_raw()).chain(children).collect::<Vec<_>>()
        };
        let store = self.etcd.iter().flat_map(Etcd::processes).collect::<Vec<_>>();
        self.starving = Some(Starving::start(|| of(true), || [of(false), store.clone()].concat())?);
        Ok(())
    }

    /// Waits until that is over.
    ///
    /// # Errors
    /// It does not end.
    pub fn feed(&mut self) -> Result<()> {
        self.starving.take().map_or(Ok(()), Starving::end)
    }

    /// Whether another server leads by now.
    #[must_use]
    pub fn leader_elsewhere(&self, than: &str) -> bool {
        let others = self.databases.iter().filter(|server| **server != than);
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
        let newest = |status: &Value| status["epoch"].as_u64();
        let status = self.databases.iter().filter_map(of).max_by_key(newest);
        let status = status.context("no database server's agent answers")?;
        self.databases.iter().copied().find(|server| status["leader"] == *server).context("nobody leads")
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
        self.starving = None;
        // What is stopped or frozen does not end in order.
        self.agents.clear();
        for server in self.databases {
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
