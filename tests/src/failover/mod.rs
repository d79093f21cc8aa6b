//! A database cluster of two servers with its balancer and a client's server, with writers, faults, and what must hold after them.

mod acknowledged;
mod disk;
pub mod etcd;
mod fault;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use foobar_user::datapath::fence::boot_now;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::cluster::{Cluster, server};
use crate::process::{Process, run};
use crate::site::Binaries;
use crate::{cgroup, eventually, obtained};

pub use acknowledged::{Acknowledged, Row};
use disk::Disk;
use etcd::Etcd;
pub use fault::{Fault, Outcome};

/// The servers that run PostgreSQL.
pub const DATABASES: [&str; 2] = ["db1", "db2"];
/// Time that a start of everything may take on a busy machine.
const READY: Duration = Duration::from_secs(90);
/// One cluster at a time in a process.
static ALONE: Mutex<()> = Mutex::new(());
const PASSWORD: &str = "a secret of the bed\n";

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

/// Writers at work. Dropping them ends them.
#[derive(Debug)]
pub struct Writers {
    process: Process,
    log: PathBuf,
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
        own_mounts()?;
        let servers = ["lb1", "db1", "db2", "app1"];
        let cluster = Cluster::new(&site(keeping, settings)?, &servers)?;
        let folder = cluster.folder();
        // PostgreSQL's own account walks through it.
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
        fs::create_dir_all(folder.join("secrets"))?;
        for name in ["guestbook", "replication"] {
            fs::write(folder.join(format!("secrets/{name}.password")), PASSWORD)?;
        }
        run(Command::new(Binaries::find()?.foobar).args(["pki", "--site"]).arg(folder.join("site.toml")))?;
        let disks = DATABASES.iter().map(|server| Disk::mount(server, &folder.join("state").join(server)));
        let disks = disks.collect::<Result<_>>()?;
        let etcd = (keeping == Keeping::Etcd).then(|| Etcd::start(&cluster)).transpose()?;
        let mut failover = Self { agents: Vec::new(), etcd, disks, cluster, _alone: alone };
        for server in servers {
            failover.start_agent(server)?;
        }
        failover.settled("db1")?;
        failover
            .sql("db1", "create table acknowledged (writer bigint, number bigint, primary key (writer, number))")?;
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
        let settled = || {
            let Ok(status) = self.status(leader) else { return Ok(false) };
            let members = status["members"].as_array().cloned().unwrap_or_default();
            let in_sync = members.iter().any(|member| member["in_sync"] == true && member["role"] == "replica");
            let leads = status["leader"] == leader && status["open"] == true && status["held"] == true;
            Ok(leads && in_sync && self.member("db-write")?.as_deref() == Some(leader))
        };
        eventually(READY, &format!("{leader} leads with a replica"), settled).with_context(|| self.told())
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

    fn psql(&self, server: &str, statement: &str) -> Result<String> {
        let mut psql = Command::new("/usr/lib/postgresql/15/bin/psql");
        let socket = self.cluster.folder().join("run").join(server).join("postgres");
        psql.args(["-qAtX", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", "guestbook", "-h"]).arg(socket);
        psql.args(["-c", statement]);
        run(&mut psql)
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
        let log = self.cluster.folder().join(format!("{name}.acknowledged"));
        fs::write(&log, "")?;
        let mut command = Command::new(Binaries::find()?.writer);
        let to = format!("host=10.0.9.20 dbname=guestbook user=guestbook {options}");
        command.args(["--to", &to, "--log"]).arg(&log);
        command.arg("--password-file").arg(self.cluster.folder().join("secrets/guestbook.password"));
        self.cluster.place("app1", "writers", command.stdin(Stdio::piped()))?;
        Ok(Writers { process: Process::spawn("the writers", &mut command)?, log })
    }

    /// Rows that are there on a server.
    ///
    /// # Errors
    /// It cannot be asked.
    pub fn present(&self, server: &str) -> Result<BTreeSet<(i64, i64)>> {
        let text = self.sql(server, "select writer, number from acknowledged")?;
        let row = |line: &str| {
            let (writer, number) = line.split_once('|').context("no row")?;
            Ok((writer.parse()?, number.parse()?))
        };
        text.lines().map(row).collect()
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

impl Writers {
    /// Waits until so many rows more were acknowledged.
    ///
    /// # Errors
    /// They are not in time.
    pub fn written(&self, more: usize, deadline: Duration) -> Result<()> {
        let before = self.so_far()?.rows.len();
        eventually(deadline, "rows are written", || Ok(self.so_far()?.rows.len() >= before + more))
    }

    /// Waits until another server than the one at `address` has acknowledged a row after `at`; the time that it took.
    ///
    /// # Errors
    /// None does in time.
    pub fn taken_over(&self, at: i64, address: &str, deadline: Duration) -> Result<i64> {
        obtained(deadline, "another server takes writes", || Ok(self.so_far()?.recovered_ms(at, address)))
    }

    /// What was acknowledged until now.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn so_far(&self) -> Result<Acknowledged> {
        Acknowledged::read(&self.log)
    }

    /// Ends them; what was acknowledged.
    ///
    /// # Errors
    /// They do not end.
    pub fn end(mut self) -> Result<Acknowledged> {
        self.process.signal(Signal::SIGKILL)?;
        self.process.wait(Duration::from_secs(10))?;
        let log = self.so_far()?;
        ensure!(!log.rows.is_empty(), "nothing was acknowledged: {:?}", log.faults.last());
        Ok(log)
    }
}

/// Gives this thread, and all that it starts, mounts of their own: they go with the last of them, however that ends.
fn own_mounts() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("cannot have mounts of our own")?;
    let all = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, all, None::<&str>).context("cannot keep our mounts to ourselves")
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
            "[service.db-write]\nlisten = \"10.0.9.20:5432\"\nto = \"database:5432\"\nselect = \"primary\"\nfrom = [\"app\"]\n\
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
