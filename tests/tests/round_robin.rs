//! Round robin over the wire and at `connect()` together: from two processors, by weights, through lost answers.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use foobar_tests::cluster::{Cluster, Given, echo, server};
use foobar_tests::host::VIP;
use foobar_tests::probe::{Outcome, connect};
use foobar_tests::process::{Process, feed};
use foobar_tests::site::Binaries;
use serde_json::Value;

const PORT: u16 = 7007;
const WEBS: [&str; 3] = ["web1", "web2", "app1"];
const VIPS: [&str; 2] = ["203.0.113.10:7007", "[2001:db8::10]:7007"];

/// One balancer, three backends; the balancer's own sockets take part.
fn cluster() -> Result<(Cluster, Vec<Process>)> {
    let mut site = "[site]\ndomain = \"www.foobar.com\"\nadmin = [\"10.0.1.41/32\"]\n\n".to_owned();
    site += &server("lb1", "balancer", &["eth0", "eth1"])?;
    for web in WEBS {
        site += &server(web, "web", &["eth0"])?;
    }
    site += &format!(
        "[service.echo]\nlisten = {VIPS:?}\nto = \"web:{PORT}\"\nforward = \"nat\"\ncheck = {{ fall = 4 }}\n\n"
    );
    site += &echo(PORT)?;
    let servers = ["lb1", WEBS[0], WEBS[1], WEBS[2]];
    let cluster = Cluster::new(&site, &servers)?;
    let agents = servers.iter().map(|server| cluster.start(server)).collect::<Result<Vec<_>>>()?;
    servers.iter().try_for_each(|server| cluster.ready(server))?;
    cluster.settled("lb1")?;
    Ok((cluster, agents))
}

/// Has so many connections opened on a host, by threads on every processor.
fn dial(cluster: &Cluster, host: &str, vip: &str, count: usize) -> Result<Process> {
    let mut command = Command::new(Binaries::find()?.dial);
    command.args(["--to", vip, "--count", &count.to_string()]).stdout(Stdio::null()).stderr(Stdio::null());
    cluster.spawn(host, &mut command)
}

/// Half of them by the wire and half at the balancer's own sockets, at the same time.
fn dial_both(cluster: &Cluster, vip: &str, count: usize) -> Result<()> {
    let mut callers = [dial(cluster, "client", vip, count - count / 2)?, dial(cluster, "lb1", vip, count / 2)?];
    for caller in &mut callers {
        let status = caller.wait(DIALLED)?;
        ensure!(status.success(), "connections to {vip} failed ({status})");
    }
    Ok(())
}

/// Packets that each queue of the balancer's outer interface has received.
fn received(cluster: &Cluster) -> Result<Vec<u64>> {
    let text = cluster.run("lb1", "ethtool", &["-S", "eth1"])?;
    let queue = |line: &str| {
        let (name, count) = line.trim().split_once(": ")?;
        (name.starts_with("rx_queue_") && name.ends_with("_xdp_packets")).then(|| count.parse().ok())?
    };
    Ok(text.lines().filter_map(queue).collect())
}

#[test]
fn three_backends_are_given_the_same_to_a_connection() -> Result<()> {
    let (cluster, _agents) = cluster()?;
    for (vip, count) in [(VIPS[0], 10_000), (VIPS[1], 1_000)] {
        let before = received(&cluster)?;
        let given = cluster.given_by("lb1", "echo", || dial_both(&cluster, vip, count))?;
        let (total, most, least) =
            (given.values().sum::<u64>(), given.values().max().copied(), given.values().min().copied());
        println!("\n  {count} connections to {vip}: {given:?}");
        ensure!(total == count as u64 && given.len() == WEBS.len(), "{count} connections became {given:?}");
        // Stricter than a ratio of 1.01: a cursor that goes round gives nobody more than one before the others.
        ensure!(most.zip(least).is_some_and(|(most, least)| most - least <= 1), "{count} to {vip} as {given:?}");
        let queues: Vec<u64> = received(&cluster)?.iter().zip(before).map(|(after, before)| after - before).collect();
        ensure!(queues.len() == 2 && queues.iter().all(|packets| *packets > count as u64 / 10), "queues: {queues:?}");
    }
    weights(&cluster)?;
    lost_answers(&cluster)?;
    the_next_port(&cluster)
}

