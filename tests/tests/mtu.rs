//! Every MTU from 1,400 to 1,500 on the links around the balancer: what is sent, without fragments, arrives whole, both ways.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use foobar_tests::cluster::{Cluster, echo, server};
use foobar_tests::host::SWITCH;
use foobar_tests::passing::Passing;
use foobar_tests::process::Process;
use foobar_tests::tcp_info::{self, SEND_MSS};
use foobar_tests::{is_long, obtained, router, transfer};
use tokio::net::TcpStream;

/// A way of forwarding, in the network that it is made for.
struct Mode {
    forward: &'static str,
    /// The VIP of each address family.
    vips: [&'static str; 2],
    client: &'static str,
    /// The backend's IPv4 address.
    backend: &'static str,
    /// Links to the client: interfaces of hosts.
    before: &'static [(&'static str, &'static str)],
    /// Where neither end knows how narrow the way is, and what makes it so.
    routes: &'static [(&'static str, &'static [Route])],
    /// Bytes that the balancer puts in front of a packet, of each address family.
    outer: [u32; 2],
}

/// A host, a destination, and the way there.
type Route = (&'static str, &'static str, &'static str);

const NAT: Mode = Mode {
    forward: "nat",
    vips: ["203.0.113.10:7007", "[2001:db8::10]:7007"],
    client: "client",
    backend: "10.0.1.11",
    before: &[("client", "eth0"), ("lb1", "eth1")],
    routes: &[(
        "of the balancer's routes",
        &[
            ("lb1", "10.0.1.11/32", "dev eth0"),
            ("lb1", "fd00:1::11/128", "dev eth0"),
            ("lb1", "203.0.113.50/32", "dev eth1"),
            ("lb1", "2001:db8::50/128", "dev eth1"),
        ],
    )],
    outer: [0, 0],
};

/// The backend answers by itself, so the client is in its network.
const DIRECT: Mode = Mode {
    forward: "direct",
    vips: ["10.0.1.100:7007", "[fd00:1::100]:7007"],
    client: "app1",
    backend: "10.0.1.11",
    before: &[("app1", "eth0"), (SWITCH, "app1")],
    routes: &[(
        "of the balancer's routes",
        &[("lb1", "10.0.1.11/32", "dev eth0"), ("lb1", "fd00:1::11/128", "dev eth0")],
    )],
    outer: [0, 0],
};

/// The same client, but the backend is behind a router.
const TUNNEL: Mode = Mode {
    forward: "tunnel",
    backend: "10.0.2.11",
    routes: &[
        (
            "of the balancer's routes",
            &[
                ("lb1", "10.0.2.11/32", "via 10.0.1.254 dev eth0"),
                ("lb1", "fd00:2::11/128", "via fd00:1::254 dev eth0"),
            ],
        ),
        ("of the router's", &[("db1", "10.0.2.11/32", "dev eth1"), ("db1", "fd00:2::11/128", "dev eth1")]),
    ],
    outer: [20, 40],
    ..DIRECT
};

/// Links to the backend.
const BEHIND: &[(&str, &str)] = &[("web1", "eth0"), (SWITCH, "web1")];
/// Where nothing is narrow.
const WIDE: u32 = 1500;

#[test]
fn what_is_sent_by_nat_arrives_whole_at_every_mtu() -> Result<()> {
    sweep(&NAT)
}

#[test]
fn what_is_sent_directly_arrives_whole_at_every_mtu() -> Result<()> {
    sweep(&DIRECT)
}

#[test]
fn what_is_sent_by_tunnels_arrives_whole_at_every_mtu() -> Result<()> {
    sweep(&TUNNEL)
}

fn sweep(mode: &Mode) -> Result<()> {
    let (cluster, _agents) = cluster(mode)?;
    // What the balancer answers by itself comes to a cable's other end only where that has a program, too.
    let _passing = Passing::attach(cluster.namespace("client")?, "eth0")?;
    let (step, bytes) = if is_long() { (1, 10_000_000) } else { (20, 1_000_000) };
    let data = transfer::bytes(bytes);
    for mtu in (1400..=WIDE).step_by(step) {
        for (place, links, widths) in
            [("before the balancer", mode.before, [mtu, WIDE]), ("behind it", BEHIND, [WIDE, mtu])]
        {
            set_mtu(&cluster, links, mtu)?;
            both_ways(&cluster, mode, widths, &data).with_context(|| format!("{}, MTU {mtu} {place}", mode.forward))?;
            set_mtu(&cluster, links, WIDE)?;
        }
        for (place, routes) in mode.routes {
            narrow(&cluster, mode, routes, mtu)?;
            both_ways(&cluster, mode, [WIDE, mtu], &data)
                .with_context(|| format!("{}, MTU {mtu} {place}", mode.forward))?;
            widen(&cluster, mode, routes)?;
        }
    }
    Ok(())
}

/// By the VIP of each family: everything comes back, in segments that are as large as the links before and behind the balancer
/// take them.
fn both_ways(cluster: &Cluster, mode: &Mode, [before, behind]: [u32; 2], data: &[u8]) -> Result<()> {
    for (vip, outer) in mode.vips.into_iter().zip(mode.outer) {
        let vip: SocketAddr = vip.parse()?;
        let client = cluster.namespace(mode.client)?;
        // The control, without which every MTU could be 1,500: less 20 or 40 bytes of IP and 32 of TCP with its timestamps.
        let expected = before.min(behind - outer) - if vip.is_ipv6() { 40 } else { 20 } - 32;
        // The balancer asks for its routes from time to time. What is lost or changed meanwhile ends the wait at once.
        let outcome = obtained(NOTICED, &format!("segments of {expected} bytes by {vip}"), || {
            match client.block_on(|| sent(vip, data)).flatten() {
                Ok(largest) if largest == expected => Ok(Some(Ok(()))),
                Ok(largest) => bail!("they are of {largest}"),
                Err(error) => Ok(Some(Err(error))),
            }
        });
        outcome?.with_context(|| format!("by {vip}"))?;
    }
    Ok(())
}

/// One balancer, one backend, one service.
fn cluster(mode: &Mode) -> Result<(Cluster, Vec<Process>)> {
    let mut site = "[site]\ndomain = \"www.foobar.com\"\nadmin = [\"10.0.1.41/32\"]\n\n".to_owned();
    site += &server("lb1", "balancer", &["eth0", "eth1"])?;
    let is_far = mode.forward == TUNNEL.forward;
    site += &if is_far { router::server(router::WEBS[0]) } else { server("web1", "web", &["eth0"])? };
    site += &format!(
        "[service.bytes]\nlisten = {:?}\nto = \"web:7007\"\nforward = \"{}\"\nfrom = [\"any\"]\ncheck = {{ fall = 4 }}\n\n",
        mode.vips, mode.forward
    );
    site += &echo(7007)?;
    let cluster = Cluster::new(&site, &["lb1", "web1"])?;
    if is_far {
        router::part(&cluster)?;
    }
    let agents = vec![cluster.start("lb1")?, cluster.start("web1")?];
    ["lb1", "web1"].iter().try_for_each(|server| cluster.ready(server))?;
    cluster.settled("lb1")?;
    Ok((cluster, agents))
}

fn set_mtu(cluster: &Cluster, links: &[(&str, &str)], mtu: u32) -> Result<()> {
    for (host, interface) in links {
        cluster.run(host, "ip", &["link", "set", interface, "mtu", &mtu.to_string()])?;
    }
    Ok(())
}

/// Bounds what may be sent on.
fn narrow(cluster: &Cluster, mode: &Mode, routes: &[Route], mtu: u32) -> Result<()> {
    for (host, to, way) in routes {
        cluster.run(host, "sh", &["-ec", &format!("ip route add {to} {way} mtu lock {mtu}")])?;
    }
    forget(cluster, mode)
}

/// Takes the bounds away. A route that stayed, locked at another MTU, would keep the balancer from learning.
fn widen(cluster: &Cluster, mode: &Mode, routes: &[Route]) -> Result<()> {
    for (host, to, _) in routes {
        cluster.run(host, "ip", &["route", "del", to])?;
    }
    forget(cluster, mode)
}

/// Has everybody forget what they were told of the way: the balancer first, which would tell it again.
fn forget(cluster: &Cluster, mode: &Mode) -> Result<()> {
    let flush = "ip -4 route flush cache\nip -6 route flush cache\n";
    // What is to be forgotten of IPv4 is only marked, until the host itself asks for the way: XDP programs are told it still.
    cluster.run("lb1", "sh", &["-ec", &format!("{flush}ip route get {}", mode.backend)])?;
    [mode.client, "web1"].iter().try_for_each(|host| cluster.run(host, "sh", &["-ec", flush]).map(drop))
}

/// Sends all of it and has it sent back; the size of the segments that were sent, bytes of payload.
///
/// The bytes themselves are compared, which no checksum could make stricter. Linux sets DF on all of them.
async fn sent(vip: SocketAddr, data: &[u8]) -> Result<u32> {
    segment(&transfer::there_and_back(vip, data).await?)
}

/// Size of the segments that a connection sends, bytes of payload.
fn segment(stream: &TcpStream) -> Result<u32> {
    let info: [u8; SEND_MSS + 4] = tcp_info::read(stream)?;
    Ok(u32::from_ne_bytes(info[SEND_MSS..].try_into()?))
}

const NOTICED: Duration = Duration::from_secs(5);
