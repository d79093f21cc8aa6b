//! A namespace with the balancer's interfaces, its neighbours and its routes; it ends with the thread inside it.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result};
use ipnet::IpNet;
use nix::sched::{CloneFlags, unshare};
use rtnetlink::packet_route::address::AddressHeaderFlags;
use rtnetlink::packet_route::neighbour::NeighbourState;
use rtnetlink::packet_route::route::{RouteAttribute, RouteMetric, RouteScope};
use rtnetlink::{AddressMessageBuilder, Handle, LinkUnspec, LinkVeth, RouteMessageBuilder};

use super::hosts::{
    CLIENT, FAR_NARROW, FAR1, Host, LB1, LB1_TOO, LB1_VLAN, NARROW, NEIGHBOURS, ROUTER, VIP, VLAN, VLAN2, WEB1, WEB4,
    Wire,
};
use crate::eventually;
use foobar_common::host::HostRoute;
use foobar_common::tables::{Mac, Route};
use foobar_common::vlan::Tag;
use foobar_user::datapath::vlans::Vlan;

/// The namespace works within this, or never.
const READY: Duration = Duration::from_secs(5);
/// MTU of the links.
pub const MTU: u16 = 1500;
/// MTU of the IPv4 route to [`NARROW`].
pub const NARROW_MTU: u16 = 600;
/// MTU of the routes to [`FAR_NARROW`].
pub const FAR_MTU: u16 = 1400;
/// MTU of the IPv6 route to [`NARROW`], the least that there is.
pub const NARROW_MTU6: u16 = 1280;

/// The namespace of the calling thread, as far as packets need it.
#[derive(Clone, Copy, Debug)]
pub struct Network {
    front: u32,
    back: u32,
    vlan: u32,
    /// By which nothing leaves.
    spare: u32,
}

impl Network {
    /// Moves the calling thread into a new namespace, and builds everything there.
    pub fn enter() -> Result<Self> {
        unshare(CloneFlags::CLONE_NEWNET).context("cannot make a network namespace: this needs root")?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let network = runtime.block_on(build())?;
        // Links and IPv6 addresses become usable a moment after they were switched on.
        eventually(READY, "routes in the new namespace", || {
            for host in [CLIENT, WEB1, WEB4, LB1_TOO] {
                for v6 in [false, true] {
                    let any = if v6 { IpAddr::from(Ipv6Addr::UNSPECIFIED) } else { Ipv4Addr::UNSPECIFIED.into() };
                    // Connecting a datagram socket sends nothing: it only asks for the route.
                    UdpSocket::bind((any, 0))?.connect((host.address(v6), 9))?;
                }
            }
            Ok(true)
        })?;
        Ok(network)
    }

    /// One that nobody has built, for tests on the host alone.
    #[must_use]
    pub const fn imagined() -> Self {
        Self { front: 11, back: 12, vlan: 13, spare: 14 }
    }

    /// Index of an interface.
    pub const fn index(&self, wire: Wire) -> u32 {
        match wire {
            Wire::Front => self.front,
            Wire::Back => self.back,
            Wire::Vlan => self.vlan,
        }
    }

    /// Interfaces by name.
    pub fn interfaces(&self) -> Vec<(String, u32)> {
        [Wire::Front, Wire::Back].map(|wire| (wire.name().to_owned(), self.index(wire))).to_vec()
    }

    /// By which interface each source would be answered; the server's own addresses by none.
    pub fn ways_back(&self) -> Vec<(IpNet, u32)> {
        let hop = |route: &HostRoute| match route.route {
            Route::Hop { interface, .. } => interface,
            Route::NoNeighbour if route.prefix.contains(&CLIENT.address(route.prefix.addr().is_ipv6())) => self.front,
            Route::NoNeighbour if route.prefix.contains(&WEB4.address(route.prefix.addr().is_ipv6())) => self.vlan,
            Route::NoNeighbour => self.back,
            _ => 0,
        };
        self.routes().iter().map(|route| (route.prefix, hop(route))).collect()
    }

    /// Devices of VLANs. This kernel has none, so that other interfaces stand for them: its routing tables do not see the
    /// difference.
    #[must_use]
    pub fn vlans(&self) -> Vec<Vlan> {
        let device = |device, (kind, number)| Vlan { device, parent: self.back, kind, number };
        vec![device(self.vlan, VLAN), device(self.spare, VLAN2)]
    }

