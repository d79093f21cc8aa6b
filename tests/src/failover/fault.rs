//! What can happen to a leader or a replica, and how it is undone.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Failover, Keeping, starve};
use crate::host::SWITCH;
use crate::{cgroup, eventually};

/// How long a fault lasts.
const SOON: Duration = Duration::from_secs(5);
/// And how long at the most.
const LATE: Duration = Duration::from_secs(30);

/// A fault. `leader` and `replica` of the functions below are the servers' parts before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The leader's agent and all of its processes are killed.
    Death,
    /// All processes of the leader's PostgreSQL are killed, again and again, so that it does not come back.
    Crashes,
    /// All processes of the leader's PostgreSQL are stopped, and go on later.
    Stopped,
    /// The cgroup of the leader's PostgreSQL is frozen, and thawed later.
    Frozen,
    /// The leader's whole server is stopped: agent and PostgreSQL.
    StoppedWhole,
    /// The leader's agent is stopped; PostgreSQL goes on.
    AgentStopped,
    /// A busy loop at real-time priority takes the processor of the leader's agent and PostgreSQL.
    Starved,
    /// Nothing comes to the leader any more.
    CutInwards,
    /// Nothing leaves the leader any more.
    CutOutwards,
    /// The leader's cable is pulled.
    Cut,
    /// The disk of the leader's log is full.
    DiskFull,
    /// The witness's agent is killed.
    WitnessGone,
    /// The replica's agent and all of its processes are killed.
    ReplicaGone,
    /// The leader of etcd's members is killed.
    EtcdLeaderGone,
    /// All members of etcd are killed.
    EtcdGone,
    /// First the replica, and when the leader writes alone, the leader.
    BothGone,
}

/// What is to come of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The replica leads.
    Promoted,
    /// The leader leads on, and writes go on.
    Kept,
    /// Whoever leads, writes go on.
    Either,
    /// Nobody leads until the fault is undone.
    Nobody,
}

impl Keeping {
    /// What can happen to it.
    const fn faults(self) -> &'static [Fault] {
        match self {
            Self::Witness => &[Fault::WitnessGone],
            Self::Etcd => &[Fault::EtcdLeaderGone, Fault::EtcdGone],
        }
    }
}

impl Fault {
    /// Every fault of a cluster whose lease is kept so.
    #[must_use]
    pub fn all(keeping: Keeping) -> Vec<Self> {
        let (store, others) = (keeping.faults(), Self::SERVERS.iter());
        store.iter().chain(others).copied().collect()
    }

    const SERVERS: [Self; 13] = [
        Self::Death,
        Self::Crashes,
        Self::Stopped,
        Self::Frozen,
        Self::StoppedWhole,
        Self::AgentStopped,
        Self::Starved,
        Self::CutInwards,
        Self::CutOutwards,
        Self::Cut,
        Self::DiskFull,
        Self::ReplicaGone,
        Self::BothGone,
    ];

