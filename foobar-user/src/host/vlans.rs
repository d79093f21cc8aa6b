//! The devices of VLANs that this host has, and the cards that take tags off before the packet path sees them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::UdpSocket;
use std::os::fd::AsRawFd as _;

use anyhow::{Context, Result};
use futures_util::TryStreamExt as _;
use nix::errno::Errno;
use rtnetlink::Handle;
use rtnetlink::packet_route::link::{InfoData, InfoKind, InfoVlan, LinkAttribute, LinkInfo, LinkMessage, VlanProtocol};
use tracing::warn;

use crate::datapath::vlans::Vlan;

/// `linux/ethtool.h`: asks for the flags of an interface.
const ETHTOOL_GFLAGS: u32 = 0x25;
/// `linux/ethtool.h`: it takes VLAN tags off what it receives.
const ETH_FLAG_RXVLAN: u32 = 1 << 8;

/// A look at the devices of VLANs, again and again.
pub struct Watch {
    handle: Handle,
    /// What was found last.
    known: Vec<Vlan>,
    /// Their names, by index.
    names: BTreeMap<u32, String>,
    /// Those whose settings follow the plan.
    settled: Vec<Vlan>,
    /// Interfaces of which was told that they take tags off.
    told: BTreeSet<String>,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("known", &self.known).finish_non_exhaustive()
    }
}

impl Watch {
    /// Of this network namespace.
    ///
    /// # Errors
    /// The kernel's routing socket cannot be opened.
    pub fn start() -> Result<Self> {
        let (connection, handle, _) =
            rtnetlink::new_connection().context("cannot talk to the kernel's routing socket")?;
        tokio::spawn(connection);
        let (known, names, settled) = (Vec::new(), BTreeMap::new(), Vec::new());
        Ok(Self { handle, known, names, settled, told: BTreeSet::new() })
    }

    /// What there is now.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub async fn look(&mut self) -> Result<&[Vlan]> {
        let mut request = self.handle.link().get();
        // The kernel then sends no others; one that knows no VLANs sends all.
        request.message_mut().attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Vlan)]));
        let links: Vec<LinkMessage> =
            request.execute().try_collect().await.context("cannot list the devices of VLANs")?;
        let mut found: Vec<Vlan> = links.iter().filter_map(vlan).collect();
        found.sort_unstable();
        self.known = found;
        self.names = links.iter().filter_map(|link| Some((link.header.index, name(link)?))).collect();
        Ok(&self.known)
    }

    /// Names of the devices of VLANs on these interfaces, also of those within others.
    pub fn on(&self, interfaces: impl Iterator<Item = (String, u32)>) -> Vec<String> {
        let found = on(&self.known, interfaces.map(|(_, index)| index).collect());
        found.iter().filter_map(|device| self.names.get(device).cloned()).collect()
    }

    /// Whether there are others than those whose settings follow the plan.
    #[must_use]
    pub fn unsettled(&self) -> bool {
        self.known != self.settled
    }

    /// Those that there are have their settings.
    pub fn settle(&mut self) {
        self.settled.clone_from(&self.known);
    }

    /// Warns of interfaces with the firewall that have VLANs, and take their tags off where the packet path would look for them.
    pub fn warn_of_hidden_tags(&mut self, interfaces: impl Iterator<Item = (String, u32)>) {
        for (interface, index) in interfaces {
            if !self.known.iter().any(|vlan| vlan.parent == index) || !takes_tags_off(&interface).unwrap_or(false) {
                self.told.remove(&interface);
            } else if self.told.insert(interface.clone()) {
                warn!(
                    "`{interface}` has VLANs and takes their tags off packets before the firewall sees them, which then counts \
                     them for `{interface}` itself: run `ethtool -K {interface} rxvlan off`"
                );
            }
        }
    }
}

/// The devices of VLANs on these interfaces, also of those within others.
fn on(vlans: &[Vlan], mut beneath: BTreeSet<u32>) -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    while !beneath.is_empty() {
        let above = vlans.iter().filter(|vlan| beneath.contains(&vlan.parent)).map(|vlan| vlan.device);
        beneath = above.filter(|device| found.insert(*device)).collect();
    }
    found
}