    /// What the kernel's tables of this namespace answer.
    pub fn routes(&self) -> Vec<HostRoute> {
        let mut routes = vec![
            on_link("203.0.113.0/24", "2001:db8::/64", Route::NoNeighbour),
            on_link("10.0.1.0/24", "fd00:1::/64", Route::NoNeighbour),
            on_link("10.0.5.0/24", "fd00:5::/64", Route::NoNeighbour),
        ];
        for own in [VIP, LB1, LB1_TOO, LB1_VLAN, Host { v4: Ipv4Addr::new(203, 0, 113, 2), ..FRONT_SELF }] {
            routes.push(exactly(own, Route::Unreachable, MTU, MTU));
        }
        for broadcast in
            ["203.0.113.0/32", "203.0.113.255/32", "10.0.1.0/32", "10.0.1.255/32", "10.0.5.0/32", "10.0.5.255/32"]
        {
            routes.push(vec![HostRoute { prefix: net(broadcast), mtu: MTU, route: Route::Unreachable }]);
        }
        for anycast in ["2001:db8::/128", "fd00:1::/128", "fd00:5::/128"] {
            routes.push(vec![HostRoute { prefix: net(anycast), mtu: MTU, route: Route::Unreachable }]);
        }
        for host in NEIGHBOURS {
            let (mtu, mtu6) = if host == NARROW { (NARROW_MTU, NARROW_MTU6) } else { (MTU, MTU) };
            let (interface, source) = (self.index(host.wire), Mac::new(host.wire.mac()));
            let hop = Route::Hop {
                interface,
                tag: Tag::NONE,
                source,
                destination: Mac::new(host.mac),
                gateway: false,
                mtu: 1500,
            };
            routes.push(exactly(host, hop, mtu, mtu6));
        }
        for (host, mtu) in [(FAR1, MTU), (FAR_NARROW, FAR_MTU)] {
            let (interface, source) = (self.index(host.wire), Mac::new(host.wire.mac()));
            let route =
                Route::Hop { interface, tag: Tag::NONE, source, destination: Mac::new(host.mac), gateway: true, mtu };
            routes.push(around(host).map(|prefix| HostRoute { prefix, mtu, route }).to_vec());
        }
        routes.concat()
    }
}

/// The balancer's own address on the clients' side.
const FRONT_SELF: Host = VIP.at(Ipv4Addr::new(203, 0, 113, 2), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2));

/// The networks of a host behind the router.
fn around(host: Host) -> [IpNet; 2] {
    let of = |v6: bool, length: u8| IpNet::new(host.address(v6), length).expect("a length of this file").trunc();
    [of(false, 24), of(true, 64)]
}

fn net(text: &str) -> IpNet {
    text.parse().expect("a prefix in this file")
}

fn on_link(v4: &str, v6: &str, route: Route) -> Vec<HostRoute> {
    [v4, v6].map(|prefix| HostRoute { prefix: net(prefix), mtu: MTU, route }).to_vec()
}

fn exactly(host: Host, route: Route, mtu: u16, mtu6: u16) -> Vec<HostRoute> {
    let of = |v6: bool, mtu| HostRoute { prefix: IpNet::from(host.address(v6)), mtu, route };
    vec![of(false, mtu), of(true, mtu6)]
}

