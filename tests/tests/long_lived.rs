//! 64 long-lived connections through a `nat` service: nothing that happens to the balancer ends one, or makes one wait.

use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use foobar_common::abi::MAX_HALF_OPEN;
use foobar_tests::cluster::{Cluster, echo, server};
use foobar_tests::flood::{Flood, Kind, Shape, mac};
use foobar_tests::heartbeat::Heartbeats;
use foobar_tests::host::VIP;
use foobar_tests::probe::{Outcome, connect};
use foobar_tests::process::Process;
use foobar_tests::{eventually, is_long};
use nix::sys::signal::Signal;
use serde_json::Value;

const PORT: u16 = 7007;
const WEBS: [&str; 2] = ["web1", "web2"];

/// How often each thing happens: in the plain run, and in the long one.
const KILLS: [usize; 2] = [5, 100];
const RELOADS: [usize; 2] = [3, 50];
const REPLACEMENTS: [usize; 2] = [1, 10];

#[test]
fn nothing_that_happens_to_the_balancer_ends_a_connection() -> Result<()> {
    let mut balancer = Balancer::start()?;
    let client = balancer.cluster.namespace("client")?;
    let heartbeats = Heartbeats::start(client, SocketAddr::from((VIP, PORT)), CONNECTIONS)?;
    let events: [(&str, Event); 6] = [
        ("agent kills", Balancer::kills),
        ("reloads", Balancer::reloads),
        ("program replacements", Balancer::replacements),
        ("upgrades to another program", Balancer::upgrade),
        ("a neighbour's drain", Balancer::drain),
        ("a SYN flood", Balancer::flood),
    ];
    let mut stalls = Vec::new();
    for (what, event) in events {
        let begun = Instant::now();
        event(&mut balancer, &heartbeats).with_context(|| format!("in {what}"))?;
        heartbeats.go_on().with_context(|| format!("after {what}"))?;
        let longest = heartbeats.longest();
        let time = begun.elapsed();
        println!("\n  {what}, in {time:.1?}: the longest wait for an echo was {longest:.2?}");
        if longest > STALL {
            stalls.push(format!("{longest:.2?} in {what}"));
        }
    }
    ensure!(stalls.is_empty(), "echoes were waited for: {}", stalls.join(", "));
    balancer.control(heartbeats)
}

type Event = fn(&mut Balancer, &Heartbeats) -> Result<()>;

/// The balancer with its backends.
struct Balancer {
    agent: Process,
    _backends: Vec<Process>,
    cluster: Cluster,
    site: String,
}

impl Balancer {
    fn start() -> Result<Self> {
        let mut site = "[site]\ndomain = \"www.foobar.com\"\nadmin = [\"10.0.1.41/32\"]\n\n".to_owned();
        site += &server("lb1", "balancer", &["eth0", "eth1"])?;
        for web in WEBS {
            site += &server(web, "web", &["eth0"])?;
        }
        let check = "check = { fall = 4 }";
        site +=
            &format!("[service.echo]\nlisten = \"{VIP}:{PORT}\"\nto = \"web:{PORT}\"\nforward = \"nat\"\n{check}\n\n");
        site += &echo(PORT)?;
        let cluster = Cluster::new(&site, &["lb1", WEBS[0], WEBS[1]])?;
        let agent = cluster.start("lb1")?;
        let backends = WEBS.iter().map(|web| cluster.start(web)).collect::<Result<_>>()?;
        ["lb1", WEBS[0], WEBS[1]].iter().try_for_each(|server| cluster.ready(server))?;
        cluster.settled("lb1")?;
        Ok(Self { agent, _backends: backends, cluster, site })
    }

    /// Its agent is killed and started again: the next one adopts what is pinned.
    fn kills(&mut self, heartbeats: &Heartbeats) -> Result<()> {
        for number in 1..=times(KILLS) {
            self.agent.signal(Signal::SIGKILL)?;
            self.agent.wait(DEADLINE)?;
            heartbeats.go_on().with_context(|| format!("without an agent, kill {number}"))?;
            self.next_agent(&[]).with_context(|| format!("after kill {number}"))?;
            heartbeats.go_on().with_context(|| format!("with the next agent, kill {number}"))?;
        }
        Ok(())
    }

    /// Rules come and go.
    fn reloads(&mut self, heartbeats: &Heartbeats) -> Result<()> {
        let rule = "[[rule]]\nname = \"extra\"\non = [\"lb1\"]\nfrom = [\"any\"]\nprotocol = \"tcp\"\n\
                    ports = [\"8123\"]\naction = \"allow\"\n";
        for number in 0..times(RELOADS) {
            let text = if number % 2 == 0 { format!("{}{rule}", self.site) } else { self.site.clone() };
            let before = self.generation()?;
            self.reload(&text)?;
            ensure!(self.generation()? > before, "reload {number} put nothing in force");
            heartbeats.go_on().with_context(|| format!("reload {number}"))?;
        }
        let site = self.site.clone();
        self.reload(&site)
    }

    /// Frames that grow and shrink again have the programs loaded anew, for those in one buffer or in many.
    fn replacements(&mut self, heartbeats: &Heartbeats) -> Result<()> {
        for number in 0..times(REPLACEMENTS) {
            for mtu in ["1600", "1500"] {
                let before = self.programs()?;
                self.cluster.run("lb1", "ip", &["link", "set", "eth0", "mtu", mtu])?;
                // The agent may have seen it first.
                let site = self.site.clone();
                self.reload(&site)?;
                eventually(DEADLINE, "every interface has another program", || {
                    Ok(self.programs()?.iter().zip(before).all(|(after, before)| *after != before))
                })?;
                heartbeats.go_on().with_context(|| format!("replacement {number}, MTU {mtu}"))?;
            }
        }
        Ok(())
    }

