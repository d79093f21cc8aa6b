//! Markers: packets that no real traffic of the bed looks like, the rules that judge them, and what those have counted.
//!
//! Each of two senders may send to ports of its own. The rules stand in one order or in another, with the same meaning, and
//! behind rules for nobody or in front of them, so that every table has other numbers: a packet that met one table of the
//! one order and one of the other would find no common rule, or a wrong one. Every such verdict has a rule that counts it.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use foobar_tests::Bed;
use foobar_tests::host::{Host, SWITCH};

/// Rules in the one order and in the other; and whether those for nobody stand in front.
pub(crate) const ORDERS: [([usize; 4], bool); 2] = [([0, 1, 2, 3], false), ([1, 0, 3, 2], true)];
/// Who may send to the first and third port, and who to the others.
pub(crate) const RIGHT: [usize; 2] = [0, 1];
/// The same as a mix of both orders would have it.
pub(crate) const MIXED: [usize; 2] = [1, 0];

/// Who sends markers: each may to its own ports only.
const SENDERS: [&str; 2] = ["app1", "db1"];
/// Ports that the senders may send to: the first and the second one each.
const OPEN: [u16; 2] = [7101, 7102];
/// Ports that the senders may send to, but at which only the other one's markers arrive.
const SHUT: [u16; 2] = [7103, 7104];
/// Rules for nobody: addresses and ports that no packet of the bed has.
const NOBODY: std::ops::Range<u16> = 7200..7220;

/// Names of the rules: a sender's open port, a sender's port that only the other one sends to; then those of [`LOST`],
/// [`DENIED`] and, summed, [`STRAY`].
const NAMES: [&str; 7] =
    ["swap-open-0", "swap-open-1", "swap-shut-0", "swap-shut-1", "swap-lost", "swap-denied", "swap-nobody"];
/// Counts markers to open ports that were not let through.
const LOST: usize = 4;
/// Counts markers to shut ports.
const DENIED: usize = 5;
/// Count markers that met a rule for nobody.
const STRAY: usize = 6;

/// The file's rules: what each sender may, in an order.
pub(crate) fn rules((order, nobody_first): ([usize; 4], bool), who: [usize; 2]) -> String {
    let address = |number: usize| Host::named(SENDERS[who[number % 2]]).map_or(Ipv4Addr::UNSPECIFIED, Host::v4);
    let allow = |number: usize| {
        let port = [OPEN, SHUT].concat()[number];
        rule(NAMES[number], &format!("[\"{}\"]", address(number)), &format!("\"{port}\""), "allow")
    };
    let ports = |[first, last]: [u16; 2]| format!("\"{first}-{last}\"");
    let mut text: String = order.into_iter().map(allow).collect();
    text += &rule(NAMES[LOST], "[\"any\"]", &ports(OPEN), "deny");
    text += &rule(NAMES[DENIED], "[\"any\"]", &ports(SHUT), "deny");
    let nobody = NOBODY.map(|port| {
        let (name, from) = (format!("{}-{port}", NAMES[STRAY]), format!("[\"198.18.{}.0/24\"]", port % 256));
        rule(&name, &from, &format!("\"{port}\""), "deny")
    });
    let nobody: String = nobody.collect();
    if nobody_first { nobody + &text } else { text + &nobody }
}

fn rule(name: &str, from: &str, ports: &str, action: &str) -> String {
    format!(
        "[[rule]]\nname = \"{name}\"\non = [\"lb1\"]\nfrom = {from}\nprotocol = \"udp\"\nports = [{ports}]\n\
         action = \"{action}\"\n\n"
    )
}

/// Both senders at work.
#[derive(Default)]
pub(crate) struct Markers {
    stop: AtomicBool,
    sent: AtomicU64,
}

