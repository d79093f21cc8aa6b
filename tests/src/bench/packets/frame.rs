//! The frames of the bench: TCP over IPv4 from a client, without payload.

use std::net::Ipv4Addr;

use anyhow::Result;
use etherparse::{PacketBuilder, TcpOptionElement};

/// Where the parts lie that change from packet to packet.
pub(super) const HOPS: i16 = 22;
/// Last two bytes of the source address.
pub(super) const SOURCE: i16 = 28;
/// Destination address.
pub(super) const DESTINATION: i16 = 30;
/// Source port.
pub(super) const SOURCE_PORT: i16 = 34;
/// Destination port.
pub(super) const DESTINATION_PORT: i16 = 36;
/// Sequence number, which nobody reads: the wrapper counts here.
pub(super) const SEQUENCE: i16 = 38;
/// End of the TCP header without options.
pub(super) const HEADERS_END: i16 = 54;
/// Hop count of every frame.
pub(super) const HOP_COUNT: u8 = 64;

/// Clients are in 198.18.0.0/15, which is for benchmarks (RFC 2544).
pub(super) const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);
/// The service's address.
pub(super) const VIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
/// The service's port.
pub(super) const VIP_PORT: u16 = 8080;
/// Port to which a rule lets the client.
pub(super) const ALLOWED_PORT: u16 = 5432;
/// Port from which a rule keeps the client.
pub(super) const DENIED_PORT: u16 = 9000;
/// Sequence number of which the wrapper counts on.
pub(super) type Start = u32;

/// A SYN or an ACK of the client to `port` of the VIP. The SYN has an option, so both fill 58 bytes or more.
pub(super) fn frame(port: u16, opens: bool, start: Start) -> Result<Vec<u8>> {
    let ip =
        PacketBuilder::ethernet2([2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1]).ipv4(CLIENT.octets(), VIP.octets(), HOP_COUNT);
    let tcp = ip.tcp(CLIENT_PORT, port, u32::from_be_bytes(start.to_ne_bytes()), WINDOW);
    let tcp = if opens { tcp.syn() } else { tcp.ack(1) };
    let tcp = tcp.options(&[TcpOptionElement::MaximumSegmentSize(1460)])?;
    let mut bytes = Vec::new();
    tcp.write(&mut bytes, &[])?;
    Ok(bytes)
}

const CLIENT_PORT: u16 = 40_000;
const WINDOW: u16 = 64_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offsets_are_right() {
        let bytes = frame(VIP_PORT, true, 0x0102_0304).expect("a frame");
        let at = |offset: i16, length: usize| &bytes[usize::from(offset.unsigned_abs())..][..length];
        assert_eq!(at(HOPS, 1), [HOP_COUNT]);
        assert_eq!(at(SOURCE - 2, 4), CLIENT.octets());
        assert_eq!(at(DESTINATION, 4), VIP.octets());
        assert_eq!(at(SOURCE_PORT, 2), CLIENT_PORT.to_be_bytes());
        assert_eq!(at(DESTINATION_PORT, 2), VIP_PORT.to_be_bytes());
        assert_eq!(at(SEQUENCE, 4), 0x0102_0304_u32.to_ne_bytes());
        assert!(bytes.len() >= usize::from(HEADERS_END.unsigned_abs()));
    }
}
