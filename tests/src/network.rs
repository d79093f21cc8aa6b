//! The bed's network alone: namespaces, the switch, cables, addresses, routes; and the guard that removes all of it.
//!
//! The rules for native XDP on veth (each was seen to fail otherwise):
//! - whoever originates TCP has `tx off`: a local packet's checksum is partial, and a redirect loses that mark;
//! - the peer of an interface that packets are redirected to (the switch's port of lb1, the client) has GRO on;
//! - two queues, so that tests run on two CPUs.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::host::{BALANCER, BALANCER6, CLIENT, CLIENT6, HOSTS, Host, SWITCH, VIP6, cabled};
use crate::leftovers::{self, left_behind};
use crate::namespace::Namespace;
use crate::process::{feed, run};
use crate::progress::Progress;
use crate::run::Run;
use crate::{bpffs, cgroup};

/// The network of a run. Dropping it removes the run: processes, namespaces, pins, cgroups, files.
#[derive(Debug)]
pub struct Network {
    namespaces: BTreeMap<&'static str, Namespace>,
    cgroup: PathBuf,
    bpffs: PathBuf,
    run: Run,
    kept: bool,
}

impl Network {
    /// Makes the namespaces and wires them.
    pub fn create(progress: &dyn Progress) -> Result<Self> {
        bpffs::ensure(progress)?;
        let run = Run::create()?;
        let mount = cgroup::mount()?;
        // From here on the guard exists: whatever fails, what was made is removed.
        let mut network = Self {
            namespaces: BTreeMap::new(),
            cgroup: mount.join(run.name()),
            bpffs: PathBuf::new(),
            run,
            kept: false,
        };
        network.bpffs = bpffs::create(&network.run.name())?;
        for host in &HOSTS {
            cgroup::create(&network.cgroup(host.name))?;
        }
        network.make_namespaces()?;
        network.connect()?;
        for host in &HOSTS {
            network.configure(host).with_context(|| format!("cannot configure the network of {}", host.name))?;
        }
        network.configure_switch()?;
        Ok(network)
    }

    /// The run.
    pub fn run(&self) -> &Run {
        &self.run
    }

    /// The namespace of `host` (or of the switch).
    pub fn namespace(&self, host: &str) -> Result<&Namespace> {
        self.namespaces.get(host).with_context(|| format!("the bed has no host called {host}"))
    }

    /// The cgroup of `host`.
    pub fn cgroup(&self, host: &str) -> PathBuf {
        self.cgroup.join(host)
    }

    /// The run's folder of pins.
    pub fn bpffs(&self) -> &Path {
        &self.bpffs
    }

    /// Makes `command` start on `host`: in its namespace, and in a cgroup below its own, called `group`.
    pub fn place(&self, host: &str, group: &str, command: &mut Command) -> Result<()> {
        let folder = self.cgroup(host).join(group);
        cgroup::create(&folder)?;
        self.namespace(host)?.attach(command);
        cgroup::attach(&folder, command)
    }

    /// Removes the run and returns what was left behind nevertheless.
    pub fn close(mut self) -> Vec<String> {
        let mut faults = self.remove();
        faults.extend(left_behind(self.run.id()));
        self.kept = true;
        faults
    }

    fn remove(&mut self) -> Vec<String> {
        self.namespaces.clear();
        let removed = leftovers::remove(self.run.id());
        removed.err().map(|error| format!("{error:#}")).into_iter().collect()
    }

    fn make_namespaces(&mut self) -> Result<()> {
        let names: Vec<&'static str> = HOSTS.iter().map(|host| host.name).chain([SWITCH]).collect();
        let script: String = names.iter().map(|name| format!("netns add {}\n", self.full(name))).collect();
        batch(&mut Command::new("ip"), &script)?;
        for name in names {
            self.namespaces.insert(name, Namespace::open(&self.full(name))?);
            self.tune(name)?;
        }
        Ok(())
    }