fn name(link: &LinkMessage) -> Option<String> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    })
}

/// The VLAN of a device, if it is one whose parent is in this namespace.
fn vlan(link: &LinkMessage) -> Option<Vlan> {
    let (mut parent, mut number, mut kind) = (None, None, VlanProtocol::default());
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::Link(index) => parent = Some(*index),
            // Its number means another interface there.
            LinkAttribute::LinkNetNsId(_) => return None,
            LinkAttribute::LinkInfo(infos) => {
                for info in infos.iter().filter_map(data).flatten() {
                    match info {
                        InfoVlan::Id(id) => number = Some(*id),
                        InfoVlan::Protocol(protocol) => kind = *protocol,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Some(Vlan { device: link.header.index, parent: parent?, kind: kind.into(), number: number? })
}

fn data(info: &LinkInfo) -> Option<&Vec<InfoVlan>> {
    match info {
        LinkInfo::Data(InfoData::Vlan(data)) => Some(data),
        _ => None,
    }
}

/// `struct ethtool_value`.
#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

/// Whether an interface takes VLAN tags off what it receives.
fn takes_tags_off(interface: &str) -> Result<bool> {
    let socket = UdpSocket::bind(("127.0.0.1", 0)).or_else(|_| UdpSocket::bind(("::", 0)))?;
    let mut value = EthtoolValue { command: ETHTOOL_GFLAGS, data: 0 };
    // SAFETY: a plain C structure, for which zero is a value everywhere.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1).zip(interface.bytes()) {
        *place = byte as libc::c_char;
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: the request, whose name ends with a zero, and the value that it points to live for the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
    Errno::result(result).with_context(|| format!("cannot ask what `{interface}` does with VLAN tags"))?;
    Ok(value.data & ETH_FLAG_RXVLAN != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(attributes: Vec<LinkAttribute>) -> LinkMessage {
        let mut link = LinkMessage::default();
        link.header.index = 7;
        link.attributes = attributes;
        link
    }

    fn of_vlan(info: Vec<InfoVlan>) -> LinkAttribute {
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Vlan), LinkInfo::Data(InfoData::Vlan(info))])
    }

    #[test]
    fn devices_of_vlans_are_told_from_others() {
        let q = link(vec![LinkAttribute::Link(2), of_vlan(vec![InfoVlan::Id(5)])]);
        assert_eq!(vlan(&q), Some(Vlan { device: 7, parent: 2, kind: 0x8100, number: 5 }));
        let ad = vec![InfoVlan::Protocol(VlanProtocol::Ieee8021Ad), InfoVlan::Id(4094)];
        let ad = link(vec![of_vlan(ad), LinkAttribute::Link(3)]);
        assert_eq!(vlan(&ad), Some(Vlan { device: 7, parent: 3, kind: 0x88a8, number: 4094 }));
        let veth = LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth)]);
        assert_eq!(vlan(&link(vec![LinkAttribute::Link(2), veth])), None);
        let elsewhere = vec![LinkAttribute::Link(2), LinkAttribute::LinkNetNsId(0), of_vlan(vec![InfoVlan::Id(5)])];
        assert_eq!(vlan(&link(elsewhere)), None);
    }

    #[test]
    fn devices_on_an_interface_are_found_within_others() {
        let vlan = |device, parent| Vlan { device, parent, kind: 0x8100, number: 5 };
        let vlans = [vlan(10, 2), vlan(11, 10), vlan(12, 3), vlan(13, 11), vlan(14, 4), vlan(15, 15)];
        let found =
            |interfaces: &[u32]| on(&vlans, interfaces.iter().copied().collect()).into_iter().collect::<Vec<_>>();
        assert_eq!(found(&[2]), [10, 11, 13]);
        assert_eq!(found(&[3, 4]), [12, 14]);
        assert_eq!(found(&[15]), [15]);
        assert!(found(&[5]).is_empty());
    }

    #[test]
    fn an_interface_without_a_card_takes_no_tags_off() {
        assert!(!takes_tags_off("lo").unwrap());
        assert!(takes_tags_off("no-such-one").is_err());
    }
}
