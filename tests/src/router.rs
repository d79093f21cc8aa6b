//! Other networks than the servers': the web servers move behind `db1`, a client is behind another host.
//!
//! ```text
//!   app1 .21 ─┐
//!   lb1 .1 ───┤ 10.0.1.0/24      10.0.2.0/24 ├── web1 .11
//!             ├────── .254 db1 (router) .1 ────┤
//!             │ fd00:1::/64      fd00:2::/64   ├── web2 .12
//! ```

use anyhow::Result;

use crate::cluster::Cluster;
use crate::host::SWITCH;

/// Web servers, and the last part of their addresses.
pub const WEBS: [(&str, u8); 2] = [("web1", 11), ("web2", 12)];

/// A web server's section of a site file: behind the router.
#[must_use]
pub fn server((name, number): (&str, u8)) -> String {
    format!(
        "[[server]]\nname = \"{name}\"\nrole = \"web\"\naddress = \"10.0.2.{number}\"\naddress6 = \
         \"fd00:2::{number}\"\ninterfaces = [\"eth0\"]\n\n"
    )
}

/// Moves the web servers, and tells the balancer of the router.
///
/// # Errors
/// A command fails.
pub fn part(cluster: &Cluster) -> Result<()> {
    let shell = |host: &str, script: &str| cluster.run(host, "sh", &["-ec", script]).map(drop);
    let router = cluster.namespace("db1")?.name().to_owned();
    shell(
        SWITCH,
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
    for (web, number) in WEBS {
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

/// Makes a network behind `host`, which becomes its router: `monitor` alone is in it, 192.0.2.2 and 2001:db8:2::2. Packets of
/// 1,400 bytes fit on the way there.
///
/// # Errors
/// A command fails.
pub fn extend(cluster: &Cluster, host: &str) -> Result<()> {
    let far = cluster.namespace("monitor")?.name().to_owned();
    let near = format!(
        "ip link add inner type veth peer name far netns {far}
         ip addr add 192.0.2.1/24 dev inner
         ip addr add 2001:db8:2::1/64 dev inner nodad
         ip link set inner up
         ethtool -K inner tx off
         echo 1 > /proc/sys/net/ipv4/ip_forward
         echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
         ip route add 192.0.2.2/32 dev inner mtu lock 1400
         ip route add 2001:db8:2::2/128 dev inner mtu lock 1400"
    );
    cluster.run(host, "sh", &["-ec", &near])?;
    let far = "ip link set eth0 down
               ip addr add 192.0.2.2/24 dev far
               ip addr add 2001:db8:2::2/64 dev far nodad
               ip link set far up
               ethtool -K far tx off
               ip route replace default via 192.0.2.1
               ip -6 route replace default via 2001:db8:2::1";
    cluster.run("monitor", "sh", &["-ec", far]).map(drop)
}
