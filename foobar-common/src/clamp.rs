//! The segment size that a backend of a tunnel announces: what a client may send has to fit into the tunnel.
//!
//! A backend answers past the balancer, which therefore never sees the size; so it is bounded where it leaves the backend.

use crate::address::{Address, Ipv4, Ipv6};
use crate::generation::Tunnels;
use crate::packet::Packet;
use crate::parse::{ETHERNET, SYN, TCP};
use crate::tunnel::{self, Network, OUTER4, OUTER6};

/// Length of a TCP header without options.
const TCP_HEADER: usize = 20;
/// Options that are looked at: every stack announces the size first, or behind a signature.
const OPTIONS: usize = 8;
/// End of options, nothing, maximum segment size (RFC 9293, 3.2).
const END: u8 = 0;
const NOTHING: u8 = 1;
const SEGMENT_SIZE: u8 = 2;

/// A size that has to be bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clamp {
    /// Offset of the size.
    pub at: usize,
    /// Offset of the checksum.
    pub checksum: usize,
    /// The size as it is, in host byte order.
    pub old: u16,
    /// The size as it should be, in host byte order.
    pub new: u16,
}

/// What has to be bounded in a frame that leaves a backend by a link of this MTU; `None`: nothing.
#[inline(always)]
pub fn of<P: Packet>(packet: &P, tunnels: &Tunnels, mtu: u32) -> Option<Clamp> {
    match packet.load::<2>(ETHERNET - 2)? {
        [0x08, 0x00] => ipv4(packet, tunnels, mtu),
        [0x86, 0xdd] => ipv6(packet, tunnels, mtu),
        _ => None,
    }
}

#[inline(always)]
fn ipv4<P: Packet>(packet: &P, tunnels: &Tunnels, mtu: u32) -> Option<Clamp> {
    const TRANSPORT: usize = ETHERNET + OUTER4;
    let ([first], [protocol]) = (packet.load::<1>(ETHERNET)?, packet.load::<1>(ETHERNET + 9)?);
    if first != 0x45 || protocol != TCP || !opens(packet, TRANSPORT)? {
        return None;
    }
    let source = Ipv4::from_bytes(packet.load::<4>(ETHERNET + 12)?);
    bounded(packet, tunnels, source, TRANSPORT, mtu.checked_sub((2 * OUTER4 + TCP_HEADER) as u32)?)
}

#[inline(always)]
fn ipv6<P: Packet>(packet: &P, tunnels: &Tunnels, mtu: u32) -> Option<Clamp> {
    const TRANSPORT: usize = ETHERNET + OUTER6;
    let [protocol] = packet.load::<1>(ETHERNET + 6)?;
    if protocol != TCP || !opens(packet, TRANSPORT)? {
        return None;
    }
    let source = Ipv6::from_bytes(packet.load::<16>(ETHERNET + 8)?);
    bounded(packet, tunnels, source, TRANSPORT, mtu.checked_sub((2 * OUTER6 + TCP_HEADER) as u32)?)
}

#[inline(always)]
fn opens<P: Packet>(packet: &P, transport: usize) -> Option<bool> {
    packet.load::<1>(transport + 13).map(|[flags]| flags & SYN != 0)
}

/// `room`: what of a segment's data fits.
#[inline(always)]
fn bounded<const W: usize, P: Packet>(
    packet: &P,
    tunnels: &Tunnels,
    source: Address<W>,
    transport: usize,
    room: u32,
) -> Option<Clamp>
where
    Address<W>: Network<W>,
{
    if !tunnel::holds(&tunnels.vips, tunnels.vip_count, Address::<W>::mapped(source)) {
        return None;
    }
    let (at, old) = segment_size(packet, transport)?;
    (u32::from(old) > room).then_some(Clamp { at, checksum: transport + 16, old, new: room as u16 })
}

