//! The policy: who may pass a door, said once more from the file's words, in another way than the rules are derived.

use std::net::{IpAddr, SocketAddr};

use foobar_user::plan::{Role, Transport};
use foobar_user::site::{At, Forward, Peer, Server, Service, Site, SiteProcess};

use super::door::{Door, Knock};

/// Whether the file lets `source` pass the door.
///
/// The file's own `[[rule]]`s are not looked at: the bed's has none.
pub fn admits(site: &Site, source: IpAddr, door: &Door) -> bool {
    let Some(server) = site.server(door.server) else { return false };
    let visitor = visitor(site, source);
    // Everybody else comes by way of the balancer, which lets nobody through to the servers behind it.
    if visitor.is_none() && server.role != Role::Balancer {
        return false;
    }
    let asked = Asked { site, server, source, visitor, address: door.address };
    match door.knock {
        Knock::Tcp(SSH) if asked.by_admin() => true,
        Knock::Tcp(port) => asked.for_own_port(port) || asked.for_vip(port, Transport::Tcp),
        Knock::Udp(port) => asked.for_datagrams(port) || asked.for_vip(port, Transport::Udp),
        Knock::Echo => asked.for_echo(),
    }
}

/// The server of the file that has this address.
pub(super) fn visitor(site: &Site, source: IpAddr) -> Option<&Server> {
    site.servers.iter().find(|server| server.addresses().any(|address| address == source))
}

/// A question: may this visitor in at this address of this server?
struct Asked<'s> {
    site: &'s Site,
    server: &'s Server,
    source: IpAddr,
    visitor: Option<&'s Server>,
    address: IpAddr,
}

impl Asked<'_> {
    fn by(&self, role: Role) -> bool {
        self.visitor.is_some_and(|visitor| visitor.role == role)
    }

    fn by_admin(&self) -> bool {
        self.site.admin.iter().any(|prefix| prefix.contains(&self.source))
    }

    fn by_one_of(&self, peers: &[At<Peer>]) -> bool {
        peers.iter().map(|peer| &peer.value).any(|peer| {
            *peer == Peer::Any
                || matches!(peer, Peer::Role(role) if self.by(*role))
                || matches!(peer, Peer::Server(name) if self.visitor.is_some_and(|visitor| *visitor.name == *name))
                || matches!(peer, Peer::Prefix(prefix) if prefix.contains(&self.source))
        })
    }

    fn at_own_address(&self) -> bool {
        self.server.addresses().any(|address| address == self.address)
    }

    /// Metrics for the monitor, Prometheus for admins, backends for whom their service names, databases for databases.
    fn for_own_port(&self, port: u16) -> bool {
        if !self.at_own_address() {
            return false;
        }
        let site = self.site;
        let prometheus = site.processes.iter().any(|process| {
            process.runs_on(self.server)
                && matches!(&process.kind, SiteProcess::Prometheus { port: own, .. } if **own == port)
        });
        let databases = site.database.is_some() && self.server.role == Role::Database && self.by(Role::Database);
        (port == *site.metrics_port && self.by(Role::Monitor))
            || (prometheus && self.by_admin())
            || (databases && port == site.database_port())
            || self.backend_of(port).any(|s| self.checks(s) || (s.protocol == Transport::Tcp && self.is_client(s)))
    }

    fn for_datagrams(&self, port: u16) -> bool {
        let mut services = self.backend_of(port).filter(|service| service.protocol == Transport::Udp);
        self.at_own_address() && services.any(|service| self.is_client(service))
    }

    /// Services that have this port of the server as a backend.
    fn backend_of(&self, port: u16) -> impl Iterator<Item = &Service> {
        self.site.services.iter().filter(move |s| s.to.role == self.server.role && s.to.port == port)
    }

    /// Whether a service's connections come to its backends from here.
    fn is_client(&self, service: &Service) -> bool {
        match service.forward {
            Forward::Tls(_) | Forward::Direct | Forward::Tunnel => self.by(Role::Balancer),
            Forward::Nat => self.by(Role::Balancer) || self.by_one_of(&service.from),
            Forward::Socket => self.by_one_of(&service.from),
        }
    }

    /// Whether its checks do; each of them is TCP, also those of a datagram service.
    fn checks(&self, service: &Service) -> bool {
        match service.forward {
            Forward::Tls(_) | Forward::Nat | Forward::Direct | Forward::Tunnel => self.by(Role::Balancer),
            Forward::Socket => self.by_one_of(&service.from),
        }
    }

    /// Whether the address and port are a service's, or those of its redirection, and open to the visitor.
    fn for_vip(&self, port: u16, protocol: Transport) -> bool {
        let at = SocketAddr::new(self.address, port);
        self.server.role == Role::Balancer
            && self.site.services.iter().any(|service| {
                let redirected = match &service.forward {
                    Forward::Socket => return false,
                    Forward::Nat | Forward::Direct | Forward::Tunnel => false,
                    Forward::Tls(tls) => {
                        tls.redirect_port == Some(port) && service.listen.iter().any(|vip| vip.ip() == at.ip())
                    }
                };
                let listens = service.listen.iter().any(|vip| vip.value == at);
                (listens || redirected) && service.protocol == protocol && self.by_one_of(&service.from)
            })
    }

    /// Servers and admins may ping every address that the file names.
    fn for_echo(&self) -> bool {
        let mut public = self.site.services.iter().filter(|service| service.forward != Forward::Socket);
        let is_vip = public.any(|service| service.listen.iter().any(|vip| vip.ip() == self.address));
        (self.visitor.is_some() || self.by_admin())
            && (self.at_own_address() || (is_vip && self.server.role == Role::Balancer))
    }
}

