//! ICMP errors of the balancer itself: what it answers to a packet that it cannot send on (RFC 792, RFC 1191, RFC 4443).
//!
//! The packet becomes its own answer: it is cut, and what is left of it is quoted behind new headers. At most [`QUOTE`] bytes:
//! those by which its sender knows it again, so that who sends with a forged source gains nothing. Nothing is answered to
//! groups, nor to a source that is none, nor "too big" where fragments were allowed.

use crate::address::Address;
use crate::checksum::{Sum, put};
use crate::packet::{Packet, Resize};
use crate::parse::{ETHERNET, Headers, ICMP, ICMPV6};

/// Bytes of a packet that are quoted at the most, its IP header included.
pub const QUOTE: usize = 128;
/// Length of the ICMP header in front of them.
const HEADER: usize = 8;
/// The longest frame header: with two VLAN tags.
const FRAME_MAX: usize = ETHERNET + 8;
/// Time to live, or hop limit.
const HOPS: u32 = 64;
/// Internetwork control (RFC 1812, 4.3.2.5), and a header of five words.
const CONTROL: u32 = 0x45c0_0000;
/// Identification 0, don't fragment, offset 0.
const DONT_FRAGMENT: u32 = 0x4000;

/// What an answer says: the longest IP packet in bytes that the next link takes, or 0 for used-up hops.
///
/// One number, for the verifier of Linux 6.1: of an enumeration it refuses a register that only one of the kinds has set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind(u32);

impl Kind {
    /// Time to live, or hop limit, is used up.
    pub const TIME_EXCEEDED: Self = Self(0);

    /// The packet does not fit the next link, which takes so many bytes: "fragmentation needed", or "packet too big".
    #[inline(always)]
    #[must_use]
    pub const fn too_big(mtu: u16) -> Self {
        Self(mtu as u32)
    }

    /// Type and code, and the word behind the checksum, in host byte order.
    #[inline(always)]
    const fn words<const W: usize>(self) -> (u32, u32) {
        let (big, exceeded) = if W == 1 { (0x0304_0000, 0x0b00_0000) } else { (0x0200_0000, 0x0300_0000) };
        (if self.0 == 0 { exceeded } else { big }, self.0)
    }
}

/// Whether the packet's sender may be answered so.
#[inline(always)]
#[must_use]
pub fn is_due<const W: usize, P: Packet>(packet: &P, headers: &Headers<W>, kind: Kind) -> bool {
    let Some([group, ..]) = packet.load::<6>(0) else { return false };
    if group & 1 == 1 || !is_one_host(&headers.tuple.source) {
        return false;
    }
    if W != 1 || kind.0 == 0 {
        return true;
    }
    packet.load::<2>(headers.network + 6).is_some_and(|fragment| u16::from_be_bytes(fragment) & 0x4000 != 0)
}

/// Whether an address can be that of one host on a network: not unspecified, of the host itself, of a group.
#[inline(always)]
const fn is_one_host<const W: usize>(address: &Address<W>) -> bool {
    let first = u32::from_be(address.0[0]);
    if W == 1 {
        return !matches!(first >> 24, 0 | 127 | 224..);
    }
    // ::/96 and ff00::/8.
    first >> 24 != 0xff && (first != 0 || address.0[1] != 0 || address.0[2 % W] != 0)
}

/// Turns the packet whose headers these are into the answer that comes from an address of this host; the whole answer is left,
/// with every checksum, for the interface on which the packet came. `None`: it is no longer a packet, or there is no room.
#[inline(always)]
#[must_use]
pub fn write<const W: usize, P: Resize>(
    packet: &mut P,
    headers: &Headers<W>,
    from: &Address<W>,
    kind: Kind,
) -> Option<()> {
    let added = if W == 1 { 20 + HEADER } else { 40 + HEADER };
    let (network, quoted) = (headers.network, quoted(headers.length));
    packet.cut(network + quoted)?;
    packet.push(added)?;
    frame(packet, added, network)?;
    let length = (HEADER + quoted) as u32;
    let pseudo = if W == 1 {
        ipv4(packet, network, from, &headers.tuple.source, length)?
    } else {
        ipv6(packet, network, from, &headers.tuple.source, length)?
    };
    let at = network + added - HEADER;
    let (first, second) = kind.words::<W>();
    let sum = put(packet, at, first.to_be(), pseudo)?;
    let sum = put(packet, at + 4, second.to_be(), sum)?;
    packet.store(at + 2, add(packet, network + added, quoted, sum)?.checksum())
}