impl Markers {
    /// Sends while `work` runs; the rules have to be in force. Returns how many were sent, and what `work` returned.
    pub(crate) fn during<T>(bed: &Bed, work: impl FnOnce(&Self) -> Result<T>) -> Result<(u64, T)> {
        let markers = Self::default();
        let result = thread::scope(|scope| {
            // Kept open: nobody answers the markers; what does not fit is lost in silence.
            let _sinks = bed.in_namespace("lb1", || bind(Host::named("lb1").map(Host::v4)))??;
            let senders = (0..SENDERS.len()).map(|number| {
                let namespace = bed.host(SENDERS[number])?;
                let markers = &markers;
                Ok(scope.spawn(move || namespace.run(|| markers.send(number))?))
            });
            let senders = senders.collect::<Result<Vec<_>>>()?;
            let result = work(&markers);
            markers.stop.store(true, Ordering::Relaxed);
            for sender in senders {
                sender.join().map_err(|_| anyhow::anyhow!("a sender of markers panicked"))??;
            }
            result
        })?;
        Ok((markers.sent(), result))
    }

    /// How many were sent until now.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Sends to the own open port and to the other one's shut one, in turn, some thousand a second.
    fn send(&self, number: usize) -> Result<()> {
        let to = Host::named("lb1").map(Host::v4).context("an address")?;
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        while !self.stop.load(Ordering::Relaxed) {
            for port in [OPEN[number], SHUT[1 - number]] {
                socket.send_to(b"marker", SocketAddr::from((to, port)))?;
                self.sent.fetch_add(1, Ordering::Relaxed);
            }
            thread::sleep(Duration::from_micros(300));
        }
        Ok(())
    }
}

fn bind(address: Option<Ipv4Addr>) -> Result<Vec<UdpSocket>> {
    let address = address.context("an address")?;
    let ports = [OPEN, SHUT].concat().into_iter();
    ports.map(|port| UdpSocket::bind((address, port)).context("cannot take markers")).collect()
}

/// Packets that the cables on the markers' way had no room for, theirs or others'.
pub(crate) fn dropped(bed: &Bed) -> Result<u64> {
    let cables = SENDERS.map(|sender| (sender, "eth0"));
    cables.iter().chain(&[(SWITCH, "lb1")]).map(|(host, interface)| dropped_by(bed, host, interface)).sum()
}

fn dropped_by(bed: &Bed, host: &str, interface: &str) -> Result<u64> {
    /// Place of the packets that could not be sent, behind the interface's name.
    const DROPPED: usize = 11;
    let table = bed.in_namespace(host, || fs::read_to_string("/proc/thread-self/net/dev"))??;
    let mut rows = table.lines().filter_map(|line| line.trim().strip_prefix(interface)?.strip_prefix(':'));
    let row = rows.next().with_context(|| format!("{host} has no interface {interface}"))?;
    row.split_whitespace().nth(DROPPED).context("a column is missing")?.parse().context("no number of packets")
}

/// What each rule has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Counts([f64; NAMES.len()]);

impl Counts {
    /// As the agent of lb1 tells them.
    pub(crate) fn read(bed: &Bed) -> Result<Self> {
        let metrics = bed.metrics("lb1")?;
        let counts = metrics.by("foobar_rule_packets_total", &[], "rule");
        let of = |name| counts.iter().filter(|(rule, _)| rule.starts_with(name)).map(|(_, count)| count).sum();
        Ok(Self(NAMES.map(of)))
    }

    /// The same, later.
    ///
    /// # Errors
    /// A counter has gone back.
    pub(crate) fn later(&mut self, bed: &Bed) -> Result<()> {
        let now = Self::read(bed)?;
        ensure!(
            now.0.iter().zip(self.0).all(|(now, then)| *now >= then),
            "a counter went back: {self:?}, then {now:?}"
        );
        *self = now;
        Ok(())
    }

    /// What has come since.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let mut since = *self;
        since.0.iter_mut().zip(before.0).for_each(|(now, then)| *now -= then);
        since
    }

    /// Markers that were let through.
    pub(crate) fn allowed(&self) -> f64 {
        self.0[0] + self.0[1]
    }

    /// Markers to shut ports.
    pub(crate) fn denied(&self) -> f64 {
        self.0[DENIED]
    }

    /// Markers that met a mix.
    pub(crate) fn wrong(&self) -> f64 {
        self.0[2] + self.0[3] + self.0[LOST] + self.0[STRAY]
    }

    /// All markers.
    pub(crate) fn total(&self) -> f64 {
        self.0.iter().sum()
    }
}
