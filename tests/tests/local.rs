//! Local sockets under a service's rules: connections are followed to their end, and who takes none is taken out.
//!
//! `app2` alone has an agent; three echo services are its backends. What the agent says is compared with the backends' own
//! kernels.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use foobar_tests::cluster::Cluster;
use foobar_tests::eventually;
use foobar_tests::process::{Process, run};
use foobar_tests::site::Binaries;
use nix::sys::signal::Signal;

/// The fewest connections are exact, however connections end, and whatever becomes of agents in between.
#[test]
fn the_fewest_connections_are_exact() -> Result<()> {
    let bed = Bed::new("schedule = \"least-connections\"\n")?;
    let mut agent = bed.start()?;
    for vip in VIPS {
        let mut hold = bed.hold(vip)?;
        ensure!(hold.says("open 9")? == "9", "nine connections");
        ensure!(hold.says("peer")? == vip, "its peer is another one");
        bed.have(vip, [3, 3, 3])?;
        hold.says("close 4")?;
        bed.sum(vip, 5)?;
        ensure!(hold.says("open 4")? == "4", "four connections");
        bed.have(vip, [3, 3, 3])?;

        agent.signal(Signal::SIGKILL)?;
        agent.wait(DEADLINE)?;
        hold.says("close 1")?;
        ensure!(hold.says("open 4")? == "4", "connections without an agent");
        // The next agent replaces every program.
        agent = bed.start()?;
        bed.have(vip, [4, 4, 4])?;
        ensure!(hold.says("open 3")? == "3", "connections by new programs");
        bed.have(vip, [5, 5, 5])?;
        bed.cluster.ask("app2", &["reload"])?;
        hold.says("close 6")?;
        bed.sum(vip, 9)?;

        hold.kill()?;
        bed.have(vip, [0, 0, 0]).context("after its process was killed")?;
    }
    Ok(())
}

/// Never more than the limit, also when many come at once; one that ends makes room for one.
#[test]
fn no_more_than_the_limit() -> Result<()> {
    let bed = Bed::new("max_connections = 2\n")?;
    let _agent = bed.start()?;
    for vip in VIPS {
        let mut hold = bed.hold(vip)?;
        for _ in 0..5 {
            ensure!(hold.says("storm 40")? == "6, EPERM", "another number than six of forty");
            bed.have(vip, [2, 2, 2])?;
            ensure!(hold.says("open")? == "0, EPERM", "a seventh");
            hold.says("close 1")?;
            bed.sum(vip, 5)?;
            ensure!(hold.says("open 2")? == "1, EPERM", "another number than one");
            hold.says("close 6")?;
            bed.sum(vip, 0)?;
        }
    }
    Ok(())
}

/// Whatever a connection comes to before it is one, it is given back: refused, given up, or without an answer.
#[test]
fn attempts_are_given_back() -> Result<()> {
    let mut bed = Bed::new("schedule = \"least-connections\"\neject = { failures = 0 }\n")?;
    let _agent = bed.start()?;
    bed.echoes[0].signal(Signal::SIGKILL)?;
    bed.echoes[0].wait(DEADLINE)?;
    let mut hold = bed.hold(VIPS[0])?;
    ensure!(hold.says("open 6")?.ends_with(", ECONNREFUSED"), "nobody is refused");
    let [refused, ..] = bed.flows(VIPS[0])?;
    ensure!(refused == 0, "{refused} refused connections are held");
    let failed = bed.failures("web1")?;
    ensure!(failed > 0, "refused connections are not counted");
    hold.says("close 100")?;
    bed.sum(VIPS[0], 0)?;
    // Nobody answers any more: SYNs are lost.
    bed.cluster.run("web2", "ip", &["link", "set", "eth0", "down"])?;
    let before = bed.failures("web2")?;
    ensure!(hold.says("begin 30")? == "30", "attempts");
    hold.says("close 100")?;
    bed.sum(VIPS[0], 0)?;
    ensure!(bed.failures("web2")? == before, "what was given up at once speaks against the backend");
    ensure!(hold.says("begin 30")? == "30", "attempts");
    eventually(DEADLINE, "attempts without an answer are counted", || Ok(bed.failures("web2")? > before))?;
    hold.kill()?;
    bed.sum(VIPS[0], 0)
}

