//! Random frames: sensible ones, mutated and cut, from a seed that gives the same ones again.

use super::frame::{Frame, Transport};
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
const PORTS: [u16; 26] = [
    22, 23, 53, 443, 7007, 8000, 8007, 8010, 8080, 8081, 8082, 8083, 8084, 8085, 8086, 8087, 8088, 8091, 9080, 9082,
    9087, 2000, 2001, 3000, LOCAL, REMOTE,
];
const PROTOCOLS: [u8; 10] = [0, 1, 6, 17, 43, 44, 58, 59, 89, 255];

/// A generator of 64-bit numbers (xorshift*): a seed gives the same ones on every machine.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// From a seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Any number.
    pub const fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
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
        let frame = self.sensible();
        let mut bytes = frame.bytes();
        if self.once_in(3) {
            for _ in 0..=self.below(3) {
                self.mutate(&mut bytes);
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

    fn sensible(&mut self) -> Frame {
        let transport = self.transport();
        let (mut from, mut to) = (self.of(&HOSTS), self.of(&HOSTS));
        // Half of all are what services see: clients to the VIP, and the backends' replies.
        match self.below(4) {
            0 => (from, to) = (self.of(&[CLIENT, CLIENT2, ENEMY]), VIP),
            1 => (from, to) = (self.of(&[WEB1, WEB2, WEB3, EDGE]), self.of(&[CLIENT, CLIENT2])),
            _ => {}
        }
        let mut frame = Frame::new(self.once_in(2), from, to, transport);
        if self.once_in(20) {
            frame.hops = self.of(&[0, 1, 2]);
        }
        if self.once_in(8) {
            for _ in 0..=self.below(3) {
                frame = frame.tag(self.of(&[0x8100, 0x88a8]), 7);
            }
        }
        let length = if self.once_in(10) { self.below(1500) } else { self.below(20) };
        frame.data(&vec![0xa5; length])
    }

    fn transport(&mut self) -> Transport {
        let (source, destination) = (self.of(&PORTS), self.of(&PORTS));
        let flags = self.of(&[2, 2, 2, 16, 16, 17, 4, 18, 3]);
        match self.below(12) {
            0..6 => Transport::Tcp(source, destination, flags),
            6 => Transport::Udp(8007, self.of(&[3000, 3001])),
            7 => Transport::UdpUnchecked(3001, 7007),
            8 => {
                self.of(&[Transport::Udp(source, destination), Transport::Udp(DNS, ASKING), Transport::Udp(3000, 7007)])
            }
            9 => Transport::Icmp(self.of(&[0, 3, 8, 9, 128, 129, 133, 136, 137])),
            10 => self.of(&[Transport::Tcp(9080, 2000, flags), Transport::Tcp(2000, 8080, flags)]),
            _ => Transport::Other(self.of(&PROTOCOLS)),
        }
    }

    /// Changes a byte, mostly in the headers.
    fn mutate(&mut self, bytes: &mut [u8]) {
        let end = if self.once_in(4) { bytes.len() } else { bytes.len().min(78) };
        let at = 12 + self.below(end - 12);
        bytes[at] = match self.below(3) {
            0 => self.next() as u8,
            1 => bytes[at] ^ (1 << self.below(8)),
            _ => self.of(&[0, 1, 0x45, 0x46, 0x60, 0xff]),
        };
    }
}
