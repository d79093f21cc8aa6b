//! nftables on a host of its own: destination NAT, one web server after the other, with the kernel's connection tracking.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::wires::{DNAT, PORT, WEBS, Wires, inside};
use crate::bench::lab;
use crate::eventually::eventually;
use crate::probe::{Outcome, connect};
use crate::process::feed;

/// Its address for clients.
pub(super) const VIP: Ipv4Addr = DNAT.outside(10);

/// A loaded rule set; it goes with its host.
#[derive(Debug)]
pub(super) struct Dnat;

impl Dnat {
    /// Loads it and waits until it lets the client in.
    pub(super) fn start(wires: &Wires) -> Result<Self> {
        let host = wires.host(DNAT.name)?;
        lab::ip(host, &format!("addr add {VIP}/32 dev lo\n"))?;
        let mut nft = Command::new("nft");
        host.attach(nft.args(["--file", "-"]));
        feed(&mut nft, &rules())?;
        host.run(|| {
            let told = fs::write(FORGET.0, FORGET.1);
            told.with_context(|| format!("cannot write {} to {}", FORGET.1, FORGET.0))
        })??;
        let address = SocketAddr::from((VIP, PORT));
        eventually(START, "nftables lets the client in", || {
            Ok(connect(wires.host("client")?, address, KNOCK)? == Outcome::Open)
        })?;
        let listed = wires.run(DNAT.name, Command::new("nft").args(["list", "ruleset"]))?;
        ensure!(listed.contains("dnat to numgen inc mod 2"), "no DNAT rule is loaded:\n{listed}");
        Ok(Self)
    }
}

fn rules() -> String {
    let webs: Vec<String> =
        WEBS.iter().enumerate().map(|(at, (_, last))| format!("{at} : {}", inside(*last))).collect();
    format!(
        "table ip balance {{\nchain prerouting {{\ntype nat hook prerouting priority dstnat; policy accept;\n\
         ip daddr {VIP} tcp dport {PORT} dnat to numgen inc mod {} map {{ {} }}\n}}\n}}\n",
        WEBS.len(),
        webs.join(", ")
    )
}

/// Ended connections leave its table before they slow down the next ones.
const FORGET: (&str, &str) = ("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_time_wait", "5");
const START: Duration = Duration::from_secs(5);
const KNOCK: Duration = Duration::from_millis(500);
