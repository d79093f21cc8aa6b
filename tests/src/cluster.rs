//! Some servers of one network, each with an agent, and a site file of its own.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use foobar_user::datapath::fence::Fence;
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::host::{Host, SWITCH};
use crate::metrics::Samples;
use crate::namespace::Namespace;
use crate::passing::Passing;
use crate::process::{Process, run};
use crate::site::Binaries;
use crate::{Network, Silent, agent, bpffs, eventually, obtained};

/// A server's section of a site file: the host of this name, in a role, with these interfaces.
pub fn server(name: &str, role: &str, interfaces: &[&str]) -> Result<String> {
    let host = Host::named(name).with_context(|| format!("{name} is no host"))?;
    let (v4, v6) = (host.v4(), host.v6());
    Ok(format!(
        "[[server]]\nname = \"{name}\"\nrole = \"{role}\"\naddress = \"{v4}\"\naddress6 = \"{v6}\"\n\
         interfaces = {interfaces:?}\n\n"
    ))
}

/// A service's section: a port of a VIP of each family, to the same one of the web servers; with these further lines.
pub fn service(name: &str, protocol: &str, vips: [&str; 2], port: u16, more: &str) -> String {
    format!(
        "[service.{name}]\nlisten = [\"{}:{port}\", \"[{}]:{port}\"]\nprotocol = \"{protocol}\"\nto = \
         \"web:{port}\"\n{more}\n\n",
        vips[0], vips[1]
    )
}

/// The echo service's section: it runs on every web server, on all addresses.
pub fn echo(port: u16) -> Result<String> {
    let echo = Binaries::find()?.echo;
    // The folder that cargo builds in may be closed to everybody else.
    Ok(format!(
        "[process.echo]\non = [\"web\"]\nuser = \"root\"\ncommand = [{echo:?}, \"--listen\", \"[::]:{port}\", \
         \"--server\", \"{{server}}\"]\n\n"
    ))
}

