//! Tunnels: backends behind a router in another network, which hold the VIP and answer clients without the balancer.
//! See [`foobar_tests::router`] for their network.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use foobar_tests::cluster::{Cluster, echo, server};
use foobar_tests::eventually;
use foobar_tests::metrics::Samples;
use foobar_tests::router::{self, WEBS};
use foobar_tests::transfer::{knocks, megabyte};
use nix::sys::socket::{getsockopt, sockopt::TcpMaxSeg};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

const VIPS: [&str; 2] = ["10.0.1.100:7007", "[fd00:1::100]:7007"];

fn site() -> Result<String> {
    let mut site = "[site]\ndomain = \"www.foobar.com\"\nadmin = [\"10.0.1.41/32\"]\n\n".to_owned();
    site += &server("lb1", "balancer", &["eth0"])?;
    site += &WEBS.map(router::server).concat();
    site += &format!(
        "[service.bytes]\nlisten = {VIPS:?}\nto = \"web:7007\"\nforward = \"tunnel\"\nfrom = [\"any\"]\n\
         check = {{ interval_ms = 100, timeout_ms = 100 }}\n\n"
    );
    Ok(site + &echo(7007)?)
}

/// Bytes of data in a segment that a client may send to begin with, and what the backends see of it meanwhile.
async fn segment(cluster: &Cluster, vip: &str) -> Result<(u32, String)> {
    let mut stream = timeout(ANSWER, TcpStream::connect(vip)).await.context("no connection")??;
    stream.write_all(b"who").await?;
    let mut answer = [0; 3];
    timeout(ANSWER, stream.read_exact(&mut answer)).await.context("no answer")??;
    let seen: String = WEBS.iter().map(|(web, _)| cluster.run(web, "ss", &["-Htn"])).collect::<Result<_>>()?;
    Ok((getsockopt(&stream, TcpMaxSeg)?, seen))
}

/// What a host knows of the way to an address.
fn way(cluster: &Cluster, host: &str, to: &str) -> Result<String> {
    let address = to.rsplit_once(':').map_or(to, |(address, _)| address).trim_matches(['[', ']']);
    cluster.run(host, "ip", &["route", "get", address])
}

#[test]
fn backends_in_another_network_answer_by_themselves() -> Result<()> {
    let cluster = Cluster::new(&site()?, &["lb1", "web1", "web2"])?;
    router::part(&cluster)?;
    let _agents = [cluster.start("lb1")?, cluster.start("web2")?];
    let web1 = cluster.start("web1")?;
    ["web1", "web2", "lb1"].iter().try_for_each(|server| cluster.ready(server))?;
    cluster.settled("lb1")?;
    let client = cluster.namespace("app1")?;

    // What backends announce fits into the tunnel, so nothing that TCP sends is ever too long.
    for (vip, client_address, fitting) in [(VIPS[0], "10.0.1.21", 1401..=1440), (VIPS[1], "fd00:1::21", 1341..=1400)] {
        let given = cluster.given_by("lb1", "bytes", || client.block_on(|| knocks(vip, 20))?)?;
        ensure!(given.values().eq(&[10, 10]), "{vip} by {given:?}");
        // Two, so that each backend has one.
        for time in ["first", "second"] {
            client.block_on(|| megabyte(vip))?.with_context(|| format!("the {time} by {vip}"))?;
        }
        let (most, seen) = client.block_on(|| segment(&cluster, vip))??;
        ensure!(fitting.contains(&most), "segments of {most} bytes by {vip}");
        ensure!(seen.contains(client_address), "no backend sees {client_address}: {seen}");
        ensure!(!way(&cluster, "app1", vip)?.contains("mtu"), "{}", way(&cluster, "app1", vip)?);
    }
    let metrics = Samples::scrape(cluster.namespace("lb1")?, "lb1")?;
    let sent: f64 = metrics.find("foobar_tunnel_packets_total", &[("way", "sent")]).map(|sample| sample.value).sum();
    ensure!(sent > 1000.0, "{sent} packets were put into tunnels");

    // Without that, the balancer tells clients.
    for (web, _) in WEBS {
        for pin in fs::read_dir(cluster.pins(web).join("links"))? {
            let path = pin?.path();
            if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("clamp-")) {
                fs::remove_file(path)?;
            }
        }
    }
    for (vip, mtu) in [(VIPS[0], "mtu 1480"), (VIPS[1], "mtu 1460")] {
        let bound = if vip == VIPS[0] { 1440 } else { 1400 };
        // A link that nobody holds any more goes a moment later.
        eventually(READY, "segments are as long as the link takes", || {
            let (most, _) = client.block_on(|| segment(&cluster, vip))??;
            ensure!(most > bound, "segments of {most} bytes by {vip}");
            Ok(true)
        })?;
        // The other backend's may go a moment later still.
        eventually(READY, "clients are told how much a tunnel takes", || {
            client.block_on(|| megabyte(vip))?.with_context(|| format!("what is too long, by {vip}"))?;
            Ok(way(&cluster, "app1", vip)?.contains(mtu))
        })?;
    }

    // A router further on has less room: it tells the balancer, and that tells clients.
    let narrow = "ip route replace 10.0.2.0/24 dev eth1 src 10.0.2.1 mtu lock 1400
                  ip -6 route replace fd00:2::/64 dev eth1 metric 256 mtu lock 1400";
    cluster.run("db1", "sh", &["-ec", narrow])?;
    for (vip, mtu) in [(VIPS[0], "mtu 1380"), (VIPS[1], "mtu 1360")] {
        // Each backend's way is learnt on its own.
        eventually(READY, "clients are told how much a narrow link takes", || {
            client.block_on(|| megabyte(vip))?.with_context(|| format!("over a narrow link, by {vip}"))?;
            Ok(way(&cluster, "app1", vip)?.contains(mtu))
        })?;
    }

    // What a backend needed is taken back.
    cluster.takes_back("web1", web1, ["10.0.1.100", "fd00:1::100"])?;
    eventually(READY, "the other one serves alone", || client.block_on(|| knocks(VIPS[0], 4))?.map(|()| true))
}

const READY: Duration = Duration::from_secs(20);
const ANSWER: Duration = Duration::from_secs(10);