/// How much of an IP packet is quoted: whole words, so that their sum needs no odd byte.
#[inline(always)]
const fn quoted(length: u16) -> usize {
    let length = length as usize & !3;
    if length > QUOTE { QUOTE } else { length }
}

/// Writes the frame's header, of `length` bytes, in front of what was pushed: its tags as they were, its way back.
#[inline(always)]
fn frame<P: Packet>(packet: &mut P, pushed: usize, length: usize) -> Option<()> {
    turn(packet, pushed)?;
    let mut at = 12;
    while at < FRAME_MAX {
        if at < length {
            let bytes = packet.load::<2>(pushed + at)?;
            packet.store(at, bytes)?;
        }
        at += 2;
    }
    Some(())
}

/// Writes the MAC addresses that lie at `offset`, exchanged, where a frame begins: three words, because twelve bytes would take
/// twelve registers.
#[inline(always)]
pub(crate) fn turn<P: Packet>(packet: &mut P, offset: usize) -> Option<()> {
    let word = |at| packet.load::<4>(offset + at).map(u32::from_le_bytes);
    let (a, b, c) = (word(0)?, word(4)?, word(8)?);
    packet.store(0, (b >> 16 | c << 16).to_le_bytes())?;
    packet.store(4, (c >> 16 | a << 16).to_le_bytes())?;
    packet.store(8, (a >> 16 | b << 16).to_le_bytes())
}

/// Writes an IPv4 header for `length` bytes; ICMP has no pseudo header there.
#[inline(always)]
fn ipv4<const W: usize, P: Packet>(
    packet: &mut P,
    at: usize,
    from: &Address<W>,
    to: &Address<W>,
    length: u32,
) -> Option<Sum> {
    let mut sum = put(packet, at, (CONTROL | (20 + length)).to_be(), Sum::new())?;
    sum = put(packet, at + 4, DONT_FRAGMENT.to_be(), sum)?;
    sum = put(packet, at + 8, (HOPS << 24 | (ICMP as u32) << 16).to_be(), sum)?;
    sum = put(packet, at + 12, from.0[0], sum)?;
    sum = put(packet, at + 16, to.0[0], sum)?;
    packet.store(at + 10, sum.checksum())?;
    Some(Sum::new())
}

/// Writes an IPv6 header for `length` bytes; the sum over the pseudo header.
#[inline(always)]
fn ipv6<const W: usize, P: Packet>(
    packet: &mut P,
    at: usize,
    from: &Address<W>,
    to: &Address<W>,
    length: u32,
) -> Option<Sum> {
    packet.store(at, 0x6000_0000_u32.to_be_bytes())?;
    packet.store(at + 4, (length << 16 | (ICMPV6 as u32) << 8 | HOPS).to_be_bytes())?;
    let mut sum = Sum::new().add16((length as u16).to_be()).add16((ICMPV6 as u16).to_be());
    let mut word = 0;
    while word < W {
        sum = put(packet, at + 8 + 4 * word, from.0[word], sum)?;
        sum = put(packet, at + 24 + 4 * word, to.0[word], sum)?;
        word += 1;
    }
    Some(sum)
}

