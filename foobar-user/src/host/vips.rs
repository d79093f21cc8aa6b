//! The VIPs that a balancer holds as addresses of its own, so that it answers ARP, neighbour discovery and the edge's clients.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use ipnet::IpNet;
use nix::ifaddrs::getifaddrs;
use rtnetlink::packet_route::address::{AddressHeaderFlags, AddressMessage};
use rtnetlink::{AddressMessageBuilder, Handle};

use crate::datapath::links;

/// Adds VIPs: to the interface whose network they lie in, else to the loopback interface.
///
/// # Errors
/// What the kernel refused.
pub async fn add(vips: &[IpAddr], interfaces: &[String]) -> Result<()> {
    let handle = handle()?;
    let held = held()?;
    for vip in vips {
        if held.iter().any(|(_, net)| net.addr() == *vip) {
            continue;
        }
        let interface = interface_for(*vip, &held, interfaces);
        let message = message(*vip, links::index(&interface)?);
        let mut request = handle.address().add(message.header.index, *vip, message.header.prefix_len);
        *request.message_mut() = message;
        request.execute().await.with_context(|| format!("cannot add the VIP {vip} to {interface}"))?;
    }
    Ok(())
}

/// Remembers in the run folder which VIPs this server holds, for `foobar detach`.
///
/// # Errors
/// The list cannot be written.
pub fn remember(run: &Path, vips: &[IpAddr]) -> Result<()> {
    let path = memory(run);
    fs::write(&path, serde_json::to_vec(vips)?).with_context(|| format!("cannot write {}", path.display()))
}

/// Removes the VIPs that were remembered.
///
/// # Errors
/// The list is damaged, or what the kernel refused.
pub async fn remove_remembered(run: &Path) -> Result<()> {
    let path = memory(run);
    let Ok(bytes) = fs::read(&path) else { return Ok(()) };
    let vips: Vec<IpAddr> = serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged", path.display()))?;
    remove(&vips).await?;
    fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))
}

fn memory(run: &Path) -> PathBuf {
    run.join("vips.json")
}

/// Removes VIPs from whichever interface has them; those that are not there are no error.
///
/// # Errors
/// What the kernel refused.
pub async fn remove(vips: &[IpAddr]) -> Result<()> {
    let handle = handle()?;
    for (interface, net) in held()? {
        if vips.contains(&net.addr()) && net.prefix_len() == net.max_prefix_len() {
            let message = message(net.addr(), links::index(&interface)?);
            handle
                .address()
                .del(message)
                .execute()
                .await
                .with_context(|| format!("cannot remove the VIP {} from {interface}", net.addr()))?;
        }
    }
    Ok(())
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
