//! HAProxy before Patroni's databases, as Patroni's own documentation has it, but checking as often as our services do.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::settings::API;
use crate::cluster::Cluster;
use crate::eventually;
use crate::failover::{DATABASES, address};
use crate::probe::{Outcome, connect};
use crate::process::Process;

/// Starts it on the balancer, and waits until it lets writers in at `vip`.
pub(super) fn start(cluster: &Cluster, vip: Ipv4Addr) -> Result<Process> {
    if !Path::new(PROGRAM).exists() {
        bail!("{PROGRAM} is missing: apt-get install --no-install-recommends haproxy");
    }
    cluster.run(HOST, "ip", &["address", "add", &format!("{vip}/32"), "dev", "lo"])?;
    let folder = cluster.folder().join("haproxy");
    fs::create_dir(&folder).context("cannot make HAProxy's folder")?;
    let (file, said) = (folder.join("haproxy.cfg"), folder.join("log"));
    fs::write(&file, configuration(vip)).context("cannot write haproxy.cfg")?;
    let log = fs::File::create(&said).context("cannot make HAProxy's log")?;
    let mut command = Command::new(PROGRAM);
    command.args(["-db", "-q", "-f"]).arg(&file).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    cluster.place(HOST, "haproxy", &mut command)?;
    let mut process = Process::spawn("HAProxy", &mut command)?;
    eventually(START, "HAProxy lets writers in", || {
        if let Some(status) = process.ended()? {
            bail!("it ended with {status}: {}", fs::read_to_string(&said).unwrap_or_default().trim());
        }
        Ok(connect(cluster.namespace("app1")?, SocketAddr::from((vip, PORT)), KNOCK)? == Outcome::Open)
    })?;
    Ok(process)
}

fn configuration(vip: Ipv4Addr) -> String {
    let servers: String = DATABASES
        .iter()
        .map(|server| format!("  server {server} {}:{PORT} maxconn 100 check port {API}\n", address(server)))
        .collect();
    format!(
        "global\n  maxconn 1000\n  user nobody\n  group nogroup\n\
         defaults\n  mode tcp\n  retries 2\n  timeout connect 1s\n  timeout client 30m\n  timeout server 30m\n\
         \x20 timeout check 1s\n\
         listen primary\n  bind {vip}:{PORT}\n  option httpchk OPTIONS /primary\n  http-check expect status 200\n\
         \x20 default-server inter 200ms fall 2 rise 1 on-marked-down shutdown-sessions\n{servers}"
    )
}

/// Where our witness is, and the lease's store.
pub(super) const HOST: &str = "lb1";
const PROGRAM: &str = "/usr/sbin/haproxy";
const PORT: u16 = 5432;
const START: Duration = Duration::from_secs(30);
const KNOCK: Duration = Duration::from_millis(500);
