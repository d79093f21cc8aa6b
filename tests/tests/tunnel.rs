//! Tunnels: backends behind a router in another network, which hold the VIP and answer clients without the balancer.
//!
//! ```text
//!   app1 .21 (client) ──┐
//!   lb1 .1 (VIP .100) ──┤ 10.0.1.0/24      10.0.2.0/24 ├── web1 .11
//!                       ├────── .254 db1 (router) .1 ────┤
//!                       │ fd00:1::/64      fd00:2::/64   ├── web2 .12
//! ```

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use foobar_tests::cluster::Cluster;
use foobar_tests::eventually;
use foobar_tests::metrics::Samples;
use foobar_tests::site::Binaries;
use nix::sys::signal::Signal;
use nix::sys::socket::{getsockopt, sockopt::TcpMaxSeg};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

const VIPS: [&str; 2] = ["10.0.1.100:7007", "[fd00:1::100]:7007"];
const WEBS: [&str; 2] = ["web1", "web2"];

fn site() -> Result<String> {
    let server = |name: &str, role: &str, net: u8, number: u8| {
        format!(
            "[[server]]\nname = \"{name}\"\nrole = \"{role}\"\naddress = \"10.0.{net}.{number}\"\naddress6 = \
             \"fd00:{net}::{number}\"\ninterfaces = [\"eth0\"]\n"
        )
    };
    let service = format!(
        "[service.bytes]\nlisten = [\"{}\", \"{}\"]\nto = \"web:7007\"\nforward = \"tunnel\"\nfrom = \
         [\"any\"]\ncheck = {{ interval_ms = 100, timeout_ms = 100 }}\n",
        VIPS[0], VIPS[1]
    );
    let echo = Binaries::find()?.echo;
    Ok([
        "[site]\ndomain = \"www.foobar.com\"\nadmin = [\"10.0.1.41/32\"]\n".to_owned(),
        server("lb1", "balancer", 1, 1),
        server("web1", "web", 2, 11),
        server("web2", "web", 2, 12),
        service,
        format!(
            "[process.echo]\non = [\"web\"]\nuser = \"root\"\ncommand = [\"{}\", \"--listen\", \"[::]:7007\", \"--server\", \
             \"{{server}}\"]\n",
            echo.display()
        ),
    ]
    .join("\n"))
}

/// Moves the web servers into a network of their own, behind `db1` as a router.
fn part(cluster: &Cluster) -> Result<()> {
    let shell = |host: &str, script: &str| cluster.run(host, "sh", &["-ec", script]).map(drop);
    let router = cluster.namespace("db1")?.name().to_owned();
    shell(
        "switch",
        &format!(
            "ip link add br1 type bridge mcast_snooping 0 stp_state 0 forward_delay 0
             ip link set br1 up
             ip link set web1 master br1
             ip link set web2 master br1
             ip link add far mtu 1500 type veth peer name eth1 netns {router}
             ip link set far master br1
             ip link set far up"
        ),
    )?;
    shell(
        "db1",
        "echo 1 > /proc/sys/net/ipv4/ip_forward
         echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
         ip addr add 10.0.1.254/24 dev eth0
         ip addr add fd00:1::254/64 dev eth0 nodad
         ip link set eth1 up
         ip addr add 10.0.2.1/24 dev eth1
         ip addr add fd00:2::1/64 dev eth1 nodad",
    )?;
    for (web, number) in WEBS.iter().zip([11, 12]) {
        shell(
            web,
            &format!(
                "ip addr flush dev eth0 scope global
                 ip addr add 10.0.2.{number}/24 dev eth0
                 ip addr add fd00:2::{number}/64 dev eth0 nodad
                 ip route replace default via 10.0.2.1
                 ip -6 route replace default via fd00:2::1"
            ),
        )?;
    }
    shell("lb1", "ip route add 10.0.2.0/24 via 10.0.1.254\nip -6 route add fd00:2::/64 via fd00:1::254")
}

/// So many connections one after the other, each answered.
async fn knocks(vip: &str, count: usize) -> Result<()> {
    for _ in 0..count {
        let mut stream = timeout(ANSWER, TcpStream::connect(vip)).await.context("no connection")??;
        stream.write_all(b"who").await?;
        let mut answer = [0; 3];
        timeout(ANSWER, stream.read_exact(&mut answer)).await.context("no answer")??;
        ensure!(&answer == b"who", "{answer:?}");
    }
    Ok(())
}

/// A megabyte there and back.
async fn bytes(vip: &str) -> Result<()> {
    let data: Vec<u8> = (0..1_usize << 20).map(|at| (at * 31 % 251) as u8).collect();
    let (mut reader, mut writer) =
        timeout(ANSWER, TcpStream::connect(vip)).await.context("no connection")??.into_split();
    let sent = data.clone();
    let writing = tokio::spawn(async move {
        writer.write_all(&sent).await?;
        writer.shutdown().await
    });
    let mut back = Vec::new();
    timeout(ANSWER, reader.read_to_end(&mut back)).await.context("the answer stalls")??;
    writing.await??;
    ensure!(back == data, "{} bytes came back, or others than were sent", back.len());
    Ok(())
}

