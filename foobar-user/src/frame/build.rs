//! A frame as the question says: Ethernet, perhaps a VLAN tag, IPv4 or IPv6, and TCP, UDP or ICMP, with right checksums.

use std::net::IpAddr;

use foobar_common::checksum;
use foobar_common::parse::{ICMP, ICMPV6, TCP, UDP};

/// What the packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// TCP with these flags.
    Tcp(u8),
    /// UDP.
    Udp,
    /// ICMP, or ICMPv6 between IPv6 addresses, of this type.
    Icmp(u8),
}

/// A packet in question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// Source address.
    pub from: IpAddr,
    /// Source port of TCP and UDP.
    pub from_port: u16,
    /// Destination address.
    pub to: IpAddr,
    /// Destination port of TCP and UDP.
    pub to_port: u16,
    /// What it is.
    pub kind: Kind,
    /// VLAN that the frame is tagged with.
    pub vlan: Option<u16>,
}

/// Names of TCP flags, in the order of their bits.
const FLAGS: [(&str, u8); 6] = [("fin", 1), ("syn", SYN), ("rst", 4), ("psh", 8), ("ack", ACK), ("urg", 32)];
/// Opens a connection.
pub const SYN: u8 = 2;
/// All packets of a connection but the first one bear it.
pub const ACK: u8 = 16;

/// Reads TCP flags such as `syn,ack`; an empty text is none.
///
/// # Errors
/// A flag that does not exist.
pub fn flags(text: &str) -> Result<u8, String> {
    let mut words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
    words.try_fold(0, |flags, word| {
        let found = FLAGS.iter().find(|(name, _)| name.eq_ignore_ascii_case(word));
        let (_, bit) = found.ok_or_else(|| format!("`{word}` is no TCP flag: fin, syn, rst, psh, ack, urg"))?;
        Ok(flags | bit)
    })
}

/// TCP flags in words.
#[must_use]
pub fn flag_names(flags: u8) -> String {
    let names = FLAGS.iter().filter(|(_, bit)| flags & bit != 0).map(|(name, _)| *name);
    names.collect::<Vec<_>>().join(",")
}

/// Builds the frame.
///
/// # Errors
/// The addresses are of two families.
pub fn frame(question: &Question) -> Result<Vec<u8>, String> {
    // Locally administered addresses: the packet path looks at none.
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    if let Some(vlan) = question.vlan {
        frame.extend([0x81, 0x00]);
        frame.extend((vlan & 0x0fff).to_be_bytes());
    }
    let transport = transport(question);
    // Shorter than 64 kB by construction.
    let length = u16::try_from(transport.len()).unwrap_or(u16::MAX);
    match (question.from, question.to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            frame.extend([0x08, 0x00]);
            let protocol = protocol(question);
            let mut header = vec![0x45, 0];
            header.extend((length + 20).to_be_bytes());
            header.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
            header.extend(from.octets());
            header.extend(to.octets());
            let sum = checksum::of(&header);
            header[10..12].copy_from_slice(&sum);
            frame.extend(header);
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend(length.to_be_bytes());
            frame.extend([protocol(question), 64]);
            frame.extend(from.octets());
            frame.extend(to.octets());
        }
        (from, to) => return Err(format!("{from} and {to} are of two address families: a packet has one")),
    }
    frame.extend(transport);
    Ok(frame)
}

const fn protocol(question: &Question) -> u8 {
    match (question.kind, question.from) {
        (Kind::Tcp(_), _) => TCP,
        (Kind::Udp, _) => UDP,
        (Kind::Icmp(_), IpAddr::V4(_)) => ICMP,
        (Kind::Icmp(_), IpAddr::V6(_)) => ICMPV6,
    }
}

/// The header behind IP's, and where its checksum stands.
fn transport(question: &Question) -> Vec<u8> {
    let ports = [question.from_port.to_be_bytes(), question.to_port.to_be_bytes()].concat();
    let (mut bytes, at) = match question.kind {
        Kind::Tcp(flags) => {
            let acknowledged = if flags & ACK == 0 { 0 } else { 1_u32 };
            let numbers = [1_u32.to_be_bytes(), acknowledged.to_be_bytes()].concat();
            ([ports, numbers, vec![0x50, flags, 0xff, 0xff, 0, 0, 0, 0]].concat(), 16)
        }
        Kind::Udp => ([ports, vec![0, 8, 0, 0]].concat(), 6),
        Kind::Icmp(kind) => (vec![kind, 0, 0, 0, 0, 1, 0, 1], 2),
    };
    let sum = match question.kind {
        Kind::Icmp(_) if question.from.is_ipv4() => checksum::of(&bytes),
        _ => checksum::of(&[pseudo_header(question, bytes.len()), bytes.clone()].concat()),
    };
    bytes[at..at + 2].copy_from_slice(&sum);
    bytes
}

/// RFC 9293, RFC 8200: what the checksum covers beside the packet itself.
fn pseudo_header(question: &Question, length: usize) -> Vec<u8> {
    let address = |address: IpAddr| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let length = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    let protocol = u32::from(protocol(question)).to_be_bytes();
    [address(question.from), address(question.to), length.to_vec(), protocol.to_vec()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::summary::summary;

    fn question(from: &str, to: &str, kind: Kind, vlan: Option<u16>) -> Question {
        Question { from: from.parse().unwrap(), from_port: 40_000, to: to.parse().unwrap(), to_port: 443, kind, vlan }
    }

    #[test]
    fn frames_are_read_back_as_asked() {
        for (from, to, kind, vlan, read) in [
            ("192.0.2.1", "10.0.1.11", Kind::Tcp(SYN), None, "tcp 192.0.2.1:40000 → 10.0.1.11:443 syn, 54 bytes"),
            ("192.0.2.1", "10.0.1.11", Kind::Udp, Some(7), "udp 192.0.2.1:40000 → 10.0.1.11:443, 46 bytes"),
            ("192.0.2.1", "10.0.1.11", Kind::Icmp(8), None, "icmp 192.0.2.1 → 10.0.1.11 type 8, 42 bytes"),
            (
                "2001:db8::1",
                "fd00::2",
                Kind::Tcp(SYN | ACK),
                None,
                "tcp [2001:db8::1]:40000 → [fd00::2]:443 syn,ack, 74 bytes",
            ),
            ("2001:db8::1", "fd00::2", Kind::Icmp(128), None, "icmpv6 2001:db8::1 → fd00::2 type 128, 62 bytes"),
        ] {
            assert_eq!(summary(&frame(&question(from, to, kind, vlan)).unwrap()), read);
        }
    }

    #[test]
    fn checksums_are_right() {
        let frame = frame(&question("192.0.2.1", "10.0.1.11", Kind::Udp, None)).unwrap();
        assert_eq!(checksum::of(&frame[14..34]), [0, 0]);
        let pseudo = pseudo_header(&question("192.0.2.1", "10.0.1.11", Kind::Udp, None), 8);
        assert_eq!(checksum::of(&[&pseudo, &frame[34..]].concat()), [0, 0]);
    }

    #[test]
    fn two_families_are_refused() {
        assert!(
            frame(&question("192.0.2.1", "fd00::2", Kind::Udp, None)).unwrap_err().contains("two address families")
        );
    }

    #[test]
    fn flags_are_read_and_told() {
        assert_eq!(flags("SYN, ack").map(flag_names), Ok("syn,ack".to_owned()));
        assert_eq!(flags(""), Ok(0));
        assert!(flags("syn,sin").is_err());
    }
}