/// New connections by server.
pub type Given = BTreeMap<String, u64>;

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

    /// Where a server's agent pins.
    pub fn pins(&self, server: &str) -> PathBuf {
        self.network.bpffs().join("foobar").join(server)
    }

    /// When a server's fence goes up, or went, in nanoseconds of the boot-time clock; `None`: it has none.
    pub fn fence_end(&self, server: &str) -> Result<Option<u64>> {
        Ok(Fence::adopt(self.network.bpffs(), server)?.map(|fence| fence.end()))
    }

    /// The namespace of any host of the network.
    pub fn namespace(&self, host: &str) -> Result<&Namespace> {
        self.network.namespace(host)
    }

    /// Starts a server's agent, which is ended when the returned guard is dropped.
    pub fn start(&self, server: &str) -> Result<Process> {
        self.start_with(server, &[])
    }

    /// The same with more options.
    pub fn start_with(&self, server: &str, options: &[&str]) -> Result<Process> {
        let folder = self.folder();
        let mut command = Command::new(Binaries::find()?.foobar);
        command.arg("agent").args(options).arg("--site").arg(folder.join("site.toml")).args(["--server", server]);
        command.arg("--run-dir").arg(folder.join("run")).arg("--state-dir").arg(folder.join("state"));
        command.arg("--bpffs").arg(self.network.bpffs()).arg("--cgroup").arg(self.network.cgroup(server));
        let log = fs::OpenOptions::new().create(true).append(true).open(folder.join(format!("{server}.log")))?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.namespace(server)?.attach(&mut command);
        Process::spawn("the agent", &mut command)
    }

    /// Makes `command` start on a server as a process of its agent would: in its namespace, and in a cgroup below its own.
    pub fn place(&self, server: &str, group: &str, command: &mut Command) -> Result<()> {
        self.network.place(server, group, command)
    }

    /// What a server's agent exports.
    pub fn metrics(&self, server: &str) -> Result<Samples> {
        Samples::scrape(self.namespace(server)?, server)
    }

    /// Packets of which a server's packet path has said this.
    pub fn verdicts(&self, server: &str, verdict: &str, reason: &str) -> Result<f64> {
        Ok(self.metrics(server)?.sum("foobar_verdict_packets_total", &[("verdict", verdict), ("reason", reason)]))
    }

    /// What a server's agent answers.
    pub fn ask(&self, server: &str, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(Binaries::find()?.foobar);
        command.args(arguments).args(["--server", server, "--run-dir"]).arg(self.folder().join("run"));
        command.env_remove("SSH_CONNECTION").stdin(Stdio::null());
        run(&mut command)
    }

    /// What a server's agent answers in JSON.
    pub fn json(&self, server: &str, arguments: &[&str]) -> Result<Value> {
        serde_json::from_str(&self.ask(server, &[arguments, &["--json"]].concat())?).context("no JSON")
    }

    /// Waits until every backend of a server's services is a member.
    pub fn settled(&self, server: &str) -> Result<()> {
        eventually(READY, "every backend is a member", || {
            let report = self.json(server, &["services"])?;
            let services = report["services"].as_array().context("services")?;
            let mut backends = services.iter().flat_map(|service| service["backends"].as_array().into_iter().flatten());
            let out = backends.find(|backend| backend["member"] != true);
            ensure!(out.is_none(), "{out:?}");
            Ok(true)
        })
    }

    /// New connections that a service of a server has given to each of its backends.
    pub fn given(&self, server: &str, service: &str) -> Result<Given> {
        let report = self.json(server, &["services"])?;
        let mut services = report["services"].as_array().context("services")?.iter();
        let found = services.find(|other| other["name"] == service).context("the service")?;
        let mut given = Given::new();
        for backend in found["backends"].as_array().context("backends")? {
            let name = backend["server"].as_str().context("a name")?.to_owned();
            *given.entry(name).or_default() += backend["connections"].as_u64().context("a number")?;
        }
        Ok(given)
    }

    /// What a service of a server gives to its backends during `work`.
    pub fn given_by(&self, server: &str, service: &str, work: impl FnOnce() -> Result<()>) -> Result<Given> {
        let before = self.given(server, service)?;
        work()?;
        let after = self.given(server, service)?;
        Ok(after.iter().map(|(name, count)| (name.clone(), count - before[name])).collect())
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

    /// Ends the agent of a backend that holds VIPs, and sees that what it needed for them is taken back.
    pub fn takes_back(&self, server: &str, mut agent: Process, vips: [&str; 2]) -> Result<()> {
        let held = || self.run(server, "ip", &["addr", "show", "lo"]);
        ensure!(vips.iter().all(|vip| held().is_ok_and(|held| held.contains(vip))), "{server} holds no VIP");
        agent.signal(Signal::SIGTERM)?;
        agent.wait(READY)?;
        self.detach(server)?;
        let left = held()?;
        ensure!(!vips.iter().any(|vip| left.contains(vip)), "{server} still holds a VIP: {left}");
        let ignores = self.run(server, "cat", &["/proc/sys/net/ipv4/conf/all/arp_ignore"])?;
        ensure!(ignores.trim() == "0", "arp_ignore is {ignores}");
        ensure!(!self.pins(server).exists(), "pins of {server} are left");
        Ok(())
    }

    /// What a command says in a host's namespace.
    pub fn run(&self, host: &str, program: &str, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(program);
        command.args(arguments);
        self.namespace(host)?.attach(&mut command);
        run(&mut command)
    }

    /// The cgroup of a server's agent's processes.
    pub fn cgroup(&self, server: &str) -> PathBuf {
        self.network.cgroup(server)
    }

    /// Kills the child `process` of a server's agent, as a crash would.
    pub fn kill_process(&self, server: &str, process: &str) -> Result<()> {
        agent::kill_child(&self.network.cgroup(server), process)
    }

    /// Starts a command as a process of a host: what the hooks of its agent do for local sockets, they do for it.
    pub fn spawn(&self, host: &str, command: &mut Command) -> Result<Process> {
        let name = command.get_program().to_string_lossy().into_owned();
        self.network.place(host, "guest", command.stdin(Stdio::null()))?;
        Process::spawn(&name, command)
    }
}

/// A busy machine takes its time to check the programs.
const READY: Duration = Duration::from_secs(60);
