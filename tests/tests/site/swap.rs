//! Rules change under load, again and again: no request fails, and no packet is judged by a mix of two rule sets.
//!
//! Two rule sets with the same meaning and another order: a packet that met the sources of one and the ports of the other
//! would find no common rule, or a wrong one. Every such verdict has a rule of its own that counts it.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use foobar_tests::host::Host;
use foobar_tests::load::{Load, Shape};
use foobar_tests::{Bed, eventually, is_long};

/// Rules in the one order and in the other.
const ORDERS: [[usize; 4]; 2] = [[0, 1, 2, 3], [1, 0, 3, 2]];
/// Who sends markers: each may to its own ports only.
const SENDERS: [&str; 2] = ["app1", "db1"];
/// Ports that the senders may send to: the first and the second one each.
const OPEN: [u16; 2] = [7101, 7102];
/// Ports that the senders may send to, but at which only the other one's markers arrive.
const SHUT: [u16; 2] = [7103, 7104];

/// 100 reloads, or 1,000 in a minute.
pub(crate) fn never_a_mix(bed: &Bed) -> Result<()> {
    let good = bed.site().text()?;
    let outcome = watched(bed, &good);
    bed.site().replace(&good)?;
    reload(bed)?;
    outcome
}

fn watched(bed: &Bed, good: &str) -> Result<()> {
    let markers = Markers::default();
    thread::scope(|scope| {
        let sinks = bed.in_namespace("lb1", || bind(Host::named("lb1").map(Host::v4)))??;
        for (number, sender) in SENDERS.iter().enumerate() {
            let namespace = bed.host(sender)?;
            let markers = &markers;
            scope.spawn(move || namespace.run(|| markers.send(number)));
        }
        let outcome = swapped(bed, good, &markers).and_then(|()| control(bed, good));
        markers.stop.store(true, Ordering::Relaxed);
        drop(sinks);
        outcome
    })
}

/// The reloads, and what was counted meanwhile.
fn swapped(bed: &Bed, good: &str, markers: &Markers) -> Result<()> {
    let texts = ORDERS.map(|order| format!("{good}\n{}", rules(order, [0, 1])));
    bed.site().replace(&texts[0])?;
    reload(bed)?;
    let (before, sent) = (Counts::read(bed)?, markers.sent.load(Ordering::Relaxed));
    let loads = [load(bed, true)?, load(bed, false)?];
    let started = Instant::now();
    let reloads = if is_long() { 1000 } else { 100 };
    for number in 1..=reloads {
        bed.site().replace(&texts[number % 2])?;
        reload(bed).with_context(|| format!("reload {number}"))?;
    }
    let took = started.elapsed();
    let sent = (markers.sent.load(Ordering::Relaxed) - sent) as f64;
    let counts = Counts::read(bed)?.since(&before);
    for load in loads {
        let report = load.stop()?;
        let first = report.failures.first().map(|failure| failure.why.as_str()).unwrap_or_default();
        ensure!(report.failures.is_empty(), "{} of {} requests failed: {first}", report.failures.len(), report.good);
        ensure!(report.good > 0, "the load has answered nothing");
    }
    println!("\n  {reloads} reloads in {:.1} s, {sent} markers: {counts:?}", took.as_secs_f64());
    ensure!(counts.wrong == 0.0, "{counts:?}: packets were judged by a mix");
    // What is on its way is not counted yet, and a full queue loses some; the kinds are sent alike.
    ensure!(counts.allowed > sent / 4.0 && counts.denied > sent / 4.0, "{counts:?} of {sent} markers");
    ensure!(took <= Duration::from_secs(60), "{reloads} reloads took {took:?}");
    Ok(())
}

/// Were there a mix, it would be seen: a rule set that is one.
fn control(bed: &Bed, good: &str) -> Result<()> {
    let before = Counts::read(bed)?;
    bed.site().replace(&format!("{good}\n{}", rules(ORDERS[0], [1, 0])))?;
    reload(bed)?;
    eventually(DEADLINE, "a mixed rule set is noticed", || Ok(Counts::read(bed)?.since(&before).wrong > 1.0))
}

/// The file's rules: what each sender may, in an order; with `who` reversed, as a mix of both orders would have it.
fn rules(order: [usize; 4], who: [usize; 2]) -> String {
    let address = |number: usize| Host::named(SENDERS[who[number % 2]]).map_or(Ipv4Addr::UNSPECIFIED, Host::v4);
    let allow = |number: usize| {
        let port = [OPEN, SHUT].concat()[number];
        rule(NAMES[number], &format!("[\"{}\"]", address(number)), &format!("\"{port}\""), "allow")
    };
    let ports = |[first, last]: [u16; 2]| format!("\"{first}-{last}\"");
    let mut text: String = order.into_iter().map(allow).collect();
    text += &rule(LOST, "[\"any\"]", &ports(OPEN), "deny");
    text += &rule(DENIED, "[\"any\"]", &ports(SHUT), "deny");
    text
}

fn rule(name: &str, from: &str, ports: &str, action: &str) -> String {
    format!(
        "[[rule]]\nname = \"{name}\"\non = [\"lb1\"]\nfrom = {from}\nprotocol = \"udp\"\nports = [{ports}]\n\
         action = \"{action}\"\n\n"
    )
}

fn reload(bed: &Bed) -> Result<()> {
    let output = bed.agent("lb1")?.ask("reload", &[])?;
    ensure!(output.status.success(), "refused: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

fn load(bed: &Bed, encrypted: bool) -> Result<Load> {
    let target = if encrypted { bed.https()? } else { bed.plain() };
    let (paths, pause) = (vec!["/small.txt".to_owned()], Duration::from_millis(5));
    Load::start(bed.host("client")?, &Shape { target, paths, connections: 4, keep_alive: !encrypted, pause })
}

/// Sockets that take the markers, so that nobody answers them; what does not fit is lost in silence.
fn bind(address: Option<Ipv4Addr>) -> Result<Vec<UdpSocket>> {
    let address = address.context("an address")?;
    let ports = [OPEN, SHUT].concat().into_iter();
    ports.map(|port| UdpSocket::bind((address, port)).context("cannot take markers")).collect()
}

/// Packets that no real traffic of the bed looks like.
#[derive(Default)]
struct Markers {
    stop: AtomicBool,
    sent: AtomicU64,
}

impl Markers {
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

/// Verdicts over markers.
#[derive(Clone, Copy, Debug)]
struct Counts {
    allowed: f64,
    denied: f64,
    wrong: f64,
}

impl Counts {
    fn read(bed: &Bed) -> Result<Self> {
        let metrics = bed.metrics("lb1")?;
        let of = |name: &str| metrics.sum("foobar_rule_packets_total", &[("rule", name)]);
        let [open, others, shut, shut_too] = NAMES.map(of);
        Ok(Self { allowed: open + others, denied: of(DENIED), wrong: shut + shut_too + of(LOST) })
    }

    fn since(&self, before: &Self) -> Self {
        Self {
            allowed: self.allowed - before.allowed,
            denied: self.denied - before.denied,
            wrong: self.wrong - before.wrong,
        }
    }
}

/// Rules by number: a sender's open port, a sender's port that only the other one sends to.
const NAMES: [&str; 4] = ["swap-open-0", "swap-open-1", "swap-shut-0", "swap-shut-1"];
/// Counts markers to open ports that were not let through.
const LOST: &str = "swap-lost";
/// Counts markers to shut ports.
const DENIED: &str = "swap-denied";
const DEADLINE: Duration = Duration::from_secs(5);
