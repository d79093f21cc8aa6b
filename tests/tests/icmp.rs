//! ICMP errors through a `nat` service: path MTU discovery in both directions, refusals and used-up hops reach who has to know.
//!
//! ```text
//!   monitor .2 ── 192.0.2.0/24 ── client (a router) ── 203.0.113.0/24 ── lb1 ── 10.0.1.0/24 ── web1
//!              ◄── at most 1,400 ──                                          ── at most 1,300 ──►
//! ```

use std::io::ErrorKind;
use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use foobar_tests::cluster::{Cluster, echo, server, service};
use foobar_tests::datagram::told;
use foobar_tests::passing::Passing;
use foobar_tests::router;
use foobar_tests::site::METRICS_PORT;
use foobar_tests::transfer::megabyte;

const VIPS: [&str; 2] = ["203.0.113.10", "2001:db8::10"];
/// Where bytes are echoed.
const ECHO: u16 = 7007;
/// Where nobody takes datagrams.
const CLOSED: u16 = 7008;

fn site() -> Result<String> {
    let more = "forward = \"nat\"\ncheck = { interval_ms = 100, timeout_ms = 100 }";
    let mut site =
        format!("[site]\ndomain = \"www.foobar.com\"\nadmin = [\"10.0.1.41/32\"]\nmetrics_port = {METRICS_PORT}\n\n");
    site += &server("lb1", "balancer", &["eth0", "eth1"])?;
    site += &server("web1", "web", &["eth0"])?;
    site += &service("bytes", "tcp", VIPS, ECHO, more);
    site += &service("closed", "udp", VIPS, CLOSED, more);
    Ok(site + &echo(ECHO)?)
}

/// A network behind the client; packets of 1,300 bytes fit on the way to the backend.
fn wire(cluster: &Cluster) -> Result<()> {
    router::extend(cluster, "client")?;
    let ways = "ip route add 192.0.2.0/24 via 203.0.113.50
                ip route add 2001:db8:2::/64 via 2001:db8::50
                ip route add 10.0.1.11/32 dev eth0 mtu lock 1300
                ip route add fd00:1::11/128 dev eth0 mtu lock 1300";
    cluster.run("lb1", "sh", &["-ec", ways]).map(drop)
}

#[test]
fn errors_reach_who_has_sent_the_packet() -> Result<()> {
    let cluster = Cluster::new(&site()?, &["lb1", "web1"])?;
    wire(&cluster)?;
    let _passing = Passing::attach(cluster.namespace("client")?, "eth0")?;
    // The checks of the closed service find somebody: over TCP.
    let _listener = cluster.namespace("web1")?.run(|| std::net::TcpListener::bind(("::", CLOSED)))??;
    let _agents = [cluster.start("lb1")?, cluster.start("web1")?];
    ["web1", "lb1"].iter().try_for_each(|server| cluster.ready(server))?;
    cluster.settled("lb1")?;
    let far = cluster.namespace("monitor")?;
    for (number, vip) in (1_u8..).zip(VIPS) {
        let (bytes, closed) = (SocketAddr::new(vip.parse()?, ECHO), SocketAddr::new(vip.parse()?, CLOSED));
        far.block_on(|| megabyte(bytes))?.with_context(|| format!("by {vip}"))?;
        ensure!(
            cluster.verdicts("lb1", "forward", "icmp_error")? >= f64::from(number),
            "no router has complained: {vip}"
        );
        ensure!(
            cluster.verdicts("lb1", "answer", "too_big")? >= f64::from(number),
            "the balancer has not complained: {vip}"
        );
        let refused = far.run(|| told(closed, None))??;
        ensure!(refused == ErrorKind::ConnectionRefused, "{vip}: a closed port is told as {refused}");
        // The client's router is the first hop, the balancer the second.
        let ended = far.run(|| told(closed, Some(2)))??;
        ensure!(ended == ErrorKind::HostUnreachable, "{vip}: used up hops are told as {ended}");
        ensure!(cluster.verdicts("lb1", "answer", "time_exceeded")? >= f64::from(number), "hops: {vip}");
    }
    Ok(())
}
