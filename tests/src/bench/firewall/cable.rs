//! A sender and a guarded server in namespaces of their own, with a cable between them.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use super::frame::{CLIENT, CLIENT_MAC, SERVER, SERVER_MAC};
use crate::bench::lab::{self, Lab};
use crate::namespace::Namespace;
use crate::process::run;

/// Both ends.
#[derive(Debug)]
pub(super) struct Cable {
    /// Where packets come from.
    pub(super) sender: Namespace,
    /// Where the firewall is.
    pub(super) guarded: Namespace,
    /// Its interface there; no other namespace of the machine has one of this name.
    pub(super) interface: String,
}

impl Cable {
    /// Makes both namespaces; `number` tells this cable from the others of the run.
    pub(super) fn create(lab: &Lab, number: usize) -> Result<Self> {
        let interface = format!("r{}{number}", lab.run().id());
        let guarded = lab.namespace(&format!("guarded{number}"), SETTINGS, "link set lo up\n")?;
        let cable = format!(
            "link add eth0 address {} {QUEUES} type veth peer name {interface} netns {} address {} {QUEUES}\n",
            text(CLIENT_MAC),
            guarded.name(),
            text(SERVER_MAC),
        );
        let script = format!("link set lo up\n{cable}{}", end("eth0", CLIENT, SERVER, SERVER_MAC));
        let sender = lab.namespace(&format!("sender{number}"), SETTINGS, &script)?;
        // Sources of any address are answered to the sender.
        let script = end(&interface, SERVER, CLIENT, CLIENT_MAC) + &format!("route add default via {CLIENT}\n");
        lab::ip(&guarded, &script)?;
        // A redirect wants a peer that polls; a checksum that is not complete would be lost on the way.
        offload(&guarded, &interface, &["gro", "on"])?;
        offload(&sender, SENDER, &["tx", "off", "gro", "on"])?;
        Ok(Self { sender, guarded, interface })
    }

    /// Gives the interface's receive queue a kernel thread of its own, whose time can be read.
    pub(super) fn threaded(&self) -> Result<()> {
        let mut command = Command::new("ip");
        // Its `exec` shows the namespace's own interfaces below /sys.
        command.args(["netns", "exec", self.guarded.name(), "sh", "-c", "echo 1 > \"$0\""]);
        run(command.arg(format!("/sys/class/net/{}/threaded", self.interface))).map(drop)
    }

    /// What the guarded side has received until now, and how much of it found no socket.
    pub(super) fn received(&self) -> Result<Received> {
        self.guarded.run(|| {
            let devices = fs::read_to_string("/proc/thread-self/net/dev").context("cannot read the interfaces")?;
            let packets = column(&devices, &format!("{}:", self.interface), RX_PACKETS);
            let protocols = fs::read_to_string("/proc/thread-self/net/snmp").context("cannot read the counters")?;
            let reached = protocols.lines().filter(|line| line.starts_with("Udp:")).nth(1);
            let reached = reached.and_then(|line| column(line, "Udp:", NO_PORTS));
            let missing = "the kernel does not tell what was received";
            Ok(Received { packets: packets.context(missing)?, reached: reached.context(missing)? })
        })?
    }
}

/// Numbers of packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Received {
    /// All.
    pub(super) packets: u64,
    /// Those that came as far as to a closed port.
    pub(super) reached: u64,
}

fn column(text: &str, name: &str, column: usize) -> Option<u64> {
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix(name))?;
    line.split_ascii_whitespace().nth(column)?.parse().ok()
}

fn end(interface: &str, own: impl std::fmt::Display, peer: impl std::fmt::Display, mac: [u8; 6]) -> String {
    format!(
        "addr add {own}/24 dev {interface}\nlink set {interface} up\n\
         neigh replace {peer} lladdr {} dev {interface} nud permanent\n",
        text(mac)
    )
}

fn offload(namespace: &Namespace, interface: &str, settings: &[&str]) -> Result<()> {
    let mut command = Command::new("ethtool");
    command.args(["-K", interface]).args(settings);
    namespace.attach(&mut command);
    run(&mut command).map(drop)
}

fn text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// The sender's interface.
pub(super) const SENDER: &str = "eth0";
/// One queue: what one processor does is measured.
const QUEUES: &str = "numtxqueues 1 numrxqueues 1";
const SETTINGS: &[(&str, &str)] = &[
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    ("ipv6/conf/default/disable_ipv6", "1"),
    // A server that closes first must not fill a table from which connections then suffer.
    ("ipv4/tcp_max_tw_buckets", "1024"),
    ("ipv4/ip_local_port_range", "1024 65535"),
];
/// Columns, from 0.
const RX_PACKETS: usize = 1;
const NO_PORTS: usize = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_found() {
        let text = "Inter-|   Receive\n    lo:     100       2    0\nr1a2b3c0:40 41 42\n";
        assert_eq!(column(text, "r1a2b3c0:", RX_PACKETS), Some(41));
        assert_eq!(column("Udp: 7 8 9", "Udp:", NO_PORTS), Some(8));
        assert_eq!(column(text, "eth0:", RX_PACKETS), None);
    }
}