/// Bytes of data in a segment that a client may send to begin with, and what the backends see of it meanwhile.
async fn segment(cluster: &Cluster, vip: &str) -> Result<(u32, String)> {
    let mut stream = timeout(ANSWER, TcpStream::connect(vip)).await.context("no connection")??;
    stream.write_all(b"who").await?;
    let mut answer = [0; 3];
    timeout(ANSWER, stream.read_exact(&mut answer)).await.context("no answer")??;
    let seen: String = WEBS.iter().map(|web| cluster.run(web, "ss", &["-Htn"])).collect::<Result<_>>()?;
    Ok((getsockopt(&stream, TcpMaxSeg)?, seen))
}

/// Connections that the balancer has given to each server, of the address family of a VIP.
fn given(cluster: &Cluster, vip: &str) -> Result<[u64; 2]> {
    let report = cluster.json("lb1", &["services"])?;
    ensure!(report["services"][0]["forward"] == "tunnel", "{report}");
    let backends = report["services"][0]["backends"].as_array().context("backends")?;
    let of = |server: &str| {
        let same = |address: &str| address.starts_with('[') == vip.starts_with('[');
        let mut backends = backends.iter().filter(|b| b["server"] == server);
        let found = backends.find(|b| b["address"].as_str().is_some_and(same)).context("a backend of this family")?;
        found["connections"].as_u64().context("a number")
    };
    Ok([of("web1")?, of("web2")?])
}

fn members(cluster: &Cluster) -> Result<()> {
    eventually(READY, "every backend is a member", || {
        let report = cluster.json("lb1", &["services"])?;
        let services = report["services"].as_array().context("services")?;
        let mut backends = services.iter().flat_map(|service| service["backends"].as_array().into_iter().flatten());
        let out = backends.find(|backend| backend["member"] != true);
        ensure!(out.is_none(), "{out:?}");
        Ok(true)
    })
}

/// What a host knows of the way to an address.
fn way(cluster: &Cluster, host: &str, to: &str) -> Result<String> {
    let address = to.rsplit_once(':').map_or(to, |(address, _)| address).trim_matches(['[', ']']);
    cluster.run(host, "ip", &["route", "get", address])
}

#[test]
fn backends_in_another_network_answer_by_themselves() -> Result<()> {
    let cluster = Cluster::new(&site()?, &["lb1", "web1", "web2"])?;
    part(&cluster)?;
    let _agents = [cluster.start("lb1")?, cluster.start("web2")?];
    let mut web1 = cluster.start("web1")?;
    ["web1", "web2", "lb1"].iter().try_for_each(|server| cluster.ready(server))?;
    members(&cluster)?;
    let client = cluster.namespace("app1")?;

    // What backends announce fits into the tunnel, so nothing that TCP sends is ever too long.
    for (vip, client_address, fitting) in [(VIPS[0], "10.0.1.21", 1401..=1440), (VIPS[1], "fd00:1::21", 1341..=1400)] {
        client.block_on(|| knocks(vip, 20))?.with_context(|| format!("by {vip}"))?;
        ensure!(given(&cluster, vip)? == [10, 10], "{vip} by {:?}", given(&cluster, vip)?);
        // Two, so that each backend has one.
        for time in ["first", "second"] {
            client.block_on(|| bytes(vip))?.with_context(|| format!("the {time} by {vip}"))?;
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
    for web in WEBS {
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
            client.block_on(|| bytes(vip))?.with_context(|| format!("what is too long, by {vip}"))?;
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
            client.block_on(|| bytes(vip))?.with_context(|| format!("over a narrow link, by {vip}"))?;
            Ok(way(&cluster, "app1", vip)?.contains(mtu))
        })?;
    }

    // What a backend needed is taken back.
    ensure!(cluster.run("web1", "ip", &["addr", "show", "lo"])?.contains("10.0.1.100"), "web1 holds no VIP");
    web1.signal(Signal::SIGTERM)?;
    web1.wait(READY)?;
    cluster.detach("web1")?;
    let held = cluster.run("web1", "ip", &["addr", "show", "lo"])?;
    ensure!(!held.contains("10.0.1.100") && !held.contains("fd00:1::100"), "web1 still holds the VIP: {held}");
    let ignores = cluster.run("web1", "cat", &["/proc/sys/net/ipv4/conf/all/arp_ignore"])?;
    ensure!(ignores.trim() == "0", "arp_ignore is {ignores}");
    ensure!(!cluster.pins("web1").exists(), "pins of web1 are left");
    eventually(READY, "the other one serves alone", || client.block_on(|| knocks(VIPS[0], 4))?.map(|()| true))
}

const READY: Duration = Duration::from_secs(20);
const ANSWER: Duration = Duration::from_secs(10);
