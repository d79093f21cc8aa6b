//! Random frames: sensible ones of every kind, mutated and cut, from a seed that gives the same ones again.

use std::net::IpAddr;

use super::chain::Extension;
use super::frame::{Frame, Transport, ethernet};
use super::hosts::{
    ADMIN, CLIENT, CLIENT2, EDGE, ENEMY, Host, LB1, LB1_TOO, NARROW, OFFICE, OFFICE_HIGH, STRANGER, VIP, WEB1, WEB2,
    WEB3, Wire,
};
use super::own::{ASKING, DNS, LOCAL, REMOTE};

const HOSTS: [Host; 16] = [
    CLIENT,
    CLIENT,
    CLIENT2,
    ADMIN,
    EDGE,
    ENEMY,
    LB1,
    LB1_TOO,
    OFFICE,
    OFFICE_HIGH,
    STRANGER,
    VIP,
    WEB1,
    WEB2,
    WEB3,
    NARROW,
];
/// Ports that rules and services know, and their neighbours.
const PORTS: [u16; 50] = [
    22, 23, 53, 123, 124, 443, 444, 1023, 1024, 4999, 5000, 5001, 6000, 7007, 8000, 8001, 8001, 8004, 8006, 8007, 8008,
    8009, 8010, 8011, 8015, 8017, 8080, 8080, 8081, 8082, 8083, 8084, 8085, 8086, 8087, 8088, 8091, 9000, 9001, 9080,
    9082, 9087, 9999, 2000, 2001, 3000, 65535, 0, LOCAL, REMOTE,
];
const PROTOCOLS: [u8; 16] = [0, 1, 2, 6, 17, 41, 43, 44, 47, 50, 51, 58, 59, 60, 89, 255];
const FLAGS: [u8; 12] = [2, 2, 2, 2, 16, 16, 16, 17, 4, 18, 24, 3];
const TYPES: [u8; 11] = [0, 3, 8, 8, 9, 128, 128, 129, 133, 136, 137];
const ETHER_TYPES: [u16; 10] = [0x8809, 0x8809, 0x88cc, 0x8847, 0x8864, 0x0806, 0x0026, 0x0800, 0x86dd, 0x8808];
/// Sources that are special, one past something that is, or in a set.
const SOURCES: [&str; 36] = [
    "0.0.0.0",
    "127.0.0.1",
    "128.0.0.0",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "10.0.1.11",
    "100.64.0.1",
    "100.128.0.0",
    "169.254.1.1",
    "172.16.0.1",
    "172.32.0.0",
    "192.0.2.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.66.70",
    "198.51.95.1",
    "198.51.96.1",
    "198.51.100.201",
    "198.51.100.202",
    "198.51.101.1",
    "198.51.128.0",
    "::",
    "::1",
    "::2",
    "::ffff:10.0.1.11",
    "ff02::1",
    "fe80::1",
    "fd00:1::b",
    "fbff::1",
    "2001:db8:42::1",
    "2001:db8:60::1",
    "2001:db8:64:8000::c9",
    "2001:db8:64:8000::ca",
    "2001:db8:70::1",
];

/// A generator of 64-bit numbers (xorshift*): a seed gives the same ones on every machine.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
    sources: Vec<IpAddr>,
}

