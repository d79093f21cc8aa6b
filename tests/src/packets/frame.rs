//! A builder of frames; its checksums are computed from scratch, sharing nothing with the packet path.

use std::net::IpAddr;

use super::chain::{Extension, laid_out};
use super::hosts::{Host, Wire};

/// TCP flags.
pub const FIN: u8 = 1;
/// See [`FIN`].
pub const SYN: u8 = 2;
/// See [`FIN`].
pub const RST: u8 = 4;
/// See [`FIN`].
pub const PSH: u8 = 8;
/// See [`FIN`].
pub const ACK: u8 = 16;
/// See [`FIN`].
pub const URG: u8 = 32;

/// See [`FIN`].
pub const ECE: u8 = 64;
/// See [`FIN`].
pub const CWR: u8 = 128;

/// Flag of IPv4: this packet may not be cut.
const DONT_FRAGMENT: u16 = 0x4000;
/// Flag of IPv4: more fragments follow.
const MORE_FRAGMENTS: u16 = 0x2000;

/// What follows the IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP: ports and flags.
    Tcp(u16, u16, u8),
    /// UDP: ports.
    Udp(u16, u16),
    /// UDP without a checksum: ports.
    UdpUnchecked(u16, u16),
    /// ICMP, or ICMPv6 in IPv6: the type.
    Icmp(u8),
    /// Something else: the protocol's number.
    Other(u8),
}

/// A frame as a host sends it to the balancer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The balancer's interface by which it comes.
    pub ingress: Wire,
    /// MAC addresses: destination, source.
    pub macs: ([u8; 6], [u8; 6]),
    /// VLAN tags: their EtherType and VLAN.
    pub tags: Vec<(u16, u16)>,
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Time to live or hop limit.
    pub hops: u8,
    /// IPv4 options, a multiple of four bytes.
    pub options: Vec<u8>,
    /// Flags and fragment offset of IPv4.
    pub fragment: u16,
    /// Headers between IP and what follows.
    pub chain: Vec<Extension>,
    /// What follows.
    pub transport: Transport,
    /// Sequence and acknowledgement number of TCP.
    pub numbers: (u32, u32),
    /// Options of TCP, a multiple of four bytes.
    pub tcp_options: Vec<u8>,
    /// What follows that.
    pub data: Vec<u8>,
}

impl Frame {
    /// A frame of a family, from a host, by way of the balancer.
    pub fn new(v6: bool, from: Host, to: Host, transport: Transport) -> Self {
        Self {
            ingress: from.wire,
            macs: (from.wire.mac(), from.mac),
            tags: Vec::new(),
            source: from.address(v6),
            destination: to.address(v6),
            hops: 64,
            options: Vec::new(),
            fragment: DONT_FRAGMENT,
            chain: Vec::new(),
            transport,
            numbers: (0x0102_0304, 0x0506_0708),
            tcp_options: Vec::new(),
            data: b"foobar".to_vec(),
        }
    }

    /// With this payload.
    #[must_use]
    pub fn data(mut self, data: &[u8]) -> Self {
        self.data = data.to_vec();
        self
    }

    /// With so much data that the frame has this many bytes.
    #[must_use]
    pub fn of_length(mut self, bytes: usize) -> Self {
        self.data.clear();
        let data = bytes - self.bytes().len();
        self.data(&vec![7; data])
    }

    /// With these IPv4 options.
    #[must_use]
    pub fn options(mut self, options: &[u8]) -> Self {
        self.options = options.to_vec();
        self
    }

    /// As a fragment: offset in units of 8 bytes, and whether more follow; of IPv6 by one more extension header.
    #[must_use]
    pub fn fragment(mut self, offset: u16, more: bool) -> Self {
        if self.source.is_ipv4() {
            self.fragment = offset | if more { MORE_FRAGMENTS } else { 0 };
            return self;
        }
        self.behind_too(Extension::Fragment(offset, more))
    }

    /// With one more header in front of the transport header.
    #[must_use]
    pub fn behind_too(mut self, header: Extension) -> Self {
        self.chain.push(header);
        self
    }

    /// With these headers in front of the transport header.
    #[must_use]
    pub fn chain(mut self, chain: &[Extension]) -> Self {
        self.chain = chain.to_vec();
        self
    }