    /// How long it lasts where another server is to lead meanwhile, in the whole run: what wakes does so after a while, and later.
    #[must_use]
    pub const fn lasting(self) -> &'static [Duration] {
        match self {
            Self::Stopped | Self::StoppedWhole | Self::Frozen | Self::AgentStopped => &[SOON, LATE],
            Self::Starved => &[starve::LASTING],
            _ => &[SOON],
        }
    }

    /// For how long the leader may go on in spite of it, in milliseconds: with the twentieth of a processor that the kernel keeps from real-time loops, its
    /// agent may renew the lease once more.
    #[must_use]
    pub const fn lingering_ms(self) -> i64 {
        match self {
            Self::Starved => 2_000,
            _ => 0,
        }
    }

    /// What is to come of it.
    #[must_use]
    pub const fn outcome(self) -> Outcome {
        match self {
            Self::WitnessGone | Self::EtcdGone | Self::BothGone => Outcome::Nobody,
            Self::EtcdLeaderGone => Outcome::Either,
            Self::ReplicaGone => Outcome::Kept,
            _ => Outcome::Promoted,
        }
    }

    /// Makes it happen.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn strike(self, failover: &mut Failover, leader: &'static str, replica: &'static str) -> Result<()> {
        match self {
            Self::Death => failover.kill_server(leader),
            Self::Crashes => crash_for(failover, leader, Duration::from_secs(4)),
            Self::Stopped => signal_postgres(failover, leader, Signal::SIGSTOP),
            Self::Frozen => freeze(failover, leader, true),
            Self::StoppedWhole => {
                failover.signal_agent(leader, Signal::SIGSTOP)?;
                signal_postgres(failover, leader, Signal::SIGSTOP)
            }
            Self::AgentStopped => failover.signal_agent(leader, Signal::SIGSTOP),
            Self::Starved => failover.starve(leader),
            Self::CutInwards => rule(failover, leader, "input", "iifname"),
            Self::CutOutwards => rule(failover, leader, "output", "oifname"),
            Self::Cut => link(failover, leader, "down"),
            Self::DiskFull => {
                failover.fill_disk(leader)?;
                // Segments of the log that are used again would last for a while.
                while failover.switch_log(leader).is_ok() {}
                Ok(())
            }
            Self::WitnessGone => failover.kill_server("lb1"),
            Self::EtcdLeaderGone => {
                let (etcd, cluster) = failover.etcd()?;
                etcd.kill_leader(cluster)
            }
            Self::EtcdGone => failover.etcd()?.0.kill_all(),
            Self::ReplicaGone => failover.kill_server(replica),
            Self::BothGone => {
                failover.kill_server(replica)?;
                eventually(Duration::from_secs(30), "the leader writes alone", || {
                    let status = failover.status(leader)?;
                    let members = status["members"].as_array().context("members")?;
                    Ok(status["open"] == true && members.iter().all(|member| member["in_sync"] == false))
                })?;
                failover.kill_server(leader)
            }
        }
    }

    /// Undoes it.
    ///
    /// # Errors
    /// It cannot be undone.
    pub fn mend(self, failover: &mut Failover, leader: &'static str, replica: &'static str) -> Result<()> {
        match self {
            Self::Death => failover.start_agent(leader),
            Self::Crashes => Ok(()),
            Self::Stopped => signal_postgres(failover, leader, Signal::SIGCONT),
            Self::Frozen => freeze(failover, leader, false),
            Self::StoppedWhole => {
                // Worst first: what was written and not sent gets its chance before anybody can look at the lease.
                signal_postgres(failover, leader, Signal::SIGCONT)?;
                failover.signal_agent(leader, Signal::SIGCONT)
            }
            Self::AgentStopped => failover.signal_agent(leader, Signal::SIGCONT),
            Self::Starved => failover.feed(),
            Self::CutInwards | Self::CutOutwards => {
                failover.cluster().run(leader, "nft", &["delete", "table", "inet", "cut"]).map(drop)
            }
            Self::Cut => link(failover, leader, "up"),
            Self::DiskFull => failover.empty_disk(leader),
            Self::WitnessGone => failover.start_agent("lb1"),
            Self::EtcdLeaderGone | Self::EtcdGone => {
                let (etcd, cluster) = failover.etcd()?;
                etcd.start_missing(cluster)
            }
            Self::ReplicaGone => failover.start_agent(replica),
            Self::BothGone => {
                failover.start_agent(replica)?;
                failover.start_agent(leader)
            }
        }
    }
}

fn signal_postgres(failover: &Failover, server: &str, signal: Signal) -> Result<()> {
    for pid in cgroup::processes(&failover.postgres_cgroup(server)) {
        // Gone in between is nothing to signal.
        let _ = kill(Pid::from_raw(pid), signal);
    }
    Ok(())
}

fn crash_for(failover: &Failover, server: &str, time: Duration) -> Result<()> {
    let began = std::time::Instant::now();
    while began.elapsed() < time {
        signal_postgres(failover, server, Signal::SIGKILL)?;
        if failover.leader_elsewhere(server) {
            return Ok(());
        }
        crate::eventually::pause(Duration::from_millis(50), || false);
    }
    Ok(())
}

fn freeze(failover: &Failover, server: &str, frozen: bool) -> Result<()> {
    let path = failover.postgres_cgroup(server).join("cgroup.freeze");
    fs::write(&path, if frozen { "1" } else { "0" }).with_context(|| format!("cannot write {}", path.display()))
}

/// Drops everything that comes or leaves by the server's cable.
fn rule(failover: &Failover, server: &str, hook: &str, by: &str) -> Result<()> {
    let rules = format!(
        "add table inet cut; add chain inet cut wire {{ type filter hook {hook} priority 0; }}; \
         add rule inet cut wire {by} \"eth0\" drop"
    );
    failover.cluster().run(server, "nft", &[&rules]).map(drop)
}

/// The switch's end of its cable.
fn link(failover: &Failover, server: &str, state: &str) -> Result<()> {
    let mut command = Command::new("ip");
    command.args(["link", "set", server, state]);
    failover.cluster().namespace(SWITCH)?.attach(&mut command);
    crate::process::run(&mut command).map(drop)
}
