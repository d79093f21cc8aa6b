//! ICMP errors through a `nat` service: path MTU discovery in both directions, refusals and used-up hops reach who has to know.
//!
//! ```text
//!   monitor .2 ── 192.0.2.0/24 ── client (a router) ── 203.0.113.0/24 ── lb1 ── 10.0.1.0/24 ── web1
//!              ◄── at most 1,400 ──                                          ── at most 1,300 ──►
//! ```

use std::io::{Error, ErrorKind};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use foobar_tests::cluster::{Cluster, echo, server};
use foobar_tests::metrics::Samples;
use foobar_tests::passing::Passing;
use foobar_tests::site::METRICS_PORT;
use foobar_tests::transfer::megabyte;
use nix::errno::Errno;

const VIPS: [&str; 2] = ["203.0.113.10", "2001:db8::10"];
/// Where bytes are echoed.
const ECHO: u16 = 7007;
/// Where nobody takes datagrams.
const CLOSED: u16 = 7008;

fn site() -> Result<String> {
    let service = |name: &str, protocol: &str, port: u16| {
        format!(
            "[service.{name}]\nlisten = [\"{}:{port}\", \"[{}]:{port}\"]\nprotocol = \"{protocol}\"\nto = \
             \"web:{port}\"\nforward = \"nat\"\ncheck = {{ interval_ms = 100, timeout_ms = 100 }}\n\n",
            VIPS[0], VIPS[1]
        )
    };
    let mut site =
        format!("[site]\ndomain = \"www.foobar.com\"\nadmin = [\"10.0.1.41/32\"]\nmetrics_port = {METRICS_PORT}\n\n");
    site += &server("lb1", "balancer", &["eth0", "eth1"])?;
    site += &server("web1", "web", &["eth0"])?;
    site += &service("bytes", "tcp", ECHO);
    site += &service("closed", "udp", CLOSED);
    Ok(site + &echo(ECHO)?)
}

/// A network behind the client, which becomes its router; packets of 1,400 bytes fit on the way there, of 1,300 to the backend.
fn wire(cluster: &Cluster) -> Result<()> {
    let far = cluster.namespace("monitor")?.name().to_owned();
    let ip = |host: &str, words: &str| {
        let words: Vec<&str> = words.split(' ').collect();
        cluster.run(host, "ip", &words).map(drop)
    };
    ip("client", &format!("link add inner type veth peer name far netns {far}"))?;
    for (host, interface, v4, v6) in [
        ("client", "inner", "192.0.2.1/24", "2001:db8:2::1/64"),
        ("monitor", "far", "192.0.2.2/24", "2001:db8:2::2/64"),
    ] {
        ip(host, &format!("addr add {v4} dev {interface}"))?;
        ip(host, &format!("addr add {v6} dev {interface} nodad"))?;
        ip(host, &format!("link set {interface} up"))?;
        cluster.run(host, "ethtool", &["-K", interface, "tx", "off"])?;
    }
    for setting in ["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"] {
        cluster.run("client", "sysctl", &["-qw", setting])?;
    }
    ip("monitor", "route replace default via 192.0.2.1")?;
    ip("monitor", "route replace default via 2001:db8:2::1")?;
    ip("lb1", "route add 192.0.2.0/24 via 203.0.113.50")?;
    ip("lb1", "route add 2001:db8:2::/64 via 2001:db8::50")?;
    ip("client", "route add 192.0.2.2/32 dev inner mtu lock 1400")?;
    ip("client", "route add 2001:db8:2::2/128 dev inner mtu lock 1400")?;
    ip("lb1", "route add 10.0.1.11/32 dev eth0 mtu lock 1300")?;
    ip("lb1", "route add fd00:1::11/128 dev eth0 mtu lock 1300")
}

/// What a datagram's sender is told, who waits for an answer; `hops`: the datagram gets no further.
fn told(vip: SocketAddr, hops: Option<u32>) -> Result<ErrorKind> {
    let any: IpAddr = if vip.is_ipv4() { "0.0.0.0".parse()? } else { "::".parse()? };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_read_timeout(Some(ANSWER))?;
    socket.connect(vip)?;
    if let Some(hops) = hops {
        let (level, name, errors) = if vip.is_ipv4() {
            (libc::IPPROTO_IP, libc::IP_TTL, libc::IP_RECVERR)
        } else {
            (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS, libc::IPV6_RECVERR)
        };
        set(&socket, level, name, hops)?;
        // Who does not ask is not told of hops: they may be a passing trouble.
        set(&socket, level, errors, 1)?;
    }
    socket.send(b"anybody there?")?;
    let mut buffer = [0; 64];
    let error = socket.recv(&mut buffer).err().context("somebody has answered")?;
    Ok(error.kind())
}

fn set(socket: &UdpSocket, level: i32, name: i32, value: u32) -> Result<()> {
    // SAFETY: an open socket, and a value of four bytes that lives for the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<u32>() as libc::socklen_t,
        )
    };
    Errno::result(result).map(drop).map_err(|error| Error::from(error).into())
}

fn counted(cluster: &Cluster, verdict: &str, reason: &str) -> Result<f64> {
    let samples = Samples::scrape(cluster.namespace("lb1")?, "lb1")?;
    Ok(samples.sum("foobar_verdict_packets_total", &[("verdict", verdict), ("reason", reason)]))
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
        ensure!(counted(&cluster, "forward", "icmp_error")? >= f64::from(number), "no router has complained: {vip}");
        ensure!(counted(&cluster, "answer", "too_big")? >= f64::from(number), "the balancer has not complained: {vip}");
        let refused = far.run(|| told(closed, None))??;
        ensure!(refused == ErrorKind::ConnectionRefused, "{vip}: a closed port is told as {refused}");
        // The client's router is the first hop, the balancer the second.
        let ended = far.run(|| told(closed, Some(2)))??;
        ensure!(ended == ErrorKind::HostUnreachable, "{vip}: used up hops are told as {ended}");
        ensure!(counted(&cluster, "answer", "time_exceeded")? >= f64::from(number), "hops: {vip}");
    }
    Ok(())
}

const ANSWER: Duration = Duration::from_secs(10);