    /// Cables: every server to the switch, the client to the balancer.
    fn connect(&self) -> Result<()> {
        const QUEUES: &str = "numtxqueues 2 numrxqueues 2 mtu 1500";
        let switch = self.full(SWITCH);
        let mut script = String::new();
        for host in cabled() {
            let (port, full) = (host.name, self.full(host.name));
            let end = format!("peer name eth0 netns {full} {QUEUES}");
            script += &format!("link add {port} netns {switch} {QUEUES} type veth {end}\n");
        }
        let (client, balancer) = (self.full("client"), self.full("lb1"));
        let end = format!("peer name eth1 netns {balancer} {QUEUES}");
        script += &format!("link add eth0 netns {client} {QUEUES} type veth {end}\n");
        batch(&mut Command::new("ip"), &script)
    }

    fn configure_switch(&self) -> Result<()> {
        let mut script = "link add br0 type bridge mcast_snooping 0 stp_state 0 forward_delay 0\n".to_owned();
        script += "link set lo up\nlink set br0 up\n";
        for host in cabled() {
            script += &format!("link set {0} master br0\nlink set {0} up\n", host.name);
        }
        self.ip(SWITCH, &script)?;
        self.offload(SWITCH, "lb1", &["gro", "on"])
    }

    fn configure(&self, host: &Host) -> Result<()> {
        let mut script = "link set lo up\n".to_owned();
        match host.name {
            "client" => {
                script += &format!("addr add {CLIENT}/24 dev eth0\naddr add {CLIENT6}/64 dev eth0 nodad\n");
                script += "link set eth0 up\n";
                // A VIP is on lb1's loopback, and IPv6 answers neighbours only for the interface's own addresses.
                script += &format!("route add {VIP6}/128 via {BALANCER6}\n");
                script += &format!("route add default via {BALANCER}\nroute add default via {BALANCER6}\n");
            }
            "lb1" => {
                script += &server_addresses(host);
                script += &format!("addr add {BALANCER}/24 dev eth1\naddr add {BALANCER6}/64 dev eth1 nodad\n");
                script += "link set eth1 up\n";
            }
            _ => {
                script += &server_addresses(host);
                script += "route add default via 10.0.1.1\nroute add default via fd00:1::1\n";
            }
        }
        self.ip(host.name, &script)?;
        match host.name {
            "client" => self.offload("client", "eth0", &["tx", "off", "gro", "on"]),
            _ => self.offload(host.name, "eth0", &["tx", "off"]),
        }
    }

    fn tune(&self, name: &str) -> Result<()> {
        let namespace = self.namespace(name)?;
        namespace.run(|| {
            for (key, value) in SETTINGS {
                if *key == "ipv4/ip_forward" && name != "lb1" {
                    continue;
                }
                let path = Path::new("/proc/sys/net").join(key);
                fs::write(&path, value).with_context(|| format!("cannot write {value} to {}", path.display()))?;
            }
            if name == "lb1" {
                fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").context("cannot switch IPv6 forwarding on")?;
            }
            Ok(())
        })?
    }

    fn ip(&self, host: &str, script: &str) -> Result<()> {
        batch(Command::new("ip").args(["-netns", self.namespace(host)?.name()]), script)
    }

    fn offload(&self, host: &str, interface: &str, settings: &[&str]) -> Result<()> {
        let mut command = Command::new("ethtool");
        command.args(["-K", interface]).args(settings);
        self.namespace(host)?.attach(&mut command);
        run(&mut command).map(drop)
    }

    fn full(&self, host: &str) -> String {
        format!("{}-{host}", self.run.name())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if !self.kept {
            for fault in self.remove() {
                eprintln!("foobar-tests: the run {} was not removed whole: {fault}", self.run.id());
            }
        }
    }
}

fn server_addresses(host: &Host) -> String {
    let (v4, v6) = (host.v4(), host.v6());
    format!("addr add {v4}/24 dev eth0\naddr add {v6}/64 dev eth0 nodad\nlink set eth0 up\n")
}

fn batch(command: &mut Command, script: &str) -> Result<()> {
    feed(command.args(["-batch", "-"]), script)
}

/// Settings below `/proc/sys/net`, made before any interface exists.
const SETTINGS: &[(&str, &str)] = &[
    ("ipv4/ip_forward", "1"),
    // Sockets that ping, for root.
    ("ipv4/ping_group_range", "0 0"),
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    ("ipv6/conf/all/accept_dad", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv6/conf/default/accept_ra", "0"),
];
