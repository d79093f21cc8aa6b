//! The hosts of the bed and their addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// One host: a namespace of the bed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host {
    /// Its name: the end of its namespace's name.
    pub name: &'static str,
    /// Its name in the site file, where a server cannot be called like a role; empty: not a server of the site.
    pub server: &'static str,
    /// Its role in the site file; `None`: not a server of the site, but the client, or one that other site files name.
    pub role: Option<&'static str>,
    /// Last part of its addresses: `10.0.1.N`, `fd00:1::N` (the decimal digits, read as hexadecimal).
    pub number: u8,
}

impl Host {
    /// The host called `name`.
    pub fn named(name: &str) -> Option<&'static Host> {
        HOSTS.iter().find(|host| host.name == name)
    }

    /// Its IPv4 address.
    pub fn v4(&self) -> Ipv4Addr {
        if self.is_client() { CLIENT } else { Ipv4Addr::new(10, 0, 1, self.number) }
    }

    /// Its IPv6 address.
    pub fn v6(&self) -> Ipv6Addr {
        if self.is_client() {
            return CLIENT6;
        }
        let digits = u16::from(self.number / 10) << 4 | u16::from(self.number % 10);
        Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, digits)
    }

    /// Whether it is the client, who is beyond the balancer.
    pub fn is_client(&self) -> bool {
        self.name == "client"
    }

    /// Whether one of its addresses is `address`.
    pub fn has(&self, address: IpAddr) -> bool {
        address == IpAddr::V4(self.v4()) || address == IpAddr::V6(self.v6())
    }
}

/// The servers of the site, in the order of the site file.
pub fn servers() -> impl Iterator<Item = &'static Host> {
    HOSTS.iter().filter(|host| host.role.is_some())
}

/// The hosts of one network, with a cable to the switch: all but the client.
pub fn cabled() -> impl Iterator<Item = &'static Host> {
    HOSTS.iter().filter(|host| !host.is_client())
}

/// Every host.
pub const HOSTS: [Host; 10] = [
    Host { name: "client", server: "", role: None, number: 50 },
    Host { name: "lb1", server: "lb1", role: Some("balancer"), number: 1 },
    Host { name: "web1", server: "web1", role: Some("web"), number: 11 },
    Host { name: "web2", server: "web2", role: Some("web"), number: 12 },
    Host { name: "app1", server: "app1", role: Some("app"), number: 21 },
    Host { name: "app2", server: "app2", role: Some("app"), number: 22 },
    Host { name: "db1", server: "db1", role: Some("database"), number: 31 },
    Host { name: "db2", server: "db2", role: Some("database"), number: 32 },
    Host { name: "db3", server: "", role: None, number: 33 },
    Host { name: "monitor", server: "monitor1", role: Some("monitor"), number: 41 },
];

/// Name of the namespace with the bridge.
pub const SWITCH: &str = "switch";
/// The public name of the site.
pub const DOMAIN: &str = "www.foobar.com";
/// The public virtual address.
pub const VIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
/// The public virtual address, IPv6.
pub const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10);
/// The client's address.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 50);
/// The client's IPv6 address.
pub const CLIENT6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x50);
/// The balancer's own address on the client's side.
pub const BALANCER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
/// The balancer's own IPv6 address on the client's side.
pub const BALANCER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_alike_in_both_families() {
        let web2 = Host::named("web2").expect("a host");
        assert_eq!(web2.v4().to_string(), "10.0.1.12");
        assert_eq!(web2.v6().to_string(), "fd00:1::12");
        assert_eq!(Host::named("client").expect("a host").v6(), CLIENT6);
    }
}