/// Adds `length` bytes of the packet, at most [`QUOTE`] and whole words, to a sum.
#[inline(always)]
fn add<P: Packet>(packet: &P, at: usize, length: usize, mut sum: Sum) -> Option<Sum> {
    let mut offset = 0;
    while offset < QUOTE {
        if offset >= length {
            break;
        }
        sum = sum.add32(packet.load::<4>(at + offset).map(u32::from_ne_bytes)?);
        offset += 4;
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum;
    use crate::parse;

    const MACS: [u8; 12] = [2, 0, 0, 0, 2, 1, 2, 0, 0, 0, 2, 50];
    const VIP: [u8; 4] = [203, 0, 113, 10];
    const CLIENT: [u8; 4] = [203, 0, 113, 50];

    /// A datagram of so many bytes behind its IP header, of 8 or more, under tags.
    fn datagram(tags: &[u8], payload: u16) -> Vec<u8> {
        let mut frame = [&MACS[..], tags, &[8, 0, 0x45, 0]].concat();
        frame.extend((20 + payload).to_be_bytes());
        frame.extend([0x12, 0x34, 0x40, 0, 1, 17, 0, 0]);
        frame.extend([CLIENT, VIP].concat());
        frame.extend([0xc0, 0, 0x1f, 0x90]);
        frame.extend(payload.to_be_bytes());
        frame.extend((2..payload - 4).map(|byte| byte as u8));
        frame
    }

    fn answered(frame: &[u8], kind: Kind) -> Vec<u8> {
        let (_, network) = parse::ethernet(&frame.to_vec()).unwrap();
        let headers = parse::ipv4(&frame.to_vec(), network).unwrap();
        let mut answer = frame.to_vec();
        write(&mut answer, &headers, &Address::<1>::from_bytes(VIP), kind).unwrap();
        answer
    }

    #[test]
    fn a_datagram_is_quoted_whole_or_by_its_first_bytes() {
        for (payload, quoted) in [(8, 28), (9, 28), (12, 32), (107, 124), (108, 128), (1400, 128)] {
            for tags in [&[][..], &[0x81, 0, 0, 7], &[0x88, 0xa8, 0, 9, 0x81, 0, 0, 7]] {
                let frame = datagram(tags, payload);
                let answer = answered(&frame, Kind::too_big(1400));
                let network = 14 + tags.len();
                assert_eq!(answer.len(), network + 28 + quoted);
                assert_eq!(answer[..6], MACS[6..]);
                assert_eq!(answer[6..12], MACS[..6]);
                assert_eq!(answer[12..network], frame[12..network]);
                assert_eq!(answer[network + 28..], frame[network..network + quoted]);
                assert_eq!(answer[network + 12..network + 20], [VIP, CLIENT].concat());
                assert_eq!(checksum::of(&answer[network..network + 20]), [0, 0]);
                assert_eq!(checksum::of(&answer[network + 20..]), [0, 0]);
                assert_eq!(answer[network + 20..network + 22], [3, 4]);
                assert_eq!(answer[network + 24..network + 28], 1400_u32.to_be_bytes());
            }
        }
    }

    #[test]
    fn only_who_can_be_a_sender_is_answered() {
        let due = |change: &dyn Fn(&mut Vec<u8>), kind| {
            let mut frame = datagram(&[], 100);
            change(&mut frame);
            is_due(&frame, &parse::ipv4(&frame, 14).unwrap(), kind)
        };
        let (big, hops) = (Kind::too_big(1400), Kind::TIME_EXCEEDED);
        assert!(due(&|_| {}, big) && due(&|_| {}, hops));
        assert!(!due(&|frame| frame[0] = 0xff, hops), "a frame to all");
        for first in [0, 127, 224, 255] {
            assert!(!due(&|frame| frame[26] = first, hops), "from {first}.0.113.50");
        }
        assert!(!due(&|frame| frame[20] = 0, big) && due(&|frame| frame[20] = 0, hops), "fragments are allowed");
    }

    #[test]
    fn addresses_of_groups_and_of_nobody_are_not_one_host() {
        let v6 = |text: &str| Address::<4>::from(text.parse::<std::net::Ipv6Addr>().unwrap());
        for none in ["::", "::1", "::7f00:1", "ff02::1"] {
            assert!(!is_one_host(&v6(none)), "{none}");
        }
        for host in ["2001:db8::1", "fe80::1", "0:0:1::", "64:ff9b::1"] {
            assert!(is_one_host(&v6(host)), "{host}");
        }
    }
}
