//! Named hosts of the packet tables, and the interfaces of the balancer under test.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// EtherType and number of the VLAN that the balancer has a device for.
pub const VLAN: (u16, u16) = (0x8100, 200);
/// Those of another one on the same wire, which no host is in.
pub const VLAN2: (u16, u16) = (0x88a8, 300);

/// An interface of the balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// Towards clients: 203.0.113.0/24, 2001:db8::/64.
    Front,
    /// Towards servers: 10.0.1.0/24, fd00:1::/64.
    Back,
    /// The device of [`VLAN`], which is carried by [`Wire::Back`]: 10.0.5.0/24, fd00:5::/64.
    Vlan,
}

impl Wire {
    /// MAC address of the balancer on it.
    pub const fn mac(self) -> [u8; 6] {
        match self {
            Self::Front => [2, 0, 0, 0, 2, 1],
            Self::Back => [2, 0, 0, 0, 1, 1],
            Self::Vlan => [2, 0, 0, 0, 5, 1],
        }
    }

    /// Its name in the namespace.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Front => "front",
            Self::Back => "back",
            Self::Vlan => "vlan",
        }
    }
}

/// A host: where it is, and its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host {
    /// The balancer's interface that leads to it.
    pub wire: Wire,
    /// Its MAC address on that wire.
    pub mac: [u8; 6],
    /// Its IPv4 address.
    pub v4: Ipv4Addr,
    /// Its IPv6 address.
    pub v6: Ipv6Addr,
}

impl Host {
    const fn front(last: u8) -> Self {
        Self {
            wire: Wire::Front,
            mac: [2, 0, 0, 0, 2, last],
            v4: Ipv4Addr::new(203, 0, 113, last),
            v6: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last as u16),
        }
    }

    const fn back(last: u8) -> Self {
        Self {
            wire: Wire::Back,
            mac: [2, 0, 0, 0, 1, last],
            v4: Ipv4Addr::new(10, 0, 1, last),
            v6: Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, last as u16),
        }
    }

    const fn vlan(last: u8) -> Self {
        Self {
            wire: Wire::Vlan,
            mac: [2, 0, 0, 0, 5, last],
            v4: Ipv4Addr::new(10, 0, 5, last),
            v6: Ipv6Addr::new(0xfd00, 5, 0, 0, 0, 0, 0, last as u16),
        }
    }

    /// A server of another network, behind [`ROUTER`].
    const fn behind_router(net: u8, last: u8) -> Self {
        Self {
            wire: Wire::Back,
            mac: ROUTER.mac,
            v4: Ipv4Addr::new(10, 0, net, last),
            v6: Ipv6Addr::new(0xfd00, net as u16, 0, 0, 0, 0, 0, last as u16),
        }
    }

    /// Somewhere beyond the clients' network; answers to it find no route.
    const fn far(net: u8, last: u8) -> Self {
        Self {
            wire: Wire::Front,
            mac: [2, 0, 0, 0, 2, 254],
            v4: Ipv4Addr::new(198, 51, net, last),
            v6: Ipv6Addr::new(0x2001, 0xdb8, net as u16, 0, 0, 0, 0, last as u16),
        }
    }

    /// Its address in a family.
    pub const fn address(&self, v6: bool) -> IpAddr {
        if v6 { IpAddr::V6(self.v6) } else { IpAddr::V4(self.v4) }
    }

    /// A host that is this one but for its addresses.
    #[must_use]
    pub const fn at(self, v4: Ipv4Addr, v6: Ipv6Addr) -> Self {
        Self { v4, v6, ..self }
    }
}

/// A client.
pub const CLIENT: Host = Host::front(50);
/// Another client.
pub const CLIENT2: Host = Host::front(51);
/// The address behind which services are.
pub const VIP: Host = Host::front(10);
/// A backend on the clients' side: packets to it leave by the way they came.
pub const EDGE: Host = Host::front(60);
/// The balancer.
pub const LB1: Host = Host::back(1);
/// A second address of the balancer, for connections with itself.
pub const LB1_TOO: Host = Host::back(2);
/// An address of the balancer's, from which backends see flows.
pub const SOURCE: Host = Host::back(100);
/// Another one.
pub const SOURCE2: Host = Host::back(101);
/// A web server.
pub const WEB1: Host = Host::back(11);
/// A web server.
pub const WEB2: Host = Host::back(12);
/// A web server.
pub const WEB3: Host = Host::back(13);
/// The balancer in its VLAN.
pub const LB1_VLAN: Host = Host::vlan(1);
/// A server in the VLAN.
pub const WEB4: Host = Host::vlan(14);
/// A client in the VLAN.
pub const INSIDER: Host = Host::vlan(50);
/// From where ssh is allowed.
pub const ADMIN: Host = Host::back(41);
/// Next to the administrator's address.
pub const ADMIN_NEIGHBOUR: Host = Host::back(42);
/// A server whose MAC address nobody knows.
pub const SILENT: Host = Host::back(99);
/// A server behind a link of 600 bytes (IPv4) and 1,280 bytes (IPv6).
pub const NARROW: Host = Host::back(98);
/// An office far away: its network is 198.51.100.0/24, 2001:db8:64::/48.
pub const OFFICE: Host = Host::far(100, 7);
/// In the upper half of the office's network.
pub const OFFICE_HIGH: Host =
    OFFICE.at(Ipv4Addr::new(198, 51, 100, 200), Ipv6Addr::new(0x2001, 0xdb8, 100, 0x8000, 0, 0, 0, 200));
/// One past the office's network.
pub const STRANGER: Host = Host::far(101, 0);
/// Denied everything.
pub const ENEMY: Host = Host::far(66, 66);
/// A server that no route leads to.
pub const NOWHERE: Host = Host::far(102, 1);

/// A VIP that tunnels reach the server at.
pub const VIP2: Host = Host::front(11);
/// A balancer whose tunnels end at the server.
pub const LB2: Host = Host::back(3);
/// The router to other networks.
pub const ROUTER: Host = Host::back(254);
/// A backend behind the router.
pub const FAR1: Host = Host::behind_router(2, 11);
/// Another one.
pub const FAR2: Host = Host::behind_router(2, 12);
/// A backend behind the router, on whose way there is room for 1,400 bytes.
pub const FAR_NARROW: Host = Host::behind_router(3, 11);

/// Hosts whose MAC addresses the balancer knows.
pub const NEIGHBOURS: [Host; 12] =
    [CLIENT, CLIENT2, EDGE, WEB1, WEB2, WEB3, ADMIN, ADMIN_NEIGHBOUR, NARROW, ROUTER, WEB4, INSIDER];