/// 3, 2 and 1 of every six, whoever asks.
fn weights(cluster: &Cluster) -> Result<()> {
    for (web, weight) in WEBS.iter().zip(["3", "2", "1"]) {
        cluster.ask("lb1", &["backend", "weight", web, weight, "--service", "echo"])?;
    }
    let given = cluster.given_by("lb1", "echo", || dial_both(cluster, VIPS[0], 600))?;
    ensure!(given == expected([300, 200, 100]), "600 connections by weights of 3, 2, 1: {given:?}");
    for web in WEBS {
        cluster.ask("lb1", &["backend", "weight", web, "--service", "echo"])?;
    }
    let given = cluster.given_by("lb1", "echo", || dial_both(cluster, VIPS[0], 30))?;
    ensure!(given == expected([10, 10, 10]), "30 connections without weights: {given:?}");
    Ok(())
}

/// Every client loses its first answer and sends its SYN again: that moves the cursor once, and the connection nowhere.
fn lost_answers(cluster: &Cluster) -> Result<()> {
    let client = cluster.namespace("client")?;
    let given = cluster.given_by("lb1", "echo", || {
        let mut nft = Command::new("nft");
        client.attach(nft.args(["--file", "-"]));
        feed(&mut nft, LOSSES)?;
        let address: SocketAddr = VIPS[0].parse()?;
        let connected = client.run(|| {
            thread::scope(|scope| {
                let open = || TcpStream::connect_timeout(&address, DIALLED);
                let callers: Vec<_> = (0..LATE).map(|_| scope.spawn(open)).collect();
                callers.into_iter().filter_map(|caller| caller.join().ok()?.ok()).count()
            })
        })?;
        ensure!(connected == LATE, "{connected} of {LATE} connections came about");
        Ok(())
    })?;
    let counters = counters(cluster)?;
    cluster.run("client", "nft", &["delete", "table", "inet", "losses"])?;
    let late = LATE as u64;
    ensure!(counters["answers"] == late, "of {late} first answers {} were lost", counters["answers"]);
    ensure!(counters["syns"] >= 2 * late, "{} SYNs of {late} connections: none was sent again", counters["syns"]);
    ensure!(given == expected([late / 3; 3]), "{late} connections, {} SYNs: {given:?}", counters["syns"]);
    Ok(())
}

/// Packets by the name of the counter.
fn counters(cluster: &Cluster) -> Result<BTreeMap<String, u64>> {
    let listed: Value = serde_json::from_str(&cluster.run(
        "client",
        "nft",
        &["--json", "list", "counters", "table", "inet", "losses"],
    )?)?;
    let mut found = BTreeMap::new();
    for counter in listed["nftables"].as_array().context("a list")?.iter().filter_map(|item| item.get("counter")) {
        let name = counter["name"].as_str().context("a name")?.to_owned();
        found.insert(name, counter["packets"].as_u64().context("a number")?);
    }
    Ok(found)
}

/// Beside the port of the service there is nothing: for the wire a firewall, for local sockets nobody who listens.
fn the_next_port(cluster: &Cluster) -> Result<()> {
    let given = cluster.given_by("lb1", "echo", || {
        for port in [PORT - 1, PORT + 1] {
            let outcome = connect(cluster.namespace("client")?, SocketAddr::from((VIP, port)), SILENCE)?;
            ensure!(outcome == Outcome::Silent, "port {port} of the VIP, from the wire: {outcome:?}");
            let vip = SocketAddr::from((VIP, port)).to_string();
            ensure!(!dial(cluster, "lb1", &vip, 1)?.wait(DIALLED)?.success(), "port {port} of the VIP is served here");
        }
        let own = SocketAddr::from((Ipv4Addr::new(10, 0, 1, 1), PORT));
        let outcome = connect(cluster.namespace("client")?, own, SILENCE)?;
        ensure!(outcome == Outcome::Silent, "the balancer's own address is no VIP, and yet: {outcome:?}");
        Ok(())
    })?;
    ensure!(given == expected([0; 3]), "connections to other ports were given on: {given:?}");
    Ok(())
}

fn expected(counts: [u64; 3]) -> Given {
    WEBS.iter().map(|web| (*web).to_owned()).zip(counts).collect()
}

/// The first SYN with ACK for each port of the client is lost.
const LOSSES: &str = "\
table inet losses {
    counter answers { }
    counter syns { }
    set seen { type inet_service; flags dynamic; size 65535; }
    chain input {
        type filter hook input priority 0;
        tcp sport 7007 tcp flags & (syn | ack) == (syn | ack) tcp dport != @seen add @seen { tcp dport } counter name answers drop
    }
    chain output {
        type filter hook output priority 0;
        tcp dport 7007 tcp flags & (syn | ack) == syn counter name syns
    }
}
";
/// Connections whose first answers are lost.
const LATE: usize = 30;
const DIALLED: Duration = Duration::from_secs(60);
const SILENCE: Duration = Duration::from_millis(300);
