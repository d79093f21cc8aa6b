//! Some servers of one network, each with an agent, and a site file of its own.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use tempfile::TempDir;

use crate::host::SWITCH;
use crate::namespace::Namespace;
use crate::passing::Passing;
use crate::process::{Process, run};
use crate::site::Binaries;
use crate::{Network, Silent, bpffs, obtained};

/// The servers, their network and their folder; all of it goes when it is dropped.
#[derive(Debug)]
pub struct Cluster {
    /// At the switch's ends of the cables, for what comes back by `XDP_TX`.
    _passing: Vec<Passing>,
    network: Network,
    folder: TempDir,
}

impl Cluster {
    /// Makes the network and writes the site file, for agents of these servers.
    pub fn new(site: &str, servers: &[&'static str]) -> Result<Self> {
        bpffs::ensure(&Silent)?;
        let network = Network::create(&Silent)?;
        let switch = network.namespace(SWITCH)?;
        let passing = servers.iter().map(|server| Passing::attach(switch, server)).collect::<Result<_>>()?;
        let cluster = Self { _passing: passing, network, folder: tempfile::tempdir()? };
        fs::write(cluster.folder().join("site.toml"), site)?;
        Ok(cluster)
    }

    /// Its folder, with the site file.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The namespace of any host of the network.
    pub fn namespace(&self, host: &str) -> Result<&Namespace> {
        self.network.namespace(host)
    }

    /// Starts a server's agent, which is ended when the returned guard is dropped.
    pub fn start(&self, server: &str) -> Result<Process> {
        let folder = self.folder();
        let mut command = Command::new(Binaries::find()?.foobar);
        command.arg("agent").arg("--site").arg(folder.join("site.toml")).args(["--server", server]);
        command.arg("--run-dir").arg(folder.join("run")).arg("--state-dir").arg(folder.join("state"));
        command.arg("--bpffs").arg(self.network.bpffs()).arg("--cgroup").arg(self.network.cgroup(server));
        let log = fs::OpenOptions::new().create(true).append(true).open(folder.join(format!("{server}.log")))?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.namespace(server)?.attach(&mut command);
        Process::spawn("the agent", &mut command)
    }

    /// What a server's agent answers in JSON.
    pub fn json(&self, server: &str, arguments: &[&str]) -> Result<Value> {
        let mut command = Command::new(Binaries::find()?.foobar);
        command.args(arguments).args(["--server", server, "--json", "--run-dir"]).arg(self.folder().join("run"));
        command.stdin(Stdio::null());
        serde_json::from_str(&run(&mut command)?).context("no JSON")
    }

    /// Waits until a server's agent says that everything of it is ready.
    pub fn ready(&self, server: &str) -> Result<()> {
        let ready = || Ok(self.json(server, &["status"]).ok().filter(|status| status["ready"] == true));
        let log = || fs::read_to_string(self.folder().join(format!("{server}.log"))).unwrap_or_default();
        obtained(READY, &format!("{server} is ready"), ready).with_context(log).map(drop)
    }

    /// Takes a server's firewall, services and VIPs out again.
    pub fn detach(&self, server: &str) -> Result<()> {
        let mut command = Command::new(Binaries::find()?.foobar);
        command.args(["detach", "--server", server, "--run-dir"]).arg(self.folder().join("run"));
        command.arg("--bpffs").arg(self.network.bpffs());
        self.namespace(server)?.attach(&mut command);
        run(&mut command).map(drop)
    }

    /// What a command says in a host's namespace.
    pub fn run(&self, host: &str, program: &str, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(program);
        command.args(arguments);
        self.namespace(host)?.attach(&mut command);
        run(&mut command)
    }
}

const READY: Duration = Duration::from_secs(20);
