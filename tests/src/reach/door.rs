//! Doors: an address of a server, and what is tried there.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use foobar_user::plan::Transport;
use foobar_user::site::{Forward, Site, SiteProcess};

use super::policy::visitor;
use crate::host::{BALANCER, BALANCER6, Host, servers};

/// What is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Knock {
    /// A TCP connection to this port.
    Tcp(u16),
    /// A datagram to this port.
    Udp(u16),
    /// An echo request of the address's ICMP.
    Echo,
}

/// One address of one server, and what is tried there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Door {
    /// The server's name in the site file.
    pub server: &'static str,
    /// One of its addresses: its own, a VIP, or one that the file does not name.
    pub address: IpAddr,
    /// What is tried.
    pub knock: Knock,
}

impl fmt::Display for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { server, address, knock } = self;
        match knock {
            Knock::Tcp(port) => write!(f, "{server} tcp {}", SocketAddr::new(*address, *port)),
            Knock::Udp(port) => write!(f, "{server} udp {}", SocketAddr::new(*address, *port)),
            Knock::Echo => write!(f, "{server} echo {address}"),
        }
    }
}

/// Every door of the other servers, in both families, that `host` can get an answer from if it may pass.
pub fn doors(site: &Site, host: &Host) -> Vec<Door> {
    let knocks = knocks(site);
    let others = servers().filter(|server| server.name != host.name);
    let places = others.flat_map(|server| addresses(site, server).into_iter().map(|address| (server.server, address)));
    let all =
        places.flat_map(|(server, address)| knocks.iter().map(move |knock| Door { server, address, knock: *knock }));
    all.filter(|door| !turns_back(site, host, door)).collect()
}

/// A server's own addresses; a balancer's VIPs and its addresses on the clients' side too.
fn addresses(site: &Site, server: &Host) -> Vec<IpAddr> {
    let mut addresses = vec![IpAddr::V4(server.v4()), IpAddr::V6(server.v6())];
    if server.role == Some("balancer") {
        let vips: BTreeSet<IpAddr> =
            public(site).flat_map(|service| service.listen.iter().map(|vip| vip.ip())).collect();
        addresses.extend(vips);
        addresses.extend([IpAddr::V4(BALANCER), IpAddr::V6(BALANCER6)]);
    }
    addresses
}

/// Every port that the file names, those of services that a site may have, and two neighbours of theirs that nobody uses.
fn knocks(site: &Site) -> Vec<Knock> {
    let mut tcp = BTreeSet::from([22, 80, 443, 5432, 7999, 8000, 8080, 8443, 8444, 9090, 9900]);
    let mut udp = BTreeSet::from([53, 8080]);
    tcp.extend([site.metrics_port.value, site.database_port()]);
    for service in &site.services {
        let ports = service.listen.iter().map(|vip| vip.port()).chain([service.to.port]);
        match service.protocol {
            Transport::Tcp => tcp.extend(ports),
            Transport::Udp => {
                // Checks of a datagram service are TCP.
                tcp.insert(service.to.port);
                udp.extend(ports);
            }
        }
        if let Forward::Tls(tls) = &service.forward {
            tcp.extend(tls.redirect_port);
        }
    }
    for process in &site.processes {
        if let SiteProcess::Prometheus { port, .. } = &process.kind {
            tcp.insert(port.value);
        }
    }
    tcp.into_iter().map(Knock::Tcp).chain(udp.into_iter().map(Knock::Udp)).chain([Knock::Echo]).collect()
}

/// A `nat` service tried by a server: its backend would answer past the balancer, which the README does not promise.
fn turns_back(site: &Site, host: &Host, door: &Door) -> bool {
    let inside = visitor(site, if door.address.is_ipv4() { host.v4().into() } else { host.v6().into() }).is_some();
    let of_service = |port: u16, protocol: Transport| {
        let mut nat = site.services.iter().filter(|s| s.forward == Forward::Nat && s.protocol == protocol);
        nat.any(|service| service.listen.iter().any(|vip| vip.value == SocketAddr::new(door.address, port)))
    };
    inside
        && match door.knock {
            Knock::Tcp(port) => of_service(port, Transport::Tcp),
            Knock::Udp(port) => of_service(port, Transport::Udp),
            Knock::Echo => false,
        }
}

/// Services that a balancer holds the VIPs of.
fn public(site: &Site) -> impl Iterator<Item = &foobar_user::site::Service> {
    site.services.iter().filter(|service| service.forward != Forward::Socket)
}
