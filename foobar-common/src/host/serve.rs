//! What tests put into the host's tables: a service, and ways to everywhere.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{HostRoute, HostTables};
use crate::abi::{BACKEND_MEMBER, Backend, Endpoint, SERVICE_WIRE, Service};
use crate::address::{Address, Be16, SocketKey, words};
use crate::tables::{Mac, Route};
use crate::vlan::Tag;

impl HostTables {
    /// Adds a service from the wire with one backend, whose replies find back; its places and flags are set here.
    ///
    /// # Panics
    /// The VIP and the backend are of two families.
    pub fn serve(&mut self, service: Service, protocol: u8, vip: (IpAddr, Be16), backend: (u32, IpAddr, Be16)) {
        let (slot, address, port) = backend;
        let service = Service { places: 1, flags: SERVICE_WIRE, ..service };
        let endpoint = Endpoint { vip: words(vip.0), port: vip.1, flags: 0, backend: slot };
        match (vip.0, address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                self.services4.insert(SocketKey::new(Address::from(a), vip.1, protocol), service);
                self.endpoints4.insert(SocketKey::new(Address::from(b), port, protocol), endpoint);
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                self.services6.insert(SocketKey::new(Address::from(a), vip.1, protocol), service);
                self.endpoints6.insert(SocketKey::new(Address::from(b), port, protocol), endpoint);
            }
            _ => panic!("{} and {address} are of two families", vip.0),
        }
        self.rings.insert((service.ring, 0), slot);
        let member = Backend { state: BACKEND_MEMBER, service: service.slot, weight: 1, ..Backend::default() };
        self.backends.insert(slot, Backend { address: words(address), port, ..member });
    }

    /// Everything is reachable by one neighbour, on ways that take packets of `mtu` bytes.
    pub fn reach_everything(&mut self, mtu: u16) {
        let route = Route::Hop {
            interface: 2,
            tag: Tag::NONE,
            source: Mac::new([2; 6]),
            destination: Mac::new([4; 6]),
            gateway: false,
            mtu,
        };
        for prefix in [IpNet::from(Ipv4Net::default()), Ipv6Net::default().into()] {
            self.routes.push(HostRoute { prefix, mtu, route });
        }
    }
}