    /// With these numbers of TCP: sequence, acknowledgement.
    #[must_use]
    pub const fn numbers(mut self, sequence: u32, acknowledgement: u32) -> Self {
        self.numbers = (sequence, acknowledgement);
        self
    }

    /// With these options of TCP.
    #[must_use]
    pub fn tcp_options(mut self, options: &[u8]) -> Self {
        self.tcp_options = options.to_vec();
        self
    }

    /// With this hop count.
    #[must_use]
    pub const fn hops(mut self, hops: u8) -> Self {
        self.hops = hops;
        self
    }

    /// With one more VLAN tag, the outermost first.
    #[must_use]
    pub fn tag(mut self, kind: u16, vlan: u16) -> Self {
        self.tags.push((kind, vlan));
        self
    }

    /// As the balancer sends it on to a backend.
    #[must_use]
    pub fn to_backend(&self, backend: Host, port: u16) -> Self {
        let mut sent = self.sent_to(backend);
        sent.destination = backend.address(self.source.is_ipv6());
        let (source_port, _) = sent.ports();
        sent.set_ports(source_port, port);
        sent
    }

    /// The same from another source.
    #[must_use]
    pub const fn seen_from(mut self, source: Host, port: u16) -> Self {
        let (_, destination_port) = self.ports();
        self.source = source.address(self.source.is_ipv6());
        self.set_ports(port, destination_port);
        self
    }

    /// The same to another destination.
    #[must_use]
    pub const fn sent_on_to(mut self, destination: Host, port: u16) -> Self {
        let (source_port, _) = self.ports();
        self.destination = destination.address(self.source.is_ipv6());
        self.set_ports(source_port, port);
        self
    }

    /// As the balancer sends it on to a backend that has the VIP itself.
    #[must_use]
    pub fn relayed(&self, backend: Host) -> Self {
        self.sent_to(backend)
    }

    /// As the balancer sends a backend's reply on to a client.
    #[must_use]
    pub fn to_client(&self, vip: Host, port: u16, client: Host) -> Self {
        let mut sent = self.sent_to(client);
        sent.source = vip.address(self.source.is_ipv6());
        let (_, destination_port) = sent.ports();
        sent.set_ports(port, destination_port);
        sent
    }

    /// Translated to a backend, but left to the stack: MAC addresses and hop count are as they were.
    #[must_use]
    pub fn left_to_stack(&self, backend: Host, port: u16) -> Self {
        self.left(self.to_backend(backend, port))
    }

    /// As `sent`, but left to the stack.
    #[must_use]
    pub fn left(&self, sent: Self) -> Self {
        Self { macs: self.macs, hops: self.hops, ..sent }
    }

    fn sent_to(&self, hop: Host) -> Self {
        let mut sent = self.clone();
        sent.macs = (hop.mac, hop.wire.mac());
        sent.hops -= 1;
        sent
    }

    /// Source and destination port; zeroes without.
    pub const fn ports(&self) -> (u16, u16) {
        match self.transport {
            Transport::Tcp(a, b, _) | Transport::Udp(a, b) | Transport::UdpUnchecked(a, b) => (a, b),
            _ => (0, 0),
        }
    }

    /// IP protocol number.
    pub const fn protocol(&self) -> u8 {
        match self.transport {
            Transport::Tcp(..) => 6,
            Transport::Udp(..) | Transport::UdpUnchecked(..) => 17,
            Transport::Icmp(_) if self.source.is_ipv4() => 1,
            Transport::Icmp(_) => 58,
            Transport::Other(number) => number,
        }
    }

    const fn set_ports(&mut self, source: u16, destination: u16) {
        self.transport = match self.transport {
            Transport::Tcp(.., flags) => Transport::Tcp(source, destination, flags),
            Transport::Udp(..) => Transport::Udp(source, destination),
            Transport::UdpUnchecked(..) => Transport::UdpUnchecked(source, destination),
            other => other,
        };
    }

    /// Offset of the IP header.
    pub const fn network(&self) -> usize {
        14 + 4 * self.tags.len()
    }

    /// Offset of the transport header.
    pub fn behind(&self) -> usize {
        let (_, chain) = laid_out(&self.chain, 0);
        self.network() + chain.len() + if self.source.is_ipv4() { 20 + self.options.len() } else { 40 }
    }

