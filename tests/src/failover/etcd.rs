//! An etcd cluster of three members on one host, over TLS by the site's certificates.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use foobar_user::plan::Endpoint;
use nix::sys::signal::Signal;
use serde_json::Value;

use super::disk::Disk;
use crate::cluster::Cluster;
use crate::process::Process;
use crate::{Host, eventually};

/// The host of all members, unless another one is named.
pub const HOST: &str = "monitor";
const MEMBERS: [&str; 3] = ["m0", "m1", "m2"];
/// Time that a start may take on a busy machine.
const READY: Duration = Duration::from_secs(60);

/// The members that run. Dropping them kills them.
#[derive(Debug)]
pub struct Etcd {
    host: &'static str,
    members: Vec<(&'static str, Process)>,
    /// Below it lie the certificates.
    folder: PathBuf,
    disk: PathBuf,
    _disk: Disk,
}

impl Etcd {
    /// Starts all members, with the certificate of [`HOST`] in the cluster's folder.
    ///
    /// # Errors
    /// They do not come up.
    pub fn start(cluster: &Cluster) -> Result<Self> {
        Self::start_on(cluster, HOST)
    }

    /// The same on another host.
    ///
    /// # Errors
    /// They do not come up.
    pub fn start_on(cluster: &Cluster, host: &'static str) -> Result<Self> {
        let folder = cluster.folder().to_owned();
        let disk = folder.join("etcd");
        let mut etcd = Self { host, members: Vec::new(), _disk: Disk::mount(host, &disk)?, folder, disk };
        etcd.start_missing(cluster)?;
        Ok(etcd)
    }

    /// Starts members that do not run, on what they have kept, and waits until all are healthy.
    ///
    /// # Errors
    /// They do not come up.
    pub fn start_missing(&mut self, cluster: &Cluster) -> Result<()> {
        for name in MEMBERS {
            if !self.members.iter().any(|(running, _)| *running == name) {
                let member = Process::spawn("etcd", &mut self.member(cluster, name)?)?;
                self.members.push((name, member));
            }
        }
        eventually(READY, "every member of etcd is healthy", || Ok(self.ask(cluster, &["endpoint", "health"]).is_ok()))
            .with_context(|| fs::read_to_string(self.disk.join("m0.log")).unwrap_or_default())
    }

    /// Kills the member that leads the others.
    ///
    /// # Errors
    /// Nobody leads.
    pub fn kill_leader(&mut self, cluster: &Cluster) -> Result<()> {
        let status: Value = serde_json::from_str(&self.ask(cluster, &["endpoint", "status", "-w", "json"])?)?;
        let leads = |member: &&Value| member["Status"]["leader"] == member["Status"]["header"]["member_id"];
        let leader = status.as_array().and_then(|members| members.iter().find(leads)).context("nobody leads etcd")?;
        let at = leader["Endpoint"].clone();
        let name = MEMBERS.into_iter().find(|name| at == self.client_url(name)).context("a member")?;
        self.kill(|other| other == name)
    }

    /// Kills every member.
    ///
    /// # Errors
    /// One cannot be killed.
    pub fn kill_all(&mut self) -> Result<()> {
        self.kill(|_| true)
    }

    /// Stops the member that answers at this place in the order of endpoints, as a machine that hangs would.
    ///
    /// # Errors
    /// It does not run.
    pub fn signal(&mut self, index: usize, signal: Signal) -> Result<()> {
        let member = self.members.iter_mut().find(|(name, _)| *name == MEMBERS[index]).context("no such member")?;
        member.1.signal(signal)
    }

    /// The processes that run.
    pub(super) fn processes(&self) -> impl Iterator<Item = i32> + '_ {
        self.members.iter().map(|(_, member)| member.pid().as_raw())
    }

    fn kill(&mut self, which: impl Fn(&str) -> bool) -> Result<()> {
        for (_, member) in self.members.iter_mut().filter(|(name, _)| which(name)) {
            member.signal(Signal::SIGKILL)?;
            member.wait(READY)?;
        }
        self.members.retain(|(name, _)| !which(name));
        Ok(())
    }

    fn member(&self, cluster: &Cluster, name: &str) -> Result<Command> {
        let (client, peer) = (self.client_url(name), self.peer_url(name));
        let all = MEMBERS.map(|name| format!("{name}={}", self.peer_url(name))).join(",");
        let [ca, certificate, key] = self.tls();
        let mut command = Command::new("etcd");
        command.args(["--name", name, "--data-dir"]).arg(self.disk.join(name));
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &all, "--client-cert-auth", "--peer-client-cert-auth", "--logger", "zap"]);
        for (option, file) in [("trusted-ca-file", &ca), ("cert-file", &certificate), ("key-file", &key)] {
            command.arg(format!("--{option}")).arg(file).arg(format!("--peer-{option}")).arg(file);
        }
        // An election must be over before a lease is: as the README asks for.
        command.args(["--heartbeat-interval", "100", "--election-timeout", "500", "--auto-compaction-retention", "1"]);
        let log = fs::OpenOptions::new().create(true).append(true).open(self.disk.join(format!("{name}.log")))?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        cluster.namespace(self.host)?.attach(&mut command);
        Ok(command)
    }

    fn ask(&self, cluster: &Cluster, question: &[&str]) -> Result<String> {
        let [ca, certificate, key] = self.tls().map(|file| file.to_string_lossy().into_owned());
        let endpoints = MEMBERS.map(|name| self.client_url(name)).join(",");
        let with = ["--endpoints", &endpoints, "--cacert", &ca, "--cert", &certificate, "--key", &key];
        cluster.run(self.host, "etcdctl", &[&with[..], question].concat())
    }

    /// The CA, and the host's certificate with its key.
    fn tls(&self) -> [PathBuf; 3] {
        let pki = self.folder.join("pki");
        [pki.join("ca.pem"), pki.join(format!("{}.pem", self.host)), pki.join(format!("{}.key", self.host))]
    }

    fn client_url(&self, name: &str) -> String {
        endpoint(self.host, name, 2379).to_string()
    }

    fn peer_url(&self, name: &str) -> String {
        endpoint(self.host, name, 2380).to_string()
    }
}

/// Where clients reach the members on [`HOST`], in the order in which the site file names them.
#[must_use]
pub fn members() -> Vec<Endpoint> {
    members_on(HOST)
}

/// The same on another host.
#[must_use]
pub fn members_on(host: &str) -> Vec<Endpoint> {
    MEMBERS.map(|name| endpoint(host, name, 2379)).to_vec()
}

fn endpoint(host: &str, name: &str, base: u16) -> Endpoint {
    let index = MEMBERS.iter().zip(0..).find(|(member, _)| **member == name).map_or(0, |(_, index)| index);
    let host = Host::named(host).map_or_else(String::new, |host| host.v4().to_string());
    Endpoint { tls: true, host, port: base + 100 * index }
}
