//! foobar as a site has it: agents on the balancer and on both web servers, a service for each way of forwarding.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use super::wires::{FOOBAR, PORT, WEBS, Wires, inside};
use crate::eventually::eventually;
use crate::probe::{Outcome, connect};
use crate::process::Process;
use crate::site::{Binaries, write_pages};

/// The VIP of the `nat` service.
pub(super) const NAT_VIP: Ipv4Addr = FOOBAR.outside(10);
/// The VIP of the `direct` service.
pub(super) const DIRECT_VIP: Ipv4Addr = FOOBAR.outside(11);
/// The VIP of the `tunnel` service; its backends are on the balancer's link, so that no way has more hosts than another one.
pub(super) const TUNNEL_VIP: Ipv4Addr = FOOBAR.outside(12);

/// Running agents. Dropping them ends them.
#[derive(Debug)]
pub(super) struct Ours {
    _agents: Vec<Process>,
}

impl Ours {
    /// Starts the agents, and waits until both web servers answer, and every service.
    pub(super) fn start(wires: &Wires) -> Result<Self> {
        let folder = wires.lab().run().folder().join("site");
        fs::create_dir_all(folder.join("www")).context("cannot make the site's folder")?;
        write_pages(&folder.join("www"))?;
        fs::write(folder.join("site.toml"), site()).context("cannot write site.toml")?;
        let servers = [(SERVER, FOOBAR.name), (WEBS[0].0, WEBS[0].0), (WEBS[1].0, WEBS[1].0)];
        let agents = servers.iter().map(|(server, host)| agent(wires, server, host)).collect::<Result<_>>()?;
        let ours = Self { _agents: agents };
        let webs = WEBS.map(|(_, last)| inside(last));
        for address in webs.into_iter().chain([NAT_VIP, DIRECT_VIP, TUNNEL_VIP]) {
            let address = SocketAddr::from((address, PORT));
            let open = || Ok(connect(wires.host("client")?, address, KNOCK)? == Outcome::Open);
            eventually(START, &format!("{address} lets the client in"), open).with_context(|| logs(wires))?;
        }
        Ok(ours)
    }
}

fn agent(wires: &Wires, server: &str, host: &str) -> Result<Process> {
    let folder = wires.lab().run().folder();
    let mut command = Command::new(Binaries::find()?.foobar);
    command.arg("agent").arg("--site").arg(folder.join("site/site.toml")).args(["--server", server]);
    command.arg("--run-dir").arg(folder.join("run")).arg("--state-dir").arg(folder.join("state"));
    command.arg("--bpffs").arg(wires.lab().pins()?).arg("--cgroup").arg(wires.cgroup().join(server));
    let log = fs::File::create(log(wires, server)).context("cannot make an agent's log")?;
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    crate::cgroup::create(&wires.cgroup().join(server))?;
    wires.spawn(host, &mut command)
}

fn log(wires: &Wires, server: &str) -> PathBuf {
    wires.lab().run().folder().join(format!("{server}.log"))
}

fn logs(wires: &Wires) -> String {
    let told = [SERVER, WEBS[0].0, WEBS[1].0].map(|server| fs::read_to_string(log(wires, server)).unwrap_or_default());
    told.concat()
}

fn site() -> String {
    let mut text = "[site]\ndomain = \"www.foobar.com\"\nadmin = [\"10.0.1.41/32\"]\n\n".to_owned();
    let mut server = |name: &str, role: &str, last: u8, interfaces: &str| {
        text += &format!(
            "[[server]]\nname = \"{name}\"\nrole = \"{role}\"\naddress = \"{}\"\ninterfaces = {interfaces}\n\n",
            inside(last)
        );
    };
    server(SERVER, "balancer", FOOBAR.inside, r#"["eth0", "eth1"]"#);
    for (web, last) in WEBS {
        server(web, "web", last, r#"["eth0"]"#);
    }
    for (forward, vip) in [("nat", NAT_VIP), ("direct", DIRECT_VIP), ("tunnel", TUNNEL_VIP)] {
        text += &format!(
            "[service.{forward}-www]\nlisten = \"{vip}:{PORT}\"\nto = \"web:{PORT}\"\nforward = \"{forward}\"\n\
             check = {{ fall = 10 }}\n\n"
        );
    }
    // The client and the balancers beside ours come in to the web servers as everybody may.
    text += &format!(
        "[[rule]]\nname = \"bench\"\non = [\"web1\", \"web2\"]\nfrom = [\"any\"]\nprotocol = \"tcp\"\nports = \
         [\"{PORT}\"]\naction = \"allow\"\n\n"
    );
    text + "[process.nginx]\non = [\"web\"]\nkind = \"nginx\"\nroot = \"www\"\n"
}

/// The balancer's name in the site file.
const SERVER: &str = "lb1";
const START: Duration = Duration::from_secs(30);
const KNOCK: Duration = Duration::from_millis(500);