    /// An agent stops in order, and one with another program, which logs what it drops, takes over; and back.
    fn upgrade(&mut self, heartbeats: &Heartbeats) -> Result<()> {
        for _ in 0..times(REPLACEMENTS) {
            for options in [&["--log-drops"][..], &[]] {
                let before = self.programs()?;
                self.agent.signal(Signal::SIGTERM)?;
                self.agent.wait(DEADLINE)?;
                heartbeats.go_on().context("between two agents")?;
                self.next_agent(options)?;
                let after = self.programs()?;
                ensure!(after.iter().zip(before).all(|(after, before)| *after != before), "the old program is there");
                heartbeats.go_on().with_context(|| format!("under an agent with {options:?}"))?;
            }
        }
        Ok(())
    }

    /// One of the two backends is given nothing new, and keeps what it has.
    fn drain(&mut self, heartbeats: &Heartbeats) -> Result<()> {
        let held = |web: &str| -> Result<u64> {
            let report = self.cluster.json("lb1", &["flows", "count", "--service", "echo", "--backend", web])?;
            report["flows"].as_u64().context("a number of flows")
        };
        self.cluster.ask("lb1", &["backend", "drain", WEBS[0]])?;
        let client = self.cluster.namespace("client")?;
        let new = self.cluster.given_by("lb1", "echo", || {
            for _ in 0..10 {
                let outcome = connect(client, SocketAddr::from((VIP, PORT)), DEADLINE)?;
                ensure!(outcome == Outcome::Open, "a new connection beside a drained backend: {outcome:?}");
            }
            heartbeats.go_on().context("with a drained backend")
        })?;
        ensure!(new.values().eq(&[0, 10]), "new connections were given as {new:?}");
        let held = [held(WEBS[0])?, held(WEBS[1])?];
        let half = CONNECTIONS as u64 / 2;
        ensure!(held[0] >= half && held[1] >= half, "{held:?} flows: some have been moved");
        self.cluster.ask("lb1", &["backend", "enable", WEBS[0]])?;
        self.cluster.settled("lb1")
    }

    /// Half-open connections of ever new sources, twice as many as their table holds.
    fn flood(&mut self, heartbeats: &Heartbeats) -> Result<()> {
        let client = self.cluster.namespace("client")?;
        let before: u64 = self.cluster.given("lb1", "echo")?.values().sum();
        let packets = 2 * u64::from(MAX_HALF_OPEN);
        let macs = [mac(self.cluster.namespace("lb1")?, "eth1")?, mac(client, "eth0")?];
        let shape = Shape { kind: Kind::Syn, to: (VIP, PORT), macs, packets, rate: 100_000, first: 1 };
        let sent = Flood::start(client, shape)?.join()?;
        ensure!(sent == packets, "the flood was cut short: {sent}");
        let given = self.cluster.given("lb1", "echo")?.values().sum::<u64>() - before;
        println!("\n  {given} of {sent} SYNs became half-open flows; the table holds {MAX_HALF_OPEN}");
        ensure!(given > u64::from(MAX_HALF_OPEN), "only {given} SYNs became flows: the table was not full");
        heartbeats.go_on().context("while the table is full")
    }

    /// The control: a backend that dies ends its connections, which is seen, and nobody else's.
    fn control(&self, heartbeats: Heartbeats) -> Result<()> {
        self.cluster.kill_process(WEBS[0], "echo")?;
        eventually(DEADLINE, "a dead backend's connections end", || Ok(heartbeats.ended() >= CONNECTIONS / 2))?;
        let report = heartbeats.stop()?;
        ensure!(report.ended.len() == CONNECTIONS / 2, "{} have ended: {:?}", report.ended.len(), report.ended);
        Ok(())
    }

    fn next_agent(&mut self, options: &[&str]) -> Result<()> {
        self.agent = self.cluster.start_with("lb1", options)?;
        self.cluster.ready("lb1")?;
        ensure!(self.status()?["adopted"] == true, "the pinned maps were not adopted");
        self.cluster.settled("lb1")
    }

    fn reload(&self, site: &str) -> Result<()> {
        let (file, fresh) = (self.cluster.folder().join("site.toml"), self.cluster.folder().join("site.toml.new"));
        fs::write(&fresh, site)?;
        fs::rename(&fresh, &file)?;
        self.cluster.ask("lb1", &["reload"]).map(drop)
    }

    fn status(&self) -> Result<Value> {
        self.cluster.json("lb1", &["status"])
    }

    fn generation(&self) -> Result<u64> {
        self.status()?["generation"].as_u64().context("a generation")
    }

    /// Number of the program on each interface.
    fn programs(&self) -> Result<[u64; 2]> {
        let program = |interface: &str| -> Result<u64> {
            let shown = self.cluster.run("lb1", "ip", &["-json", "link", "show", "dev", interface])?;
            let shown: Value = serde_json::from_str(&shown)?;
            let program = &shown[0]["xdp"]["prog"]["id"];
            program.as_u64().with_context(|| format!("{interface} carries no program: {shown}"))
        };
        Ok([program("eth0")?, program("eth1")?])
    }
}

fn times([plain, long]: [usize; 2]) -> usize {
    if is_long() { long } else { plain }
}

const CONNECTIONS: usize = 64;
/// Who waits longer for an echo has noticed.
const STALL: Duration = Duration::from_secs(1);
const DEADLINE: Duration = Duration::from_secs(20);