async fn build() -> Result<Network> {
    for (path, value) in [
        ("/proc/sys/net/ipv4/ip_forward", "1"),
        ("/proc/sys/net/ipv6/conf/all/forwarding", "1"),
        // No link-local traffic of its own.
        ("/proc/sys/net/ipv6/conf/default/addr_gen_mode", "1"),
    ] {
        fs::write(path, value).with_context(|| format!("cannot write {value} to {path}"))?;
    }
    let (connection, handle, _) = rtnetlink::new_connection().context("cannot talk to the kernel's routing socket")?;
    tokio::spawn(connection);
    up(&handle, "lo").await?;
    for wire in [Wire::Front, Wire::Back, Wire::Vlan] {
        let peer = format!("{}-peer", wire.name());
        let pair = LinkVeth::new(wire.name(), &peer).address(wire.mac().to_vec()).build();
        handle.link().add(pair).execute().await.context("cannot make a pair of veth interfaces")?;
        up(&handle, &peer).await?;
        up(&handle, wire.name()).await?;
    }
    let network =
        Network { front: index("front")?, back: index("back")?, vlan: index("vlan")?, spare: index("vlan-peer")? };
    for (host, length) in
        [(FRONT_SELF, (24, 64)), (LB1, (24, 64)), (LB1_VLAN, (24, 64)), (LB1_TOO, (32, 128)), (VIP, (32, 128))]
    {
        hold(&handle, host, network.index(host.wire), length).await?;
    }
    for host in NEIGHBOURS {
        for v6 in [false, true] {
            let request = handle.neighbours().add(network.index(host.wire), host.address(v6));
            let request = request.link_layer_address(&host.mac).state(NeighbourState::Permanent).replace();
            request.execute().await.with_context(|| format!("cannot add the neighbour {}", host.address(v6)))?;
        }
    }
    narrow(&handle, network.index(NARROW.wire)).await?;
    behind_router(&handle, FAR1, None).await?;
    behind_router(&handle, FAR_NARROW, Some(FAR_MTU)).await?;
    Ok(network)
}

fn index(name: &str) -> Result<u32> {
    nix::net::if_::if_nametoindex(name).with_context(|| format!("no interface {name}"))
}

async fn up(handle: &Handle, name: &str) -> Result<()> {
    let message = LinkUnspec::new_with_index(index(name)?).up().build();
    handle.link().change(message).execute().await.with_context(|| format!("cannot switch {name} on"))
}

async fn hold(handle: &Handle, host: Host, interface: u32, (length, length6): (u8, u8)) -> Result<()> {
    for v6 in [false, true] {
        let (address, length) = (host.address(v6), if v6 { length6 } else { length });
        let mut message = match address {
            IpAddr::V4(v4) => AddressMessageBuilder::<Ipv4Addr>::new().index(interface).address(v4, length).build(),
            IpAddr::V6(v6) => AddressMessageBuilder::<Ipv6Addr>::new().index(interface).address(v6, length).build(),
        };
        message.header.flags |= AddressHeaderFlags::Nodad;
        let mut request = handle.address().add(interface, address, length);
        *request.message_mut() = message;
        request.execute().await.with_context(|| format!("cannot add the address {address}"))?;
    }
    Ok(())
}

/// A route with a small MTU.
async fn narrow(handle: &Handle, interface: u32) -> Result<()> {
    let mut v4 = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(NARROW.v4, 32)
        .output_interface(interface)
        .scope(RouteScope::Link)
        .build();
    v4.attributes.push(mtu(NARROW_MTU));
    handle.route().add(v4).execute().await.context("cannot add an IPv4 route with an MTU")?;
    let mut v6 =
        RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(NARROW.v6, 128).output_interface(interface).build();
    v6.attributes.push(mtu(NARROW_MTU6));
    handle.route().add(v6).execute().await.context("cannot add an IPv6 route with an MTU")
}

/// Routes to the networks of a host behind the router, with a small MTU or without.
async fn behind_router(handle: &Handle, host: Host, bytes: Option<u16>) -> Result<()> {
    for prefix in around(host) {
        let attributes = bytes.into_iter().map(mtu);
        let message = match prefix {
            IpNet::V4(net) => {
                let route = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(net.addr(), net.prefix_len());
                let mut route = route.gateway(ROUTER.v4).build();
                route.attributes.extend(attributes);
                route
            }
            IpNet::V6(net) => {
                let route = RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(net.addr(), net.prefix_len());
                let mut route = route.gateway(ROUTER.v6).build();
                route.attributes.extend(attributes);
                route
            }
        };
        handle.route().add(message).execute().await.with_context(|| format!("cannot add a route to {prefix}"))?;
    }
    Ok(())
}

/// A route's MTU; forwarding looks only at one that is locked.
fn mtu(bytes: u16) -> RouteAttribute {
    const MTU_BIT: u32 = 1 << 2;
    RouteAttribute::Metrics(vec![RouteMetric::Lock(MTU_BIT), RouteMetric::Mtu(u32::from(bytes))])
}