impl Random {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        let sources = SOURCES.iter().map(|text| text.parse().expect("an address in this file")).collect();
        Self { state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, sources }
    }

    /// Any number.
    pub const fn next(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `end`.
    pub const fn below(&mut self, end: usize) -> usize {
        ((self.next() >> 32) as usize) % end
    }

    fn of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len())]
    }

    fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// A frame, with the interface by which it comes.
    pub fn frame(&mut self) -> (Wire, Vec<u8>) {
        if self.once_in(60) {
            return self.foreign();
        }
        let frame = if self.once_in(16) { self.error() } else { self.sensible() };
        let mut bytes = frame.bytes();
        if self.once_in(3) {
            for _ in 0..=self.below(3) {
                self.mutate(&mut bytes, frame.behind() + 20);
            }
        }
        if self.once_in(6) {
            bytes.truncate(14 + self.below(bytes.len() - 13));
        }
        if self.once_in(12) {
            bytes.resize(bytes.len() + self.below(40), 0);
        }
        (frame.ingress, bytes)
    }

    /// What is no IP, or claims to be.
    fn foreign(&mut self) -> (Wire, Vec<u8>) {
        let kind = self.of(&ETHER_TYPES);
        let length = self.below(80);
        let payload: Vec<u8> = (0..length).map(|_| self.next() as u8).collect();
        (Wire::Front, ethernet(CLIENT, kind, &payload))
    }

    fn sensible(&mut self) -> Frame {
        let transport = self.transport();
        let (mut from, mut to) = (self.of(&HOSTS), self.of(&HOSTS));
        // Many are what services see, clients to the VIP and the backends' replies; and what rules of the host see.
        match self.below(6) {
            0 if self.once_in(2) => return self.limited(),
            0 => (from, to) = (self.of(&[CLIENT, CLIENT2, ENEMY]), VIP),
            1 => (from, to) = (self.of(&[WEB1, WEB2, WEB3, EDGE]), self.of(&[CLIENT, CLIENT2])),
            2 => to = LB1,
            _ => {}
        }
        let mut frame = Frame::new(self.once_in(2), from, to, transport);
        if self.once_in(6) {
            let source = self.of_sources();
            if source.is_ipv6() == frame.source.is_ipv6() {
                frame.source = source;
            }
        }
        if self.once_in(8) {
            frame.ingress = self.of(&[Wire::Front, Wire::Back]);
        }
        if self.once_in(20) {
            frame.hops = self.of(&[0, 1, 2]);
        }
        if self.once_in(10) {
            for _ in 0..=self.below(3) {
                let kind = self.of(&[0x8100, 0x88a8]);
                frame = frame.tag(kind, 7);
            }
        }
        if self.once_in(3) {
            // What the backend said, or what the client then has to say.
            frame.numbers = self.of(&[(0x0102_0304, 0x0102_0305), (0x0102_0305, 0x0102_0305), (7, 0x0102_0306)]);
        }
        frame = self.between(frame);
        let length = match self.below(40) {
            0 => self.below(8900),
            1..4 => self.below(1500),
            _ => self.below(24),
        };
        frame.data(&vec![0xa5; length])
    }

    /// An ICMP error about what services see most, so that some are about flows.
    fn error(&mut self) -> Frame {
        let (v6, client, backend) = (self.once_in(2), self.of(&[CLIENT, CLIENT2]), self.of(&[WEB1, WEB2]));
        let quoted = match self.below(4) {
            0 => Frame::new(v6, VIP, client, Transport::Tcp(8080, 2000, 16)),
            1 => Frame::new(v6, client, backend, Transport::Tcp(2000, 9080, 16)),
            2 => Frame::new(v6, VIP, client, Transport::UdpUnchecked(7007, 3001)),
            _ => Frame::new(v6, client, backend, Transport::UdpUnchecked(3001, 8007)),
        };
        let (from, kind) = (self.of(&[client, backend, ADMIN, OFFICE]), self.of(&[1, 2, 3, 3, 4, 11, 12]));
        let bytes = quoted.bytes();
        let length = if self.once_in(2) { self.below(bytes.len() - 14) } else { bytes.len() - 14 };
        let error = Frame::new(v6, from, LB1, Transport::Icmp(kind)).data(&bytes[14..14 + length]);
        Frame { destination: if self.once_in(16) { error.destination } else { quoted.source }, ..error }
    }

    /// What limits count, from few sources, so that they are reached.
    fn limited(&mut self) -> Frame {
        let (v6, from) = (self.once_in(2), self.of(&[CLIENT, WEB1, WEB2, OFFICE]));
        let tcp = self.of(&[8001, 8001, 8006, 8009, 8000]);
        let udp = self.of(&[53, 5000, 5000, 5001]);
        let flags = self.of(&FLAGS);
        let transport = match self.below(4) {
            0 => Transport::Udp(1025, udp),
            1 => Transport::Icmp(if v6 { 128 } else { 8 }),
            _ => Transport::Tcp(1025, tcp, flags),
        };
        let mut frame = Frame::new(v6, from, LB1, transport);
        frame.ingress = if self.once_in(8) { Wire::Front } else { Wire::Back };
        frame
    }

    fn of_sources(&mut self) -> IpAddr {
        let at = self.below(self.sources.len());
        self.sources[at]
    }

    /// Options, fragments, extension headers.
    fn between(&mut self, mut frame: Frame) -> Frame {
        if frame.source.is_ipv4() {
            if self.once_in(30) {
                frame = frame.options(&vec![1; 4 * (1 + self.below(10))]);
            }
            if self.once_in(15) {
                let (offset, more) = (self.offset(), self.once_in(2));
                frame = frame.fragment(offset, more);
            }
            return frame;
        }
        if self.once_in(3) {
            for _ in 0..=self.below(4) {
                let header = self.extension();
                frame = frame.behind_too(header);
            }
        }
        if self.once_in(40) {
            frame.chain = vec![Extension::Destination(8); 6 + self.below(4)];
        }
        frame
    }

    fn offset(&mut self) -> u16 {
        let any = self.below(0x2000) as u16;
        self.of(&[0, 0, 1, 2, 3, 185, any])
    }

    fn extension(&mut self) -> Extension {
        match self.below(10) {
            0 | 1 => Extension::HopByHop(8 * (1 + self.below(3))),
            2 | 3 => Extension::Destination(8 * (1 + self.below(3))),
            4 => Extension::Destination(8 * (1 + self.below(32))),
            5 => Extension::Routing(self.of(&[0, 2, 4]), self.of(&[0, 0, 0, 1])),
            6 => Extension::Authentication(12 + 4 * self.below(8)),
            7 | 8 => Extension::ATOMIC,
            _ => {
                let (offset, more) = (self.offset(), self.once_in(2));
                Extension::Fragment(offset, more)
            }
        }
    }

    fn transport(&mut self) -> Transport {
        let (source, destination) = (self.of(&PORTS), self.of(&PORTS));
        let flags = if self.once_in(10) { self.next() as u8 } else { self.of(&FLAGS) };
        match self.below(14) {
            0..6 => Transport::Tcp(source, destination, flags),
            6 => Transport::Udp(8007, self.of(&[3000, 3001])),
            7 => Transport::UdpUnchecked(3001, 7007),
            8 | 9 => self.of(&[
                Transport::Udp(source, destination),
                Transport::Udp(source, destination),
                Transport::Udp(DNS, ASKING),
                Transport::Udp(3000, 7007),
                Transport::Udp(123, 123),
            ]),
            10 => Transport::Icmp(self.of(&TYPES)),
            11 | 12 => self.of(&[Transport::Tcp(9080, 2000, flags), Transport::Tcp(2000, 8080, flags)]),
            _ => Transport::Other(self.of(&PROTOCOLS)),
        }
    }

    /// Changes a byte, mostly in the headers, which end at `end`.
    fn mutate(&mut self, bytes: &mut [u8], end: usize) {
        let end = if self.once_in(4) { bytes.len() } else { bytes.len().min(end) };
        let at = 12 + self.below(end - 12);
        bytes[at] = match self.below(3) {
            0 => self.next() as u8,
            1 => bytes[at] ^ (1 << self.below(8)),
            _ => self.of(&[0, 1, 0x45, 0x46, 0x60, 0xff]),
        };
    }
}
