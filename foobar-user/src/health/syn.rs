//! TCP segments that open and break off a connection, and what answers them, as bytes (RFC 9293, 3.1).

use std::net::{IpAddr, SocketAddr};

use foobar_common::checksum;
use foobar_common::parse::{ACK, RST, SYN, TCP};

/// Hops that a packet may make.
const HOPS: u8 = 64;

/// A segment without data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) sequence: u32,
    pub(super) acknowledged: u32,
    pub(super) flags: u8,
}

impl Segment {
    /// Opens a connection.
    pub(super) const fn syn(from: SocketAddr, to: SocketAddr, sequence: u32) -> Self {
        Self { from, to, sequence, acknowledged: 0, flags: SYN }
    }

    /// Breaks off the connection that this segment answers.
    pub(super) const fn reset(answer: &Self) -> Self {
        Self { from: answer.to, to: answer.from, sequence: answer.acknowledged, acknowledged: 0, flags: RST }
    }

    /// Whether somebody listens where it comes from.
    pub(super) const fn accepts(&self) -> bool {
        self.flags & (SYN | ACK | RST) == SYN | ACK
    }

    /// The whole packet; `None`: its ends are of two families.
    pub(super) fn packet(&self) -> Option<Vec<u8>> {
        let mut tcp = [self.from.port().to_be_bytes(), self.to.port().to_be_bytes()].concat();
        tcp.extend(self.sequence.to_be_bytes());
        tcp.extend(self.acknowledged.to_be_bytes());
        tcp.extend([0x50, self.flags, 0xff, 0xff, 0, 0, 0, 0]);
        let length = u16::try_from(tcp.len()).ok()?.to_be_bytes();
        let (header, ends) = match (self.from.ip(), self.to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let ends = [from.octets(), to.octets()].concat();
                // Identification, total length and checksum are the kernel's to write.
                let header = [&[0x45, 0, 0, 0, 0, 0, 0x40, 0, HOPS, TCP, 0, 0], &ends[..]].concat();
                (header, ends)
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let ends = [from.octets(), to.octets()].concat();
                let header = [&[0x60, 0, 0, 0], &length[..], &[TCP, HOPS], &ends[..]].concat();
                (header, ends)
            }
            _ => return None,
        };
        let pseudo = [&ends[..], &[0, 0], &length[..], &[0, 0, 0, TCP]].concat();
        let sum = checksum::of(&[pseudo, tcp.clone()].concat());
        tcp[16..18].copy_from_slice(&sum);
        Some([header, tcp].concat())
    }

    /// Reads a packet from its IP header on; `None`: it is no TCP segment.
    pub(super) fn read(packet: &[u8]) -> Option<Self> {
        let (from, to, tcp): (IpAddr, IpAddr, &[u8]) = match packet.first()? >> 4 {
            4 => {
                let tcp = packet.get(usize::from(packet[0] & 0xf) * 4..)?;
                (packet.get(9) == Some(&TCP)).then_some(())?;
                (octets::<4>(packet, 12)?.into(), octets::<4>(packet, 16)?.into(), tcp)
            }
            6 => {
                (packet.get(6) == Some(&TCP)).then_some(())?;
                (octets::<16>(packet, 8)?.into(), octets::<16>(packet, 24)?.into(), packet.get(40..)?)
            }
            _ => return None,
        };
        let number = |at| octets::<4>(tcp, at).map(u32::from_be_bytes);
        Some(Self {
            from: SocketAddr::new(from, u16::from_be_bytes(octets(tcp, 0)?)),
            to: SocketAddr::new(to, u16::from_be_bytes(octets(tcp, 2)?)),
            sequence: number(4)?,
            acknowledged: number(8)?,
            flags: *tcp.get(13)?,
        })
    }
}

fn octets<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDS: [(&str, &str); 2] = [("10.0.1.1:61000", "203.0.113.10:443"), ("[fd00::1]:61001", "[2001:db8::10]:443")];

    #[test]
    fn segments_are_read_back() {
        for (from, to) in ENDS {
            let syn = Segment::syn(from.parse().unwrap(), to.parse().unwrap(), 0x0102_0304);
            let packet = syn.packet().unwrap();
            assert_eq!(Segment::read(&packet), Some(syn));
            for length in 0..packet.len() - 6 {
                assert_eq!(Segment::read(&packet[..length]), None, "{length} bytes");
            }
        }
        assert_eq!(Segment::syn("10.0.0.1:1".parse().unwrap(), "[::2]:2".parse().unwrap(), 0).packet(), None);
    }

    #[test]
    fn checksums_are_right() {
        for (from, to) in ENDS {
            let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
            let packet = Segment::syn(from, to, 7).packet().unwrap();
            let (ends, tcp) =
                if from.is_ipv4() { (&packet[12..20], &packet[20..]) } else { (&packet[8..40], &packet[40..]) };
            let pseudo = [ends, &[0, 0, 0, 20, 0, 0, 0, TCP]].concat();
            assert_eq!(checksum::of(&[&pseudo, tcp].concat()), [0, 0], "{from}");
        }
    }

    #[test]
    fn answers_are_told_apart_and_broken_off() {
        let (us, them) = (ENDS[0].0.parse().unwrap(), ENDS[0].1.parse().unwrap());
        let answer = Segment { from: them, to: us, sequence: 900, acknowledged: 8, flags: SYN | ACK };
        assert!(answer.accepts() && !Segment { flags: RST | ACK, ..answer }.accepts());
        assert_eq!(Segment::reset(&answer), Segment { from: us, to: them, sequence: 8, acknowledged: 0, flags: RST });
    }
}
