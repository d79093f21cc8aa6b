//! nginx stream and HAProxy in TCP mode: on the router, with as many threads as there are processors.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::wires::{PORT, ROUTER, WEBS, Wires, inside};
use crate::eventually::eventually;
use crate::probe::{Outcome, connect};
use crate::process::Process;

/// Where both listen.
pub(super) const ADDRESS: Ipv4Addr = ROUTER.outside(2);
/// nginx's port.
pub(super) const NGINX_PORT: u16 = 8082;
/// HAProxy's port.
pub(super) const HAPROXY_PORT: u16 = 8083;

/// A running proxy. Dropping it kills it; its workers go with the run's cgroup.
#[derive(Debug)]
pub(super) struct Proxy {
    _process: Process,
}

impl Proxy {
    /// Starts nginx.
    pub(super) fn nginx(wires: &Wires) -> Result<Self> {
        let package = "libnginx-mod-stream";
        require(STREAM, package)?;
        let folder = folder(wires, "nginx-stream")?;
        let file = folder.join("nginx.conf");
        fs::write(&file, nginx(&folder)).context("cannot write nginx.conf")?;
        let mut command = Command::new(NGINX);
        command.args(["-e", "stderr", "-p"]).arg(&folder).arg("-c").arg(&file);
        Self::start(wires, command, &folder, NGINX_PORT)
    }

    /// Starts HAProxy.
    pub(super) fn haproxy(wires: &Wires) -> Result<Self> {
        require(HAPROXY, "haproxy")?;
        let folder = folder(wires, "haproxy")?;
        let file = folder.join("haproxy.cfg");
        fs::write(&file, haproxy()).context("cannot write haproxy.cfg")?;
        let mut command = Command::new(HAPROXY);
        command.args(["-db", "-q", "-f"]).arg(&file);
        Self::start(wires, command, &folder, HAPROXY_PORT)
    }

    /// Starts it and waits until it lets the client in.
    fn start(wires: &Wires, mut command: Command, folder: &Path, port: u16) -> Result<Self> {
        let log = folder.join("log");
        let output = fs::File::create(&log).context("cannot make a proxy's log")?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let mut process = wires.spawn(ROUTER.name, &mut command)?;
        let address = SocketAddr::from((ADDRESS, port));
        eventually(START, &format!("{} lets the client in", command.get_program().display()), || {
            if let Some(status) = process.ended()? {
                bail!("it ended with {status}: {}", fs::read_to_string(&log).unwrap_or_default().trim());
            }
            Ok(connect(wires.host("client")?, address, KNOCK)? == Outcome::Open)
        })?;
        Ok(Self { _process: process })
    }
}

fn require(file: &str, package: &str) -> Result<()> {
    if !Path::new(file).exists() {
        bail!("{file} is missing: apt-get install --no-install-recommends {package}");
    }
    Ok(())
}

fn folder(wires: &Wires, name: &str) -> Result<std::path::PathBuf> {
    let folder = wires.lab().run().folder().join(name);
    fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

fn nginx(folder: &Path) -> String {
    let servers: String = WEBS.iter().map(|(_, last)| format!("server {}:{PORT};\n", inside(*last))).collect();
    format!(
        "load_module {STREAM};\ndaemon off;\nuser www-data;\nworker_processes {};\nworker_rlimit_nofile 16384;\n\
         pid {}/pid;\nerror_log stderr crit;\nevents {{ worker_connections 8192; }}\n\
         stream {{\nupstream web {{\n{servers}}}\n\
         server {{\nlisten {ADDRESS}:{NGINX_PORT} backlog=4096;\nproxy_pass web;\n}}\n}}\n",
        threads(),
        folder.display()
    )
}

fn haproxy() -> String {
    let servers: String =
        WEBS.iter().map(|(name, last)| format!("  server {name} {}:{PORT}\n", inside(*last))).collect();
    format!(
        "global\n  nbthread {}\n  maxconn 8192\n  user nobody\n  group nogroup\n\
         defaults\n  mode tcp\n  timeout connect 2s\n  timeout client 30s\n  timeout server 30s\n\
         listen web\n  bind {ADDRESS}:{HAPROXY_PORT} backlog 4096\n  balance roundrobin\n{servers}",
        threads()
    )
}

fn threads() -> usize {
    thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

const NGINX: &str = "/usr/sbin/nginx";
const STREAM: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";
const HAPROXY: &str = "/usr/sbin/haproxy";
const START: Duration = Duration::from_secs(10);
const KNOCK: Duration = Duration::from_millis(500);
