//! Direct server return: clients reach the VIP by the balancer, its backends hold the VIP in silence and answer by themselves.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use foobar_tests::cluster::Cluster;
use foobar_tests::eventually;
use foobar_tests::site::Binaries;
use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

const VIPS: [&str; 2] = ["10.0.1.100:7007", "[fd00:1::100]:7007"];

fn site() -> Result<String> {
    let server = |name: &str, role: &str, number: u8| {
        format!(
            "[[server]]\nname = \"{name}\"\nrole = \"{role}\"\naddress = \"10.0.1.{number}\"\naddress6 = \
             \"fd00:1::{number}\"\ninterfaces = [\"eth0\"]\n"
        )
    };
    let service = format!(
        "[service.bytes]\nlisten = [\"{}\", \"{}\"]\nto = \"web:7007\"\nforward = \"direct\"\nfrom = \
         [\"any\"]\ncheck = {{ interval_ms = 100, timeout_ms = 100 }}\n",
        VIPS[0], VIPS[1]
    );
    let echo = Binaries::find()?.echo;
    Ok([
        "[site]\ndomain = \"www.foobar.com\"\nadmin = [\"10.0.1.41/32\"]\n".to_owned(),
        server("lb1", "balancer", 1),
        server("web1", "web", 11),
        server("web2", "web", 12),
        service,
        format!(
            "[process.echo]\non = [\"web\"]\nuser = \"root\"\ncommand = [\"{}\", \"--listen\", \"[::]:7007\", \"--server\", \
             \"{{server}}\"]\n",
            echo.display()
        ),
    ]
    .join("\n"))
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

/// Connections that the balancer has given to each server, of the address family of a VIP.
fn given(cluster: &Cluster, vip: &str) -> Result<[u64; 2]> {
    let report = cluster.json("lb1", &["services"])?;
    let backends = report["services"][0]["backends"].as_array().context("backends")?;
    let of = |server: &str| {
        let same = |address: &str| address.starts_with('[') == vip.starts_with('[');
        let mut backends = backends.iter().filter(|b| b["server"] == server);
        let found = backends.find(|b| b["address"].as_str().is_some_and(same)).context("a backend of this family")?;
        found["connections"].as_u64().context("a number")
    };
    Ok([of("web1")?, of("web2")?])
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

/// A backend that answers at its own address, and not for the VIP, is no member; the other family is not touched.
fn checked_by_the_vip(cluster: &Cluster) -> Result<()> {
    let member = |family: &str| -> Result<(bool, String)> {
        let report = cluster.json("lb1", &["services"])?;
        let backends = report["services"][0]["backends"].as_array().context("backends")?;
        let found = backends.iter().find(|backend| {
            backend["server"] == "web1"
                && backend["address"].as_str().is_some_and(|address| address.starts_with(family))
        });
        let backend = found.context("web1")?;
        Ok((backend["member"] == true, backend["failure"].as_str().unwrap_or_default().to_owned()))
    };
    for (family, other, vip) in [("10.", "[fd00", "10.0.1.100/32"), ("[fd00", "10.", "fd00:1::100/128")] {
        let lost = Instant::now();
        cluster.run("web1", "ip", &["addr", "del", vip, "dev", "lo"])?;
        eventually(ANSWER, "web1 is out without its VIP", || Ok(!member(family)?.0))?;
        let out = lost.elapsed();
        let (_, why) = member(family)?;
        ensure!(why.contains("for the VIP") && why.contains(&vip[..vip.len() - 4]), "the failure says `{why}`");
        ensure!(member(other)?.0, "web1 is out by its other family, too");
        println!("out {} ms after {vip} was taken from it: {why}", out.as_millis());
        ensure!(out < DETECTION, "web1 was out only after {out:?}");
        cluster.run("web1", "ip", &["addr", "add", vip, "dev", "lo"])?;
        eventually(READY, "web1 is a member again", || Ok(member(family)?.0))?;
    }
    Ok(())
}

#[test]
fn backends_answer_by_themselves_and_never_for_the_vip() -> Result<()> {
    let cluster = Cluster::new(&site()?, &["lb1", "web1", "web2"])?;
    let _agents = [cluster.start("lb1")?, cluster.start("web2")?];
    let mut web1 = cluster.start("web1")?;
    ["web1", "web2", "lb1"].iter().try_for_each(|server| cluster.ready(server))?;
    eventually(READY, "every backend is a member", || {
        let report = cluster.json("lb1", &["services"])?;
        let services = report["services"].as_array().context("services")?;
        let mut backends = services.iter().flat_map(|service| service["backends"].as_array().into_iter().flatten());
        let out = backends.find(|backend| backend["member"] != true);
        ensure!(out.is_none(), "{out:?}");
        Ok(true)
    })?;
    let client = cluster.namespace("app1")?;
    for vip in VIPS {
        client.block_on(|| knocks(vip, 20))?.with_context(|| format!("by {vip}"))?;
        ensure!(given(&cluster, vip)? == [10, 10], "{vip} by {:?}", given(&cluster, vip)?);
        // Two, so that each backend has one.
        client.block_on(|| bytes(vip))?.with_context(|| format!("the first by {vip}"))?;
        client.block_on(|| bytes(vip))?.with_context(|| format!("the second by {vip}"))?;
    }

    let known = cluster.run("app1", "ip", &["neigh", "show", "10.0.1.100"])?;
    let shown = cluster.run("lb1", "ip", &["link", "show", "eth0"])?;
    let own = shown.split("link/ether ").nth(1).and_then(|rest| rest.split(' ').next()).context("a MAC address")?;
    ensure!(known.contains(own), "the client knows the VIP as {known}, the balancer is {own}");
    let report = cluster.json("lb1", &["flows", "count"])?;
    let counts = report["counts"].as_array().context("counts")?;
    ensure!(counts.iter().all(|count| count["state"] == "closed"), "flows of connections that have ended: {report}");

    checked_by_the_vip(&cluster)?;

    // What a backend needed is taken back.
    ensure!(cluster.run("web1", "ip", &["addr", "show", "lo"])?.contains("10.0.1.100"), "web1 holds no VIP");
    web1.signal(Signal::SIGTERM)?;
    web1.wait(READY)?;
    cluster.detach("web1")?;
    let held = cluster.run("web1", "ip", &["addr", "show", "lo"])?;
    ensure!(!held.contains("10.0.1.100") && !held.contains("fd00:1::100"), "web1 still holds the VIP: {held}");
    let ignores = cluster.run("web1", "cat", &["/proc/sys/net/ipv4/conf/all/arp_ignore"])?;
    ensure!(ignores.trim() == "0", "arp_ignore is {ignores}");
    let before = given(&cluster, VIPS[0])?;
    eventually(READY, "the other one serves alone", || client.block_on(|| knocks(VIPS[0], 4))?.map(|()| true))?;
    let after = given(&cluster, VIPS[0])?;
    ensure!(after[1] >= before[1] + 4, "{before:?} connections before, {after:?} after");
    Ok(())
}

/// A second to notice, and what a loaded machine needs to tell.
const DETECTION: Duration = Duration::from_millis(1300);
/// The file does not say in which network a server is; the kernel's routes do.
#[test]
fn a_backend_behind_a_router_is_out_and_said_to_be() -> Result<()> {
    let far = "[[server]]\nname = \"web9\"\nrole = \"web\"\naddress = \"10.9.9.9\"\ninterfaces = [\"eth0\"]\n";
    let cluster = Cluster::new(&format!("{}\n{far}", site()?), &["lb1"])?;
    cluster.run("lb1", "ip", &["route", "add", "10.9.9.0/24", "via", "10.0.1.11"])?;
    let _agent = cluster.start("lb1")?;
    let mut failure = String::new();
    eventually(READY, "the failure is told", || {
        let Ok(report) = cluster.json("lb1", &["services"]) else { return Ok(false) };
        let backends = report["services"][0]["backends"].as_array().context("backends")?;
        let web9 = backends.iter().find(|backend| backend["server"] == "web9").context("web9")?;
        ensure!(web9["member"] == false, "it is a member: {web9}");
        failure = web9["failure"].as_str().unwrap_or_default().to_owned();
        Ok(!failure.is_empty())
    })?;
    ensure!(failure.contains("10.9.9.9 is in no network of this server") && failure.contains("tunnel"), "{failure}");
    Ok(())
}

const READY: Duration = Duration::from_secs(20);
const ANSWER: Duration = Duration::from_secs(5);