    /// The bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let mut frame = [self.macs.0, self.macs.1].concat();
        for (kind, vlan) in &self.tags {
            frame.extend(kind.to_be_bytes());
            frame.extend(vlan.to_be_bytes());
        }
        let (first, chain) = laid_out(&self.chain, self.protocol());
        let payload = [chain, self.payload()].concat();
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let header = 20 + self.options.len();
                let mut ip = vec![0x40 | (header / 4) as u8, 0];
                ip.extend(((header + payload.len()) as u16).to_be_bytes());
                ip.extend([0x12, 0x34]);
                ip.extend(self.fragment.to_be_bytes());
                ip.extend([self.hops, first, 0, 0]);
                ip.extend(source.octets());
                ip.extend(destination.octets());
                ip.extend(&self.options);
                let sum = checksum(&[&ip]);
                ip[10..12].copy_from_slice(&sum.to_be_bytes());
                frame.extend(0x0800_u16.to_be_bytes());
                frame.extend(ip);
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                frame.extend((payload.len() as u16).to_be_bytes());
                frame.extend([first, self.hops]);
                frame.extend(source.octets());
                frame.extend(destination.octets());
            }
            _ => panic!("a frame of two families"),
        }
        frame.extend(payload);
        frame
    }

    fn payload(&self) -> Vec<u8> {
        let mut segment = Vec::new();
        let at = match self.transport {
            Transport::Tcp(source, destination, flags) => {
                segment.extend(source.to_be_bytes());
                segment.extend(destination.to_be_bytes());
                segment.extend(self.numbers.0.to_be_bytes());
                segment.extend(self.numbers.1.to_be_bytes());
                let words = (20 + self.tcp_options.len()) / 4;
                segment.extend([(words << 4) as u8, flags, 0xff, 0, 0, 0, 0, 0]);
                segment.extend(&self.tcp_options);
                Some(16)
            }
            Transport::Udp(source, destination) | Transport::UdpUnchecked(source, destination) => {
                segment.extend(source.to_be_bytes());
                segment.extend(destination.to_be_bytes());
                segment.extend((8 + self.data.len() as u16).to_be_bytes());
                segment.extend([0, 0]);
                matches!(self.transport, Transport::Udp(..)).then_some(6)
            }
            Transport::Icmp(kind) => {
                segment.extend([kind, 0, 0, 0, 0, 1, 0, 1]);
                Some(2)
            }
            Transport::Other(_) => None,
        };
        segment.extend(&self.data);
        if let Some(at) = at {
            let mut sum = checksum(&[&self.pseudo_header(segment.len()), &segment]);
            if matches!(self.transport, Transport::Udp(..)) && sum == 0 {
                sum = 0xffff;
            }
            segment[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        }
        segment
    }

    /// Addresses, protocol and length (RFC 768, RFC 8200); ICMP for IPv4 has none.
    fn pseudo_header(&self, length: usize) -> Vec<u8> {
        let mut header = match (self.source, self.destination) {
            (IpAddr::V4(_), _) if self.protocol() == 1 => return Vec::new(),
            (IpAddr::V4(source), IpAddr::V4(destination)) => [source.octets(), destination.octets()].concat(),
            (IpAddr::V6(source), IpAddr::V6(destination)) => [source.octets(), destination.octets()].concat(),
            _ => panic!("a frame of two families"),
        };
        header.extend((length as u32).to_be_bytes());
        header.extend([0, 0, 0, self.protocol()]);
        header
    }
}

/// The internet checksum (RFC 1071), word by word in host order.
pub fn checksum(parts: &[&[u8]]) -> u16 {
    let bytes = parts.concat();
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
        if sum > 0xffff {
            sum -= 0xffff;
        }
    }
    !(sum as u16)
}

/// A frame of any EtherType.
pub fn ethernet(from: Host, kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = [from.wire.mac(), from.mac].concat();
    frame.extend(kind.to_be_bytes());
    frame.extend(payload);
    frame
}

/// An ARP request.
pub fn arp(from: Host, wanted: Host) -> Vec<u8> {
    let mut frame = [[0xff; 6], from.mac].concat();
    frame.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(from.mac);
    frame.extend(from.v4.octets());
    frame.extend([0; 6]);
    frame.extend(wanted.v4.octets());
    frame
}