/// Connected sockets for datagrams count until they are closed.
#[test]
fn datagrams_count_until_their_sockets_close() -> Result<()> {
    let bed = Bed::new("protocol = \"udp\"\nschedule = \"least-connections\"\nmax_connections = 2\n")?;
    let _agent = bed.start()?;
    let mut hold = bed.hold(VIPS[0])?;
    ensure!(hold.says("datagrams 7")? == "6, EPERM", "another number than six");
    ensure!(bed.flows(VIPS[0])? == [2, 2, 2], "{:?}", bed.flows(VIPS[0])?);
    hold.says("close 2")?;
    bed.sum(VIPS[0], 4)?;
    hold.kill()?;
    bed.sum(VIPS[0], 0)
}

/// Whom a program is connected to, and who answers it, is the VIP that it has asked for: by IPv4, by IPv6, and by IPv4 from an
/// IPv6 socket.
#[test]
fn programs_see_the_vip() -> Result<()> {
    let vips = [VIPS[0], VIPS[1], "[::ffff:10.0.9.10]:7007"];
    let streams = Bed::new("")?;
    let agent = streams.start()?;
    for vip in vips {
        let mut hold = streams.hold(vip)?;
        ensure!(hold.says("open 3")? == "3", "no connection to {vip}");
        ensure!(hold.says("peer")? == vip, "{vip} is {}", hold.says("peer")?);
    }
    drop((agent, streams));
    let datagrams = Bed::new("protocol = \"udp\"\n")?;
    let _agent = datagrams.start()?;
    for vip in vips {
        let mut servers = BTreeSet::new();
        for more in [&[][..], &["--connected"], &[]] {
            let mut command = Command::new(Binaries::find()?.ask);
            command.args(["--to", vip]).args(more);
            datagrams.cluster.place("app2", "ask", &mut command)?;
            let said = run(&mut command).with_context(|| format!("{vip} {more:?}"))?;
            let answers: Vec<&str> = said.lines().filter(|line| *line != format!("peer {vip}")).collect();
            ensure!(answers.len() == 3 && answers.iter().all(|line| line.ends_with(&format!(" {vip}"))), "{said}");
            ensure!(more.is_empty() || said.starts_with("peer "), "{said}");
            ensure!(answers.iter().all(|line| *line == answers[0]), "a socket has left its server: {said}");
            servers.insert(answers[0].to_owned());
        }
        ensure!(servers.len() == 3, "three sockets were given {servers:?}");
    }
    Ok(())
}

/// A drain waits for connections of local sockets, too.
#[test]
fn a_drain_waits_for_them() -> Result<()> {
    let bed = Bed::new("")?;
    let _agent = bed.start()?;
    let mut hold = bed.hold(VIPS[0])?;
    ensure!(hold.says("open 6")? == "6", "six connections");
    bed.have(VIPS[0], [2, 2, 2])?;
    let drain = |patience: &str| bed.cluster.json("app2", &["backend", "drain", "web1", "--wait", patience]);
    let refusal = drain("1s").err().context("a wait for connections that are held has ended")?;
    ensure!(format!("{refusal:#}").contains("still has 2 flows"), "{refusal:#}");
    ensure!(hold.says("open 2")? == "2", "two connections");
    bed.have(VIPS[0], [2, 3, 3])?;
    hold.says("close 8")?;
    drain("30s").map(drop)
}

