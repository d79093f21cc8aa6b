//! A server alone: an agent in a namespace of the bed's network, with a site file of its own.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::flood::{Flood, Kind, Shape, mac};
use crate::host::{Host, SWITCH};
use crate::metrics::Samples;
use crate::namespace::Namespace;
use crate::passing::Passing;
use crate::probe::{Outcome, connect};
use crate::process::{Process, output, run};
use crate::site::Binaries;
use crate::{Network, Silent, bpffs, eventually};

/// A site of one monitor: nothing to run but the firewall.
pub const SITE: &str = r#"[site]
domain = "www.foobar.com"
admin = ["10.0.1.1/32"]

[[server]]
name = "monitor"
role = "monitor"
address = "10.0.1.41"
interfaces = ["eth0"]
"#;

/// The server `monitor`, its network and its folder; all of it goes when it is dropped.
#[derive(Debug)]
pub struct LoneServer {
    /// At the switch's end of its cable.
    _passing: Passing,
    network: Network,
    folder: TempDir,
}

impl LoneServer {
    /// Makes the network and writes the site file.
    pub fn new(site: &str) -> Result<Self> {
        bpffs::ensure(&Silent)?;
        let network = Network::create(&Silent)?;
        let passing = Passing::attach(network.namespace(SWITCH)?, "monitor")?;
        let server = Self { _passing: passing, network, folder: tempfile::tempdir()? };
        fs::write(server.folder.path().join("site.toml"), site)?;
        Ok(server)
    }

    /// Its folder, with the site file.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The run's folder in bpffs.
    pub fn bpffs(&self) -> &Path {
        self.network.bpffs()
    }

    /// Its namespace.
    pub fn namespace(&self) -> Result<&Namespace> {
        self.network.namespace("monitor")
    }

    /// What its agent exports.
    pub fn metrics(&self) -> Result<Samples> {
        Samples::scrape(self.namespace()?, "monitor")
    }

    /// Starts a flood from the neighbour to a port of the server: `packets` at the most, `rate` a second.
    pub fn flood(&self, kind: Kind, port: u16, packets: u64, rate: u64) -> Result<Flood> {
        let to = (Host::named("monitor").context("a host")?.v4(), port);
        let macs = [mac(self.namespace()?, "eth0")?, mac(self.neighbour()?, "eth0")?];
        Flood::start(self.neighbour()?, Shape { kind, to, macs, packets, rate, first: 0 })
    }

    /// The namespace of another server of the same network, which has no agent.
    pub fn neighbour(&self) -> Result<&Namespace> {
        self.network.namespace("web1")
    }

    /// The namespace of any host of its network.
    pub fn other(&self, name: &str) -> Result<&Namespace> {
        self.network.namespace(name)
    }

    /// Takes the firewall out again: the server is as before its first start.
    pub fn detach(&self) -> Result<()> {
        let mut command = self.command(&["detach"])?;
        command.arg("--bpffs").arg(self.bpffs());
        self.namespace()?.attach(&mut command);
        run(&mut command)?;
        self.untouched()
    }

    /// Where its agent pins.
    pub fn pins(&self) -> PathBuf {
        self.bpffs().join("foobar/monitor")
    }

    /// The folder of its pinned state maps.
    pub fn state(&self) -> Result<PathBuf> {
        let entries = fs::read_dir(self.pins())?.collect::<std::io::Result<Vec<_>>>()?;
        let state = entries.into_iter().find(|entry| entry.file_name().to_string_lossy().starts_with("abi"));
        Ok(state.context("no state maps are pinned")?.path())
    }

