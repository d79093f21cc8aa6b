//! The frames of the bench: TCP from a client or a backend, without payload.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::Result;
use etherparse::{PacketBuilder, TcpOptionElement};

/// Where the parts of a family's frame lie that change from packet to packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    /// Hop count.
    pub(super) hops: i16,
    /// Source address.
    pub(super) source: i16,
    /// Destination address.
    pub(super) destination: i16,
    /// Source port; the destination port is behind it, and then the sequence number, which nobody reads: the wrapper counts
    /// there.
    pub(super) ports: i16,
    /// End of the TCP header without options.
    pub(super) end: i16,
}

/// Of IPv4.
pub(super) const V4: Layout = Layout { hops: 22, source: 26, destination: 30, ports: 34, end: 54 };
/// Of IPv6.
pub(super) const V6: Layout = Layout { hops: 21, source: 22, destination: 38, ports: 54, end: 74 };

/// Hop count of every frame.
pub(super) const HOP_COUNT: u8 = 64;

/// Clients are in 198.18.0.0/15, which is for benchmarks (RFC 2544).
pub(super) const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);
/// And in 2001:2::/48 (RFC 5180).
pub(super) const CLIENT6: Ipv6Addr = Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 0);
/// The services' address.
pub(super) const VIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
/// The same of IPv6.
pub(super) const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 10);
/// The first backend.
pub(super) const BACKEND: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 11);
/// The same of IPv6.
pub(super) const BACKEND6: Ipv6Addr = Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 11);
/// Port of the `nat` service and of its backends.
pub(super) const VIP_PORT: u16 = 8080;
/// Port of the `direct` service.
pub(super) const DIRECT_PORT: u16 = 8081;
/// Port to which a rule lets the client.
pub(super) const ALLOWED_PORT: u16 = 5432;
/// Port from which a rule keeps the client.
pub(super) const DENIED_PORT: u16 = 9000;
/// The client's port, where it is one.
pub(super) const CLIENT_PORT: u16 = 40_000;

/// One end of a connection, in both families.
#[derive(Clone, Copy, Debug)]
pub(super) struct End(pub(super) Ipv4Addr, pub(super) Ipv6Addr, pub(super) u16);

/// A SYN or an ACK, whose sequence number is the wrapper's counter. The SYN has an option, so both fill a few bytes more.
pub(super) fn frame(v6: bool, from: End, to: End, opens: bool, start: u32) -> Result<Vec<u8>> {
    let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1]);
    let ip = if v6 {
        ethernet.ipv6(from.1.octets(), to.1.octets(), HOP_COUNT)
    } else {
        ethernet.ipv4(from.0.octets(), to.0.octets(), HOP_COUNT)
    };
    let tcp = ip.tcp(from.2, to.2, u32::from_be_bytes(start.to_ne_bytes()), WINDOW);
    let tcp = if opens { tcp.syn() } else { tcp.ack(1) };
    let tcp = tcp.options(&[TcpOptionElement::MaximumSegmentSize(1460)])?;
    let mut bytes = Vec::new();
    tcp.write(&mut bytes, &[])?;
    Ok(bytes)
}

const WINDOW: u16 = 64_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offsets_are_right() {
        let (from, to) = (End(CLIENT, CLIENT6, CLIENT_PORT), End(VIP, VIP6, VIP_PORT));
        for (v6, layout) in [(false, V4), (true, V6)] {
            let bytes = frame(v6, from, to, true, 0x0102_0304).expect("a frame");
            let at = |offset: i16, length: usize| &bytes[usize::from(offset.unsigned_abs())..][..length];
            assert_eq!(at(layout.hops, 1), [HOP_COUNT]);
            if v6 {
                assert_eq!(
                    (at(layout.source, 16), at(layout.destination, 16)),
                    (&CLIENT6.octets()[..], &VIP6.octets()[..])
                );
            } else {
                assert_eq!(
                    (at(layout.source, 4), at(layout.destination, 4)),
                    (&CLIENT.octets()[..], &VIP.octets()[..])
                );
            }
            assert_eq!(at(layout.ports, 2), CLIENT_PORT.to_be_bytes());
            assert_eq!(at(layout.ports + 2, 2), VIP_PORT.to_be_bytes());
            assert_eq!(at(layout.ports + 4, 4), 0x0102_0304_u32.to_ne_bytes());
            assert!(bytes.len() >= usize::from(layout.end.unsigned_abs()));
        }
    }
}
