//! Datagrams and ICMP errors through a tunnel: what a router on the way of the answers says, the backends hear; what backends and
//! the balancer say, the client.
//!
//! ```text
//!   monitor .2 ── 192.0.2.0/24 ── app1 (a router) .21 ── 10.0.1.0/24 ──┬── lb1 .1 (VIP .100)
//!              ◄── at most 1,400 ──                                    └── db1 (a router) ── 10.0.2.0/24 ── web1, web2
//! ```

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener};

use anyhow::{Context as _, Result, ensure};
use foobar_tests::cluster::{Cluster, echo, server, service};
use foobar_tests::datagram::{told, word};
use foobar_tests::router::{self, WEBS};
use foobar_tests::transfer::megabyte;

const VIPS: [&str; 2] = ["10.0.1.100", "fd00:1::100"];
/// Where bytes and datagrams are echoed.
const ECHO: u16 = 7007;
/// Where nobody takes datagrams.
const CLOSED: u16 = 7008;

fn site() -> Result<String> {
    let more = "forward = \"tunnel\"\nfrom = [\"any\"]\ncheck = { kind = \"tcp\" }";
    let mut site = "[site]\ndomain = \"www.foobar.com\"\nadmin = [\"10.0.1.41/32\"]\n\n".to_owned();
    site += &server("lb1", "balancer", &["eth0"])?;
    site += &WEBS.map(router::server).concat();
    site += &service("bytes", "tcp", VIPS, ECHO, more);
    site += &service("words", "udp", VIPS, ECHO, more);
    site += &service("closed", "udp", VIPS, CLOSED, more);
    Ok(site + &echo(ECHO)?)
}

/// The client's network behind `app1`, and the ways to it past the balancer.
fn wire(cluster: &Cluster) -> Result<()> {
    router::part(cluster)?;
    router::extend(cluster, "app1")?;
    let way = "ip route add 192.0.2.0/24 via 10.0.1.21\nip route add 2001:db8:2::/64 via fd00:1::21";
    ["lb1", "db1"].iter().try_for_each(|host| cluster.run(host, "sh", &["-ec", way]).map(drop))
}

#[test]
fn datagrams_and_errors_reach_who_has_to_know() -> Result<()> {
    let servers = ["lb1", WEBS[0].0, WEBS[1].0];
    let cluster = Cluster::new(&site()?, &servers)?;
    wire(&cluster)?;
    // The checks of the closed service find somebody: over TCP.
    let listen = |(web, _)| cluster.namespace(web)?.run(|| TcpListener::bind(("::", CLOSED)))?.map_err(Into::into);
    let _listeners = WEBS.into_iter().map(listen).collect::<Result<Vec<_>>>()?;
    let _agents = servers.iter().map(|server| cluster.start(server)).collect::<Result<Vec<_>>>()?;
    servers.iter().try_for_each(|server| cluster.ready(server))?;
    cluster.settled("lb1")?;
    let far = cluster.namespace("monitor")?;
    for (number, vip) in (1_u8..).zip(VIPS) {
        let vip: IpAddr = vip.parse()?;
        let (open, closed) = (SocketAddr::new(vip, ECHO), SocketAddr::new(vip, CLOSED));

        // Each backend answers for itself, from the VIP.
        let mut answers = [far.run(|| word(open))??, far.run(|| word(open))??];
        answers.sort();
        ensure!(answers == ["web1", "web2"], "{vip} by {answers:?}");

        // Answers are too long for the last link: its router tells the VIP, and the balancer the backend whose they are.
        for time in ["first", "second"] {
            far.block_on(|| megabyte(open))?.with_context(|| format!("the {time} by {vip}"))?;
        }
        let errors = cluster.verdicts("lb1", "forward", "icmp_error")?;
        ensure!(errors >= 2.0 * f64::from(number), "{errors} errors were sent on: {vip}");
        for (web, _) in WEBS {
            let way =
                cluster.run(web, "ip", &["route", "get", if number == 1 { "192.0.2.2" } else { "2001:db8:2::2" }])?;
            ensure!(way.contains("mtu 1400"), "{web} was not told how much the last link takes: {way}");
        }

        let refused = far.run(|| told(closed, None))??;
        ensure!(refused == ErrorKind::ConnectionRefused, "{vip}: a closed port is told as {refused}");
        // The client's router is the first hop, the balancer the second.
        let ended = far.run(|| told(closed, Some(2)))??;
        ensure!(ended == ErrorKind::HostUnreachable, "{vip}: used up hops are told as {ended}");
        ensure!(cluster.verdicts("lb1", "answer", "time_exceeded")? >= f64::from(number), "hops: {vip}");
    }
    Ok(())
}
