//! The hosts and cables of the wire part: alike for everybody who balances.
//!
//! ```text
//!             203.0.113.0/24 ┌─ foobar  10.0.1.1 ─┐
//!   client ───198.51.100.0/24┼─ router  10.0.1.2 ─┼─ switch ─┬─ web1 10.0.1.11
//!        │    192.0.2.0/24   └─ dnat    10.0.1.3 ─┘          └─ web2 10.0.1.12
//!        └─ 10.0.1.50: answers of `direct` and `tunnel` ───────┘
//! ```
//!
//! Every web server sends its answers back by the host that the client's address belongs to. The router has no rule and no
//! connection tracking; it is *direct*, and the proxies run on it.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use super::ours;
use crate::bench::lab::{self, Lab};
use crate::cgroup;
use crate::namespace::Namespace;
use crate::process::{self, Process, run};
use crate::progress::Progress;

/// The address of the client on each way, the host in the middle, and its addresses on both sides.
#[derive(Clone, Copy, Debug)]
pub(super) struct Middle {
    /// Name of the host, and of the client's cable to it.
    pub(super) name: &'static str,
    /// Of its network with the client, the first three bytes: it is .2 there, the client .50.
    pub(super) outside: [u8; 3],
    /// Last byte of its address in the web servers' network.
    pub(super) inside: u8,
}

impl Middle {
    /// An address of its network with the client.
    pub(super) const fn outside(&self, last: u8) -> Ipv4Addr {
        let [a, b, c] = self.outside;
        Ipv4Addr::new(a, b, c, last)
    }
}

/// Where foobar is.
pub(super) const FOOBAR: Middle = Middle { name: "foobar", outside: [203, 0, 113], inside: 1 };
/// What only routes; the proxies run on it.
pub(super) const ROUTER: Middle = Middle { name: "router", outside: [198, 51, 100], inside: 2 };
/// Where nftables is.
pub(super) const DNAT: Middle = Middle { name: "dnat", outside: [192, 0, 2], inside: 3 };
/// The web servers, and the last bytes of their addresses.
pub(super) const WEBS: [(&str, u8); 2] = [("web1", 11), ("web2", 12)];
/// Whom backends of the `direct` and `tunnel` services answer, by the client's cable to their own network.
pub(super) const DIRECT_CLIENT: Ipv4Addr = FOOBAR.outside(51);
/// The port of every service.
pub(super) const PORT: u16 = 8080;

/// An address of the web servers' network.
pub(super) const fn inside(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 1, last)
}

/// Everything, until it is dropped.
#[derive(Debug)]
pub(super) struct Wires {
    lab: Lab,
    cgroup: PathBuf,
    hosts: BTreeMap<&'static str, Namespace>,
    /// Whether whoever sends leaves checksums and segments to the cable.
    offloads: Cell<bool>,
}

impl Wires {
    /// Makes the hosts and connects them.
    pub(super) fn create(progress: &dyn Progress) -> Result<Self> {
        let lab = Lab::with_pins(progress)?;
        let cgroup = cgroup::mount()?.join(lab.run().name());
        cgroup::create(&cgroup)?;
        let mut wires = Self { lab, cgroup, hosts: BTreeMap::new(), offloads: Cell::new(true) };
        for name in ["client", "switch", FOOBAR.name, ROUTER.name, DNAT.name, WEBS[0].0, WEBS[1].0] {
            let forwards = [FOOBAR.name, ROUTER.name, DNAT.name].contains(&name);
            let settings = if forwards { &[SETTINGS, FORWARDS].concat() } else { SETTINGS };
            wires.hosts.insert(name, wires.lab.namespace(name, settings, "link set lo up\n")?);
        }
        let mut script =
            // Answers come to the client by a link on which it never sends: it must not be forgotten, and flooded to.
            "link add br0 type bridge mcast_snooping 0 stp_state 0 forward_delay 0 ageing_time 360000\nlink set br0 up\n"
                .to_owned();
        for middle in MIDDLES {
            wires.cable(("client", middle.name), (middle.name, "eth1"))?;
        }
        for (name, end) in ON_SWITCH {
            wires.cable((name, end), ("switch", name))?;
            script += &format!("link set {name} master br0\n");
        }
        lab::ip(wires.host("switch")?, &script)?;
        wires.address()?;
        wires.set_offloads(false)?;
        Ok(wires)
    }

    /// A cable between two interfaces of two hosts. Its ends poll, as network cards do, but for the switch's that lead to no
    /// balancer: what a switch puts together there, it takes apart without checksums for foobar.
    fn cable(&self, (one, end): (&str, &str), (other, other_end): (&str, &str)) -> Result<()> {
        let (full, peer) = (self.lab.full(one), self.lab.full(other));
        let script =
            format!("link add {end} netns {full} {QUEUES} type veth peer name {other_end} netns {peer} {QUEUES}\n");
        process::feed(Command::new("ip").args(["-batch", "-"]), &script)?;
        for (host, interface) in [(one, end), (other, other_end)] {
            lab::ip(self.host(host)?, &format!("link set {interface} up\n"))?;
            if host != "switch" || MIDDLES.iter().any(|middle| middle.name == interface) {
                self.ethtool(host, interface, &["gro", "on"])?;
            }
        }
        Ok(())
    }

