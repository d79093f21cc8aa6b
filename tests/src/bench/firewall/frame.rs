//! The frames of the bench: the first packet of a connection, and a datagram of the least length.

use std::net::Ipv4Addr;

use anyhow::Result;
use etherparse::PacketBuilder;

/// Offset of the IPv4 header's checksum.
pub(super) const CHECKSUM: i16 = 24;
/// Offset of the source address.
pub(super) const SOURCE: i16 = 26;
/// Offset of TCP's sequence number, which nobody reads: the cycler counts here.
pub(super) const SEQUENCE: i16 = 38;
/// Bytes that every frame has.
pub(super) const LEAST: i16 = 60;

/// The firewall's own address in every namespace.
pub(super) const SERVER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
/// Where clients and generator are.
pub(super) const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
/// Hardware address of the firewall's interface.
pub(super) const SERVER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// Hardware address of the other end.
pub(super) const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// Port that connections go to.
pub(super) const SERVICE_PORT: u16 = 7000;
/// Port that datagrams go to; nobody listens there.
pub(super) const CLOSED_PORT: u16 = 7001;

/// A SYN to the service.
pub(super) fn syn(source: Ipv4Addr, number: u32) -> Result<Vec<u8>> {
    let ip = PacketBuilder::ethernet2(CLIENT_MAC, SERVER_MAC).ipv4(source.octets(), SERVER.octets(), HOPS);
    let tcp = ip.tcp(SOURCE_PORT, SERVICE_PORT, u32::from_be_bytes(number.to_ne_bytes()), WINDOW).syn();
    let mut bytes = Vec::new();
    tcp.write(&mut bytes, &[])?;
    bytes.resize(FRAME, 0);
    Ok(bytes)
}

/// A datagram to the closed port, 60 bytes long. It has no UDP checksum, so that its source can be changed.
pub(super) fn datagram(source: Ipv4Addr) -> Result<Vec<u8>> {
    const UDP_CHECKSUM: usize = 40;
    let ip = PacketBuilder::ethernet2(CLIENT_MAC, SERVER_MAC).ipv4(source.octets(), SERVER.octets(), HOPS);
    let mut bytes = Vec::new();
    ip.udp(SOURCE_PORT, CLOSED_PORT).write(&mut bytes, &[0; PAYLOAD])?;
    bytes[UDP_CHECKSUM..UDP_CHECKSUM + 2].fill(0);
    Ok(bytes)
}

/// Sum of the datagram's IPv4 header without source and checksum: what a new source is added to.
pub(super) fn header_sum() -> Result<u32> {
    let bytes = datagram(Ipv4Addr::UNSPECIFIED)?;
    let checksum = u16::from_be_bytes([bytes[24], bytes[25]]);
    Ok(u32::from(!checksum))
}

const SOURCE_PORT: u16 = 40_000;
const HOPS: u8 = 64;
const WINDOW: u16 = 64_000;
/// An Ethernet frame without its check sequence has 60 bytes or more.
const FRAME: usize = 60;
const PAYLOAD: usize = 18;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_as_short_as_they_can_be() {
        assert_eq!(syn(CLIENT, 7).expect("a frame").len(), FRAME);
        let datagram = datagram(CLIENT).expect("a frame");
        assert_eq!(datagram.len(), FRAME);
        assert_eq!(datagram[SOURCE as usize..][..4], CLIENT.octets());
    }

    #[test]
    fn the_cycler_counts_in_native_order() {
        let frame = syn(CLIENT, 0x0102_0304).expect("a frame");
        assert_eq!(frame[SEQUENCE as usize..][..4], 0x0102_0304_u32.to_ne_bytes());
    }
}