const SSH: u16 = 22;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Of `deploy/site.toml`, by hand.
    const TABLE: &[(&str, &str, &str, Knock, bool)] = &[
        ("203.0.113.50", "lb1", "203.0.113.10", Knock::Tcp(443), true),
        ("203.0.113.50", "lb1", "203.0.113.10", Knock::Tcp(80), true),
        ("203.0.113.50", "lb1", "203.0.113.10", Knock::Tcp(8443), false),
        ("203.0.113.50", "lb1", "10.0.1.1", Knock::Tcp(443), false),
        ("203.0.113.50", "lb1", "10.0.1.1", Knock::Tcp(22), false),
        ("203.0.113.50", "web1", "10.0.1.11", Knock::Tcp(8080), false),
        ("203.0.113.50", "lb1", "203.0.113.10", Knock::Echo, false),
        ("10.0.1.41", "lb1", "203.0.113.2", Knock::Tcp(22), true),
        ("10.0.1.41", "db1", "10.0.1.31", Knock::Tcp(9900), true),
        ("10.0.1.1", "db1", "10.0.1.31", Knock::Tcp(9900), false),
        ("10.0.1.1", "web1", "10.0.1.11", Knock::Tcp(8443), true),
        ("10.0.1.21", "web1", "10.0.1.11", Knock::Tcp(8443), false),
        ("10.0.1.21", "web1", "10.0.1.11", Knock::Tcp(8080), true),
        ("10.0.1.11", "app1", "10.0.1.21", Knock::Tcp(8000), true),
        ("10.0.1.11", "app1", "10.0.1.21", Knock::Tcp(7999), false),
        ("10.0.1.1", "app1", "10.0.1.21", Knock::Tcp(8000), false),
        ("10.0.1.22", "db2", "10.0.1.32", Knock::Tcp(5432), true),
        ("10.0.1.31", "db2", "10.0.1.32", Knock::Tcp(5432), true),
        ("10.0.1.11", "db2", "10.0.1.32", Knock::Tcp(5432), false),
        ("10.0.1.11", "db2", "10.0.1.32", Knock::Echo, true),
        ("10.0.1.11", "db2", "10.0.1.32", Knock::Udp(53), false),
    ];

    #[test]
    fn the_example_site_reads_as_a_person_reads_it() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/site.toml");
        let site = Site::read(&file).expect("the example is valid");
        for (source, server, address, knock, expected) in TABLE {
            let door = Door { server, address: address.parse().expect("an address"), knock: *knock };
            let source = source.parse().expect("an address");
            assert_eq!(admits(&site, source, &door), *expected, "{source} to {door}");
        }
    }
}
