//! Direct server return: clients reach the VIP by the balancer, its backends hold the VIP in silence and answer by themselves.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use foobar_tests::cluster::{Cluster, echo, server};
use foobar_tests::eventually;
use foobar_tests::transfer::{knocks, megabyte};

const VIPS: [&str; 2] = ["10.0.1.100:7007", "[fd00:1::100]:7007"];

fn site() -> Result<String> {
    let mut site = "[site]\ndomain = \"www.foobar.com\"\nadmin = [\"10.0.1.41/32\"]\n\n".to_owned();
    site += &server("lb1", "balancer", &["eth0"])?;
    site += &server("web1", "web", &["eth0"])?;
    site += &server("web2", "web", &["eth0"])?;
    site += &format!(
        "[service.bytes]\nlisten = {VIPS:?}\nto = \"web:7007\"\nforward = \"direct\"\nfrom = [\"any\"]\n\
         check = {{ interval_ms = 100, timeout_ms = 100 }}\n\n"
    );
    Ok(site + &echo(7007)?)
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
    let web1 = cluster.start("web1")?;
    ["web1", "web2", "lb1"].iter().try_for_each(|server| cluster.ready(server))?;
    cluster.settled("lb1")?;
    let client = cluster.namespace("app1")?;
    for vip in VIPS {
        let given = cluster.given_by("lb1", "bytes", || client.block_on(|| knocks(vip, 20))?)?;
        ensure!(given.values().eq(&[10, 10]), "{vip} by {given:?}");
        // Two, so that each backend has one.
        client.block_on(|| megabyte(vip))?.with_context(|| format!("the first by {vip}"))?;
        client.block_on(|| megabyte(vip))?.with_context(|| format!("the second by {vip}"))?;
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
    cluster.takes_back("web1", web1, ["10.0.1.100", "fd00:1::100"])?;
    eventually(READY, "the other one serves alone", || {
        let given = cluster.given_by("lb1", "bytes", || client.block_on(|| knocks(VIPS[0], 4))?)?;
        ensure!(given["web2"] == 4, "{given:?}");
        Ok(true)
    })
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
