//! A frame in one line.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use foobar_common::address::{Address, Tuple};
use foobar_common::parse::{self, Headers, ICMP, ICMPV6, Network, TCP, UDP};
use foobar_common::verdict::Reason;

use super::build::flag_names;

/// What the frame is, as far as its headers can be read.
#[must_use]
pub fn summary(frame: &[u8]) -> String {
    let packet = frame.to_vec();
    let what = match parse::ethernet(&packet) {
        Ok((Network::Ipv4, offset)) => parse::ipv4(&packet, offset).map(|headers| {
            let address = |address: Address<1>| IpAddr::V4(Ipv4Addr::from(address.bytes()));
            told(&headers, address)
        }),
        Ok((Network::Ipv6, offset)) => parse::ipv6(&packet, offset).map(|headers| {
            let address = |address: Address<4>| IpAddr::V6(Ipv6Addr::from(address.bytes()));
            told(&headers, address)
        }),
        Ok(_) => Ok("not IP".to_owned()),
        Err(reason) => Err(reason),
    };
    let what = what.unwrap_or_else(|reason: Reason| format!("headers that cannot be read ({})", reason.label()));
    format!("{what}, {} bytes", frame.len())
}

fn told<const W: usize>(headers: &Headers<W>, address: impl Fn(Address<W>) -> IpAddr) -> String {
    let Tuple { source, destination, source_port, destination_port, protocol, .. } = headers.tuple;
    let ends = ends(address(source), source_port.host(), address(destination), destination_port.host(), protocol);
    let detail = detail(protocol, headers.flags, headers.icmp_type);
    format!("{} {ends} {detail}", protocol_name(protocol)).trim_end().to_owned()
}

/// Where from and where to; with ports where the protocol has them.
#[must_use]
pub fn ends(from: IpAddr, from_port: u16, to: IpAddr, to_port: u16, protocol: u8) -> String {
    match protocol {
        TCP | UDP => format!("{} → {}", SocketAddr::new(from, from_port), SocketAddr::new(to, to_port)),
        _ => format!("{from} → {to}"),
    }
}

/// TCP flags, or the type of ICMP; nothing for other protocols.
#[must_use]
pub fn detail(protocol: u8, flags: u8, icmp_type: u8) -> String {
    match protocol {
        TCP => flag_names(flags),
        ICMP | ICMPV6 => format!("type {icmp_type}"),
        _ => String::new(),
    }
}

/// The protocol's name, or its number.
#[must_use]
pub fn protocol_name(protocol: u8) -> String {
    match protocol {
        TCP => "tcp".to_owned(),
        UDP => "udp".to_owned(),
        ICMP => "icmp".to_owned(),
        ICMPV6 => "icmpv6".to_owned(),
        number => format!("protocol {number}"),
    }
}
