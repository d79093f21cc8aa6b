//! The VIPs that a balancer holds as addresses of its own, so that it answers ARP, neighbour discovery and the edge's clients.

use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use ipnet::IpNet;
use nix::ifaddrs::getifaddrs;
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage, CacheInfo};
use rtnetlink::{AddressMessageBuilder, Handle};

use crate::datapath::links;

/// Holds VIPs beside those that are remembered: each on the interface whose network it lies in, else on the loopback
/// interface. Returns the VIPs that were remembered, for [`let_go`] when what needed the new ones was refused.
///
/// What is added is remembered first, so that no crash leaves an address that nobody knows. An address that the host has
/// of its own is used as it is, and not remembered.
///
/// # Errors
/// What the kernel refused.
pub async fn hold(run: &Path, vips: &[IpAddr], interfaces: &[String]) -> Result<Vec<IpAddr>> {
    let earlier = remembered(run)?;
    let held = held()?;
    let absent: Vec<IpAddr> =
        vips.iter().copied().filter(|vip| !held.iter().any(|(_, net)| net.addr() == *vip)).collect();
    if absent.is_empty() {
        return Ok(earlier);
    }
    remember(run, &union(&earlier, &absent))?;
    let handle = handle()?;
    for vip in &absent {
        let interface = interface_for(*vip, &held, interfaces);
        let message = message(*vip, links::index(&interface)?);
        let mut request = handle.address().add(message.header.index, *vip, message.header.prefix_len);
        *request.message_mut() = message;
        request.execute().await.with_context(|| format!("cannot add the VIP {vip} to {interface}"))?;
    }
    Ok(earlier)
}

/// Removes the VIPs that are remembered and not in `keep`.
///
/// # Errors
/// The list is damaged, or what the kernel refused.
pub async fn let_go(run: &Path, keep: &[IpAddr]) -> Result<()> {
    let earlier = remembered(run)?;
    if earlier.iter().all(|vip| keep.contains(vip)) {
        return Ok(());
    }
    let handle = handle()?;
    for (interface, net) in held()? {
        if !earlier.contains(&net.addr()) || keep.contains(&net.addr()) {
            continue;
        }
        let message = message(net.addr(), links::index(&interface)?);
        let removed = handle.address().del(message).execute().await;
        removed.with_context(|| format!("cannot remove the VIP {} from {interface}", net.addr()))?;
    }
    let kept: Vec<IpAddr> = earlier.into_iter().filter(|vip| keep.contains(vip)).collect();
    if kept.is_empty() {
        fs::remove_file(memory(run)).ok();
        return Ok(());
    }
    remember(run, &kept)
}

fn union(these: &[IpAddr], others: &[IpAddr]) -> Vec<IpAddr> {
    let mut all = these.to_vec();
    all.extend(others.iter().filter(|vip| !these.contains(vip)));
    all
}

fn remember(run: &Path, vips: &[IpAddr]) -> Result<()> {
    let path = memory(run);
    fs::write(&path, serde_json::to_vec(vips)?).with_context(|| format!("cannot write {}", path.display()))
}

fn remembered(run: &Path) -> Result<Vec<IpAddr>> {
    let path = memory(run);
    match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged", path.display())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

fn memory(run: &Path) -> PathBuf {
    run.join("vips.json")
}

fn handle() -> Result<Handle> {
    let (connection, handle, _) = rtnetlink::new_connection().context("cannot talk to the kernel's routing socket")?;
    tokio::spawn(connection);
    Ok(handle)
}

/// Addresses of this host with their networks.
fn held() -> Result<Vec<(String, IpNet)>> {
    let addresses = getifaddrs().context("cannot list this host's addresses")?;
    Ok(addresses
        .filter_map(|entry| {
            let (address, mask) = (entry.address?, entry.netmask?);
            let ip: IpAddr = match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
                (Some(v4), _) => v4.ip().into(),
                (_, Some(v6)) => v6.ip().into(),
                _ => return None,
            };
            let mask: IpAddr = match (mask.as_sockaddr_in(), mask.as_sockaddr_in6()) {
                (Some(v4), _) => v4.ip().into(),
                (_, Some(v6)) => v6.ip().into(),
                _ => return None,
            };
            Some((entry.interface_name, IpNet::with_netmask(ip, mask).ok()?))
        })
        .collect())
}

/// Neighbour discovery answers only for addresses of the interface it comes by.
fn interface_for(vip: IpAddr, held: &[(String, IpNet)], interfaces: &[String]) -> String {
    let near = held.iter().find(|(name, net)| net.contains(&vip) && interfaces.contains(name));
    near.map_or_else(|| "lo".to_owned(), |(name, _)| name.clone())
}

fn message(vip: IpAddr, index: u32) -> AddressMessage {
    let mut message = match vip {
        IpAddr::V4(v4) => AddressMessageBuilder::<Ipv4Addr>::new().index(index).address(v4, 32).build(),
        IpAddr::V6(v6) => AddressMessageBuilder::<Ipv6Addr>::new().index(index).address(v6, 128).build(),
    };
    // No duplicate address detection: until it ended nobody could listen on the VIP.
    message.header.flags |= AddressHeaderFlags::Nodad;
    if vip.is_ipv6() {
        // Not preferred, so that this host's own connections begin elsewhere: for a backend the VIP is an address of its own.
        let mut forever = CacheInfo::default();
        (forever.ifa_preferred, forever.ifa_valid) = (0, u32::MAX);
        message.attributes.push(AddressAttribute::CacheInfo(forever));
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vip_goes_to_the_interface_of_its_network() {
        let held = vec![
            ("eth0".to_owned(), "10.0.1.1/24".parse().unwrap()),
            ("eth1".to_owned(), "203.0.113.2/24".parse().unwrap()),
            ("docker0".to_owned(), "172.17.0.1/16".parse().unwrap()),
        ];
        let interfaces = ["eth0".to_owned(), "eth1".to_owned()];
        let interface = |vip: &str| interface_for(vip.parse().unwrap(), &held, &interfaces);
        assert_eq!(interface("203.0.113.10"), "eth1");
        assert_eq!(interface("198.51.100.10"), "lo");
        assert_eq!(interface("172.17.0.10"), "lo");
    }
}