/// Where the largest segment is announced, and its size.
#[inline(always)]
fn segment_size<P: Packet>(packet: &P, transport: usize) -> Option<(usize, u16)> {
    let [words] = packet.load::<1>(transport + 12)?;
    let end = transport + usize::from(words >> 4) * 4;
    let mut at = transport + TCP_HEADER;
    for _ in 0..OPTIONS {
        if at + 4 > end {
            return None;
        }
        let [kind, length, high, low] = packet.load::<4>(at)?;
        at += match (kind, length) {
            (END, _) => return None,
            (NOTHING, _) => 1,
            (SEGMENT_SIZE, 4) => return Some((at + 2, u16::from_be_bytes([high, low]))),
            (_, 2..) => usize::from(length),
            _ => return None,
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: [u8; 4] = [2, 4, 0x05, 0xb4];

    fn frame(v6: bool, last: u8, flags: u8, options: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; 12];
        if v6 {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 20 + options.len() as u8, 6, 64]);
            frame.extend([&[0xfd; 15][..], &[last], &[0xfe; 16]].concat());
        } else {
            frame.extend([8, 0, 0x45, 0, 0, 40 + options.len() as u8, 0, 0, 0x40, 0, 64, 6, 0, 0]);
            frame.extend([203, 0, 113, last, 198, 51, 100, 1]);
        }
        let words = (20 + options.len()) / 4;
        frame.extend([0, 80, 1, 1, 0, 0, 0, 1, 0, 0, 0, 2, (words << 4) as u8, flags, 0xff, 0xff, 1, 2, 0, 0]);
        frame.extend(options);
        frame
    }

    fn tunnels() -> Tunnels {
        let mut vip6 = [0xfd; 16];
        vip6[15] = 10;
        Tunnels::new(&[], &[], &["203.0.113.10".parse().unwrap(), std::net::IpAddr::from(vip6)]).unwrap()
    }

    fn clamped(frame: &Vec<u8>, mtu: u32) -> Option<(usize, u16, u16)> {
        of(frame, &tunnels(), mtu).map(|clamp| (clamp.at, clamp.old, clamp.new))
    }

    #[test]
    fn a_tunnels_header_is_left_room_for() {
        assert_eq!(clamped(&frame(false, 10, 0x12, &LONG), 1500), Some((56, 1460, 1440)));
        assert_eq!(clamped(&frame(true, 10, 0x12, &LONG), 1500), Some((76, 1460, 1400)));
        assert_eq!(clamped(&frame(false, 10, 0x12, &LONG), 1520), None);
        assert_eq!(clamped(&frame(true, 10, 0x12, &[2, 4, 0x05, 0x78]), 1500), None, "1400 bytes fit");
    }

    #[test]
    fn other_packets_stay_as_they_are() {
        assert_eq!(clamped(&frame(false, 11, 0x12, &LONG), 1500), None, "of no such VIP");
        assert_eq!(clamped(&frame(true, 11, 0x12, &LONG), 1500), None, "of no such VIP");
        assert_eq!(clamped(&frame(false, 10, 0x10, &LONG), 1500), None, "no SYN");
        assert_eq!(clamped(&frame(false, 10, 0x12, &[]), 1500), None, "no size");
        assert_eq!(clamped(&frame(false, 10, 0x12, &LONG), 40), None, "no room at all");
    }

    #[test]
    fn the_size_is_found_behind_others() {
        let behind = [[1, 1, 19, 18].as_slice(), &[0; 16], &LONG].concat();
        assert_eq!(clamped(&frame(false, 10, 0x12, &behind), 1500), Some((76, 1460, 1440)));
        for broken in [[3, 0, 0, 0], [2, 3, 5, 0xb4], [0, 2, 4, 5]] {
            assert_eq!(clamped(&frame(false, 10, 0x12, &broken), 1500), None, "{broken:?}");
        }
    }

    #[test]
    fn a_frame_cut_anywhere_is_none() {
        let whole = frame(true, 10, 0x12, &LONG);
        for length in 0..whole.len() {
            assert_eq!(clamped(&whole[..length].to_vec(), 1500), None, "{length}");
        }
    }
}