    /// Names of the pinned links.
    pub fn links(&self) -> Result<Vec<String>> {
        match fs::read_dir(self.pins().join("links")) {
            Ok(entries) => entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error).context("cannot list the pinned links"),
        }
    }

    fn agent(&self, bpffs: &Path) -> Result<Command> {
        let folder = self.folder.path();
        let mut command = Command::new(Binaries::find()?.foobar);
        command.arg("agent").arg("--site").arg(folder.join("site.toml")).args(["--server", "monitor"]);
        command.arg("--run-dir").arg(folder.join("run")).arg("--state-dir").arg(folder.join("state"));
        command.arg("--bpffs").arg(bpffs).arg("--cgroup").arg(self.network.cgroup("monitor"));
        Ok(command)
    }

    /// Starts the agent, which is ended when the returned guard is dropped.
    pub fn start(&self) -> Result<Process> {
        let mut command = self.agent(self.bpffs())?;
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log())?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.namespace()?.attach(&mut command);
        Process::spawn("the agent", &mut command)
    }

    /// Starts the agent, which must end by itself, and returns what it said.
    pub fn refused(&self, bpffs: &Path) -> Result<String> {
        let command = self.agent(bpffs)?;
        // An agent that starts after all is stopped, and then its exit code is another one.
        let mut limited = Command::new("timeout");
        limited.arg(START_TIMEOUT.as_secs().to_string()).arg(command.get_program()).args(command.get_args());
        self.namespace()?.attach(&mut limited);
        let Output { status, stderr, .. } = output(&mut limited)?;
        let said = String::from_utf8_lossy(&stderr).into_owned();
        ensure!(status.code() == Some(1), "it ended with {status}:\n{said}");
        Ok(said)
    }

    /// `foobar` with these arguments, against this server's agent, for an admin who came by no ssh.
    pub fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(Binaries::find()?.foobar);
        command.args(arguments).args(["--server", "monitor", "--run-dir"]).arg(self.folder().join("run"));
        command.env_remove("SSH_CONNECTION").stdin(Stdio::null());
        Ok(command)
    }

    /// What `foobar` with these arguments says; an error when it fails.
    pub fn ask(&self, arguments: &[&str]) -> Result<String> {
        run(&mut self.command(arguments)?)
    }

    /// Why `foobar` with these arguments fails.
    pub fn refusal(&self, arguments: &[&str]) -> Result<String> {
        let Output { status, stdout, stderr } = output(&mut self.command(arguments)?)?;
        let said = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        ensure!(!status.success(), "it was not refused: {said}");
        Ok(said)
    }

    /// What `foobar` with these arguments says in JSON.
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        serde_json::from_str(&self.ask(arguments)?).context("no JSON")
    }

    /// Starts the agent, and waits until it answers.
    pub fn running(&self) -> Result<Process> {
        let agent = self.start()?;
        let answers = || Ok(self.json(&["status", "--json"])?["generation"].is_u64());
        eventually(START_TIMEOUT, "the agent answers", answers)
            .with_context(|| fs::read_to_string(self.log()).unwrap_or_default())?;
        Ok(agent)
    }

    /// What the agents say.
    fn log(&self) -> PathBuf {
        self.folder().join("agent.log")
    }

    /// Writes another site file.
    pub fn write_site(&self, text: &str) -> Result<()> {
        Ok(fs::write(self.folder().join("site.toml"), text)?)
    }

    /// How a connection attempt from another server of the network ends.
    pub fn knock(&self, from: &str, port: u16) -> Result<Outcome> {
        connect(self.network.namespace(from)?, SocketAddr::from(([10, 0, 1, 41], port)), KNOCK_TIMEOUT)
    }

    /// Starts a program in its namespace, and in a cgroup below its own, as a process of the agent would be.
    pub fn host(&self, name: &str, command: &mut Command) -> Result<Process> {
        self.network.place("monitor", name, command)?;
        Process::spawn(name, command)
    }

    /// Nothing is attached and nothing pinned.
    pub fn untouched(&self) -> Result<()> {
        let links = self.links()?;
        ensure!(links.is_empty(), "links are pinned: {links:?}");
        Ok(())
    }
}

const START_TIMEOUT: Duration = Duration::from_secs(20);
const KNOCK_TIMEOUT: Duration = Duration::from_millis(300);