    fn address(&self) -> Result<()> {
        let mut client = String::new();
        for middle in MIDDLES {
            client += &format!("addr add {}/24 dev {}\n", middle.outside(50), middle.name);
            let script =
                format!("addr add {}/24 dev eth1\naddr add {}/24 dev eth0\n", middle.outside(2), inside(middle.inside));
            lab::ip(self.host(middle.name)?, &script)?;
        }
        client += &format!("addr add {DIRECT_CLIENT}/32 dev {}\n", FOOBAR.name);
        // An address without its network: packets to the web servers go by the router.
        client += &format!("addr add {}/32 dev lan\n", inside(50));
        client += &format!("route add {}/24 via {}\n", inside(0), ROUTER.outside(2));
        for vip in [ours::DIRECT_VIP, ours::TUNNEL_VIP] {
            client += &format!("route add {vip}/32 dev {} src {DIRECT_CLIENT}\n", FOOBAR.name);
        }
        lab::ip(self.host("client")?, &client)?;
        for (web, last) in WEBS {
            let mut script = format!("addr add {}/24 dev eth0\n", inside(last));
            for middle in MIDDLES {
                script += &format!("route add {}/24 via {}\n", middle.outside(0), inside(middle.inside));
            }
            script += &format!("route add {DIRECT_CLIENT}/32 via {}\n", inside(50));
            lab::ip(self.host(web)?, &script)?;
        }
        Ok(())
    }

    /// A host's namespace.
    pub(super) fn host(&self, name: &str) -> Result<&Namespace> {
        self.hosts.get(name).with_context(|| format!("the bench has no host called {name}"))
    }

    /// The lab that they are in.
    pub(super) fn lab(&self) -> &Lab {
        &self.lab
    }

    /// The cgroup of all processes.
    pub(super) fn cgroup(&self) -> &PathBuf {
        &self.cgroup
    }

    /// Starts a command on a host, in a cgroup of this run.
    pub(super) fn spawn(&self, host: &str, command: &mut Command) -> Result<Process> {
        let name = command.get_program().to_string_lossy().into_owned();
        self.place(host, command)?;
        Process::spawn(&name, command)
    }

    /// Runs a command on a host to its end; what it wrote.
    pub(super) fn run(&self, host: &str, command: &mut Command) -> Result<String> {
        self.place(host, command)?;
        run(command)
    }

    fn place(&self, host: &str, command: &mut Command) -> Result<()> {
        let group = self.cgroup.join("bench");
        cgroup::create(&group)?;
        self.host(host)?.attach(command);
        cgroup::attach(&group, command)
    }

    /// Has whoever sends on the peers' ways leave checksums and segments to the cable, or not; the client's cable to foobar
    /// never does, for XDP redirects lose what is left to do.
    pub(super) fn set_offloads(&self, on: bool) -> Result<()> {
        if self.offloads.replace(on) == on {
            return Ok(());
        }
        let state = if on { "on" } else { "off" };
        let set = |host: &str, interface: &str| self.ethtool(host, interface, &["tx", state]);
        for middle in [ROUTER, DNAT] {
            set("client", middle.name)?;
            set(middle.name, "eth0")?;
            set(middle.name, "eth1")?;
        }
        WEBS.iter().try_for_each(|(web, _)| set(web, "eth0"))?;
        self.ethtool("client", FOOBAR.name, &["tx", "off"])
    }

    fn ethtool(&self, host: &str, interface: &str, settings: &[&str]) -> Result<()> {
        let mut command = Command::new("ethtool");
        command.args(["-K", interface]).args(settings);
        self.host(host)?.attach(&mut command);
        run(&mut command).map(drop)
    }
}

const MIDDLES: [Middle; 3] = [FOOBAR, ROUTER, DNAT];
/// Hosts on the switch, and their interfaces there.
const ON_SWITCH: [(&str, &str); 6] = [
    ("client", "lan"),
    (FOOBAR.name, "eth0"),
    (ROUTER.name, "eth0"),
    (DNAT.name, "eth0"),
    (WEBS[0].0, "eth0"),
    (WEBS[1].0, "eth0"),
];
const QUEUES: &str = "numtxqueues 2 numrxqueues 2 mtu 1500";
const SETTINGS: &[(&str, &str)] = &[
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    ("ipv6/conf/default/disable_ipv6", "1"),
    // Tens of thousands of connections a round: no table of ended ones may slow down those that follow.
    ("ipv4/tcp_max_tw_buckets", "1024"),
    ("ipv4/tcp_tw_reuse", "1"),
    ("ipv4/ip_local_port_range", "1024 65535"),
];
const FORWARDS: &[(&str, &str)] = &[("ipv4/ip_forward", "1")];