/// A backend that takes no connections, while its check is content, is taken out within a second, and comes back.
#[test]
fn who_takes_none_is_taken_out() -> Result<()> {
    let mut bed = Bed::new("eject = { failures = 3, time = \"2s\" }\n")?;
    let _agent = bed.start()?;
    let mut hold = bed.hold(VIPS[0])?;
    bed.echoes[0].signal(Signal::SIGKILL)?;
    bed.echoes[0].wait(DEADLINE)?;
    let (begun, mut bursts) = (Instant::now(), 0);
    while hold.says("open 9")? != "9" {
        ensure!(begun.elapsed() < DEADLINE, "web1 is still given connections");
        hold.says("close 9")?;
        bursts += 1;
    }
    let took = begun.elapsed();
    println!("taken out after {} ms and {bursts} bursts of nine connections", took.as_millis());
    ensure!(took < Duration::from_secs(1), "it took {} ms", took.as_millis());
    ensure!(bed.health("web1")? == "ejected", "it is {}", bed.health("web1")?);
    ensure!(hold.says("open 20")? == "20", "a connection fails while web1 is out");
    hold.says("close 100")?;
    ensure!(bed.metric("foobar_backend_ejected", "web1")? == 1.0, "the metric does not tell");
    ensure!(bed.metric("foobar_backend_ejections_total", "web1")? >= 1.0, "the metric does not tell");
    // On trial it fails once, and is out for twice the time.
    let mut failures = 0;
    eventually(DEADLINE, "it is out again", || {
        failures += usize::from(hold.says("open")? != "1");
        hold.says("close 1")?;
        Ok(bed.metric("foobar_backend_ejections_total", "web1")? >= 2.0)
    })?;
    println!("{failures} failures on trial");
    bed.echoes[0] = bed.echo("web1")?;
    eventually(DEADLINE, "it is given connections again", || {
        ensure!(hold.says("open 3")? == "3", "a connection fails");
        let flows = bed.flows(VIPS[0])?;
        hold.says("close 3")?;
        Ok(flows[0] > 0)
    })?;
    ensure!(bed.metric("foobar_backend_ejected", "web1")? == 0.0, "the metric does not tell");
    ensure!(hold.says("open 30")? == "30", "a connection fails");
    bed.have(VIPS[0], [10, 10, 10])
}

/// The server whose sockets they are, and their backends.
struct Bed {
    echoes: Vec<Process>,
    cluster: Cluster,
}

impl Bed {
    fn new(more: &str) -> Result<Self> {
        let cluster = Cluster::new(&site(more), &["app2"])?;
        let mut bed = Self { echoes: Vec::new(), cluster };
        for server in BACKENDS {
            let echo = bed.echo(server)?;
            bed.echoes.push(echo);
        }
        Ok(bed)
    }

    fn echo(&self, server: &str) -> Result<Process> {
        let mut command = Command::new(Binaries::find()?.echo);
        command.args(["--server", server, "--listen", "[::]:7007"]).stdin(Stdio::null());
        self.cluster.namespace(server)?.attach(&mut command);
        Process::spawn("the echo service", &mut command)
    }

    /// The agent, once every backend is a member.
    fn start(&self) -> Result<Process> {
        let agent = self.cluster.start("app2")?;
        self.cluster.ready("app2")?;
        eventually(DEADLINE, "every backend is a member", || {
            let out = self.backends()?.into_iter().find(|backend| backend["member"] != true);
            ensure!(out.is_none(), "{out:?}");
            Ok(true)
        })?;
        Ok(agent)
    }

    /// A program of the server's own.
    fn hold(&self, vip: &str) -> Result<Hold> {
        let mut command = Command::new(Binaries::find()?.hold);
        command.args(["--to", vip]).stdin(Stdio::piped()).stdout(Stdio::piped());
        self.cluster.place("app2", "hold", &mut command)?;
        let mut child = command.spawn().context("cannot start `hold`")?;
        let orders = child.stdin.take().context("no input")?;
        let answers = BufReader::new(child.stdout.take().context("no output")?);
        Ok(Hold { child, orders, answers })
    }

    fn backends(&self) -> Result<Vec<serde_json::Value>> {
        let report = self.cluster.json("app2", &["services"])?;
        report["services"][0]["backends"].as_array().cloned().context("backends")
    }

    /// Flows of each backend, of a VIP's address family, as the agent tells.
    fn flows(&self, vip: &str) -> Result<[u64; 3]> {
        let backends = self.backends()?;
        let mut flows = [0; 3];
        for (place, server) in flows.iter_mut().zip(BACKENDS) {
            let of = |backend: &&serde_json::Value| {
                let same = backend["address"].as_str().is_some_and(|a| a.starts_with('[') == vip.starts_with('['));
                backend["server"] == server && same
            };
            let backend = backends.iter().find(of).with_context(|| format!("{server} is no backend"))?;
            *place = backend["flows"].as_u64().context("a number")?;
        }
        Ok(flows)
    }

