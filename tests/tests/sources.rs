//! A nat service with sources of its own: backends that route past the balancer answer through it all the same, and every port
//! that a connection had is free again when it is over.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use foobar_tests::cluster::{Cluster, echo, server};
use foobar_tests::datagram;
use foobar_tests::eventually;
use foobar_tests::metrics::Samples;
use foobar_tests::transfer::{knocks, megabyte};
use serde_json::Value;

/// Two VIPs of each family.
const VIPS: [&str; 4] = ["203.0.113.10:7007", "203.0.113.10:7008", "[2001:db8::10]:7007", "[2001:db8::10]:7008"];
const SOURCES: [&str; 2] = ["10.0.1.100", "fd00:1::100"];

fn site() -> Result<String> {
    let service = |name: &str, protocol: &str| {
        format!(
            "[service.{name}]\nlisten = {VIPS:?}\nprotocol = \"{protocol}\"\nto = \"web:7007\"\nforward = \"nat\"\nsource = \
             {SOURCES:?}\nfrom = [\"any\"]\ncheck = {{ kind = \"tcp\", interval_ms = 100, timeout_ms = 100 }}\n\n"
        )
    };
    let mut site = "[site]\ndomain = \"www.foobar.com\"\nadmin = [\"10.0.1.41/32\"]\n\n".to_owned();
    site += &server("lb1", "balancer", &["eth0", "eth1"])?;
    site += &server("web1", "web", &["eth0"])?;
    site += &server("web2", "web", &["eth0"])?;
    site += &service("bytes", "tcp");
    site += &service("words", "udp");
    Ok(site + &echo(7007)?)
}

/// Flows that the balancer knows, every one of them from a source.
fn flows(cluster: &Cluster) -> Result<Vec<Value>> {
    let report = cluster.json("lb1", &["flows", "list", "--limit", "1000"])?;
    let list = report["list"].as_array().context("a list")?.clone();
    for flow in &list {
        let source: SocketAddr = flow["source"].as_str().with_context(|| format!("no source: {flow}"))?.parse()?;
        ensure!(SOURCES.contains(&source.ip().to_string().as_str()) && source.port() >= 1024, "{flow}");
    }
    Ok(list)
}

/// Entries for replies.
fn replies(cluster: &Cluster) -> Result<f64> {
    let samples = Samples::scrape(cluster.namespace("lb1")?, "lb1")?;
    let limits = samples.find("foobar_flow_replies_limit", &[]).count();
    ensure!(limits == 6, "{limits} tables");
    Ok(samples.sum("foobar_flow_replies", &[]))
}

#[test]
fn backends_that_route_elsewhere_answer_through_the_balancer() -> Result<()> {
    let cluster = Cluster::new(&site()?, &["lb1", "web1", "web2"])?;
    for server in ["web1", "web2"] {
        // No way to the client but by the balancer's source: its network is theirs.
        cluster.run(server, "ip", &["route", "del", "default"])?;
        cluster.run(server, "ip", &["-6", "route", "del", "default"])?;
    }
    let _agents = [cluster.start("lb1")?, cluster.start("web1")?, cluster.start("web2")?];
    ["web1", "web2", "lb1"].iter().try_for_each(|server| cluster.ready(server))?;
    cluster.settled("lb1")?;
    let report = cluster.json("lb1", &["services"])?;
    let services = report["services"].as_array().context("services")?;
    ensure!(services.iter().all(|service| service["sources"][0] == SOURCES[0]), "{report}");
    let client = cluster.namespace("client")?;
    for vip in VIPS {
        client.block_on(|| knocks(vip, 50))?.with_context(|| format!("by {vip}"))?;
        client.block_on(|| megabyte(vip))?.with_context(|| format!("the first megabyte by {vip}"))?;
        client.block_on(|| megabyte(vip))?.with_context(|| format!("the second by {vip}"))?;
        client.run(|| datagram::word(vip.parse()?))?.with_context(|| format!("a datagram by {vip}"))?;
    }
    // A neighbour of the backends, which they would answer past the balancer.
    client_beside(&cluster)?;

    let known = flows(&cluster)?;
    ensure!(known.len() >= 200, "{} flows are known", known.len());
    let mut ends: Vec<String> = known.iter().map(|flow| format!("{} {}", flow["endpoint"], flow["source"])).collect();
    ends.sort();
    ends.dedup();
    ensure!(ends.len() == known.len(), "{} flows share a port of {}", known.len() - ends.len(), known.len());
    eventually(READY, "the walk counts them", || Ok(replies(&cluster)? >= 200.0))?;

    // One that is ended by hand, at once; the others when their time is over.
    let killed = cluster.json("lb1", &["flows", "kill", "--service", "words"])?;
    ensure!(killed["ended"].as_u64().context("a number")? >= VIPS.len() as u64, "{killed}");
    eventually(OVER, "every port is free again", || {
        let (left, known) = (replies(&cluster)?, flows(&cluster)?.len());
        ensure!(left == 0.0 && known == 0, "{left} entries for replies, {known} flows");
        Ok(true)
    })?;
    VIPS.iter().try_for_each(|vip| client.block_on(|| knocks(vip, 4))?.with_context(|| format!("again by {vip}")))
}

fn client_beside(cluster: &Cluster) -> Result<()> {
    let beside = cluster.namespace("app1")?;
    for vip in VIPS {
        beside.block_on(|| knocks(vip, 2))?.with_context(|| format!("from beside by {vip}"))?;
    }
    Ok(())
}

const READY: Duration = Duration::from_secs(20);
/// Closed connections are remembered for a minute.
const OVER: Duration = Duration::from_secs(100);