    fn health(&self, server: &str) -> Result<String> {
        let backend = self.backends()?.into_iter().find(|backend| backend["server"] == server);
        Ok(backend.context("a backend")?["health"].as_str().unwrap_or_default().to_owned())
    }

    /// So many connections, by the agent and by the kernels of the backends.
    fn have(&self, vip: &str, expected: [u64; 3]) -> Result<()> {
        eventually(DEADLINE, "the connections of each backend", || {
            let flows = self.flows(vip)?;
            ensure!(flows == expected, "the agent counts {flows:?} instead of {expected:?}");
            for (server, expected) in BACKENDS.iter().zip(expected) {
                let established = established(&self.cluster, server, vip.starts_with('['))?;
                ensure!(established == expected, "{server} has {established} instead of {expected}");
            }
            Ok(true)
        })
    }

    fn sum(&self, vip: &str, expected: u64) -> Result<()> {
        eventually(DEADLINE, "the connections of all backends", || {
            let flows = self.flows(vip)?;
            ensure!(flows.iter().sum::<u64>() == expected, "the agent counts {flows:?} instead of {expected}");
            Ok(true)
        })
    }

    fn failures(&self, server: &str) -> Result<u64> {
        Ok(self.metric("foobar_backend_connect_failures_total", server)? as u64)
    }

    fn metric(&self, name: &str, server: &str) -> Result<f64> {
        let samples = self.cluster.metrics("app2")?;
        samples.by(name, &[("service", "bytes")], "backend").get(server).copied().context("no such series")
    }
}

/// Connections to the echo service that a backend's kernel has, without those of health checks, which close at once.
fn established(cluster: &Cluster, server: &str, v6: bool) -> Result<u64> {
    // The echo service listens by IPv6 alone, so both families are in one table.
    let table = cluster.run(server, "cat", &["/proc/net/tcp6"])?;
    let port = format!(":{PORT:04X}");
    let of_family = |address: &str| address.starts_with("0000000000000000FFFF0000") != v6;
    let established = table.lines().skip(1).filter(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        matches!(fields[..], [_, local, _, "01", ..] if local.ends_with(&port) && of_family(local))
    });
    Ok(established.count() as u64)
}

/// A program that holds connections.
struct Hold {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Hold {
    fn says(&mut self, order: &str) -> Result<String> {
        writeln!(self.orders, "{order}")?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        Ok(answer.trim().to_owned())
    }

    fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.kill();
    }
}

fn site(more: &str) -> String {
    let server = |name: &str, role: &str, number: u8| {
        format!(
            "[[server]]\nname = \"{name}\"\nrole = \"{role}\"\naddress = \"10.0.1.{number}\"\naddress6 = \
             \"fd00:1::{number}\"\ninterfaces = [\"eth0\"]\n"
        )
    };
    // Its check is content whatever happens: what follows is seen by the connections themselves.
    let check = "check = { kind = \"script\", command = [\"/bin/true\"], interval_ms = 200, timeout_ms = 200 }\n";
    [
        "[site]\ndomain = \"www.foobar.com\"\nadmin = [\"10.0.1.41/32\"]\n".to_owned(),
        server("web1", "web", 11),
        server("web2", "web", 12),
        server("app1", "web", 21),
        server("app2", "app", 22),
        format!(
            "[service.bytes]\nlisten = [\"{}\", \"{}\"]\nto = \"web:{PORT}\"\nforward = \"socket\"\nfrom = [\"app\"]\n{check}{more}",
            VIPS[0], VIPS[1]
        ),
    ]
    .join("\n")
}

const BACKENDS: [&str; 3] = ["web1", "web2", "app1"];
const VIPS: [&str; 2] = ["10.0.9.10:7007", "[fd00:9::10]:7007"];
const PORT: u16 = 7007;
const DEADLINE: Duration = Duration::from_secs(20);
