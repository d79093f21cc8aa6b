//! The SYN-ACK that bears a SYN cookie: written over the SYN, without the stack.
//!
//! Options survive in the timestamp that the client echoes, in the layout of the kernel's `cookie_init_timestamp`:
//! the kernel reads them there when the handshake completes. Without a timestamp only the MSS survives.

use crate::abi::{SYN_ECN, SYN_SACK, SYN_SCALE, SYN_TIMESTAMPS, SynSettings};
use crate::address::Address;
use crate::answer;
use crate::checksum::{Sum, put};
use crate::packet::Packet;
use crate::parse::{ACK, CWR, ECE, SYN, TCP};
use crate::syn::{NO_SCALE, Options};

/// The frame is never shorter: a driver need not fill up what leaves by `XDP_TX`.
const FRAME_MIN: usize = 60;
/// Length of the header with the MSS alone.
const SHORT: usize = 24;
/// Length of the header with everything; what is not offered is filled up.
const LONG: usize = 40;
/// Window before scaling: two initial flights of the client, and less than the kernel gives a listener by default.
///
/// The first segment of the stack tells the true one.
const WINDOW: u16 = 29_200;
/// Time to live of the answer, as the stack's.
const HOPS: u8 = 64;
/// Identification 0, don't fragment, offset 0.
const DONT_FRAGMENT: u32 = 0x4000;

/// Low bits of the timestamp that bear options (`TSBITS`).
const OPTION_BITS: u32 = 6;
/// The client takes selective acknowledgements (`TS_OPT_SACK`).
const OPTION_SACK: u32 = 1 << 4;
/// Both sides mark congestion (`TS_OPT_ECN`).
const OPTION_ECN: u32 = 1 << 5;

/// An answer to one SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SynAck {
    /// Sequence number of the answer.
    cookie: u32,
    /// Sequence number that it acknowledges.
    acknowledged: u32,
    /// Largest segment that this host takes.
    mss: u16,
    /// Whether the options follow; else the MSS alone.
    full: bool,
    /// Our clock, with the client's options in it.
    clock: u32,
    /// The client's clock as it lies in the packet.
    echo: u32,
    /// Our window scale, or [`NO_SCALE`].
    window_scale: u8,
    sack: bool,
    ecn: bool,
}

/// What an answer is made from.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Cookie of the kernel.
    pub cookie: u32,
    /// Sequence number of the SYN.
    pub sequence: u32,
    /// TCP flags of the SYN.
    pub flags: u8,
    /// Options of the SYN.
    pub options: &'a Options,
    /// What this host's stack would agree to.
    pub settings: &'a SynSettings,
    /// MTU of the way back.
    pub mtu: u32,
    /// Monotonic time.
    pub now_ns: u64,
}

impl SynAck {
    /// What the kernel's stack would answer with a cookie.
    #[inline(always)]
    #[must_use]
    pub const fn new<const W: usize>(question: &Question<'_>) -> Self {
        let Question { options, settings, .. } = question;
        let headers = if W == 1 { 40 } else { 60 };
        let mtu = if question.mtu > 0xffff { 0xffff } else { question.mtu };
        let mss = mtu.saturating_sub(headers) as u16;
        let mut answer = Self {
            cookie: question.cookie,
            acknowledged: question.sequence.wrapping_add(1),
            mss,
            full: false,
            clock: 0,
            echo: options.timestamp,
            window_scale: NO_SCALE,
            sack: false,
            ecn: false,
        };
        if !options.timestamps || settings.flags & SYN_TIMESTAMPS == 0 {
            return answer;
        }
        answer.sack = options.sack && settings.flags & SYN_SACK != 0;
        answer.ecn = question.flags & (ECE | CWR) == ECE | CWR && settings.flags & SYN_ECN != 0;
        let mut kept = NO_SCALE as u32;
        if options.window_scale != NO_SCALE && settings.flags & SYN_SCALE != 0 {
            answer.window_scale = settings.window_scale as u8;
            kept = options.window_scale as u32;
        }
        kept |= if answer.sack { OPTION_SACK } else { 0 } | if answer.ecn { OPTION_ECN } else { 0 };
        answer.full = true;
        answer.clock = clock(question.now_ns, kept);
        answer
    }

    /// Length of the TCP header.
    #[inline(always)]
    const fn header(&self) -> usize {
        if self.full { LONG } else { SHORT }
    }

    /// Length of the frame, which its bytes must have before [`SynAck::write`], with the TCP header at this offset.
    #[inline(always)]
    #[must_use]
    pub const fn frame(&self, transport: usize) -> usize {
        let length = transport + self.header();
        if length < FRAME_MIN { FRAME_MIN } else { length }
    }

    /// Writes the answer over the SYN whose headers were at these offsets; `None`: the frame is too short.
    ///
    /// The IPv4 header must be without options and the IPv6 header without extensions.
    #[inline(always)]
    #[must_use]
    pub fn write<const W: usize, P: Packet>(&self, packet: &mut P, network: usize, transport: usize) -> Option<()>
    where
        Address<W>: Network,
    {
        answer::turn(packet, 0)?;
        let length = self.header() as u16;
        let addresses = Address::<W>::turn(packet, network, length)?;
        self.transport(packet, transport, addresses)
    }

    /// Writes the TCP header, word by word: the stack of a program is no place for it.
    #[inline(always)]
    fn transport<P: Packet>(&self, packet: &mut P, at: usize, addresses: Sum) -> Option<()> {
        let mut sum = addresses.add16(u16::from(TCP).to_be()).add16((self.header() as u16).to_be());
        let flags = SYN | ACK | if self.ecn { ECE } else { 0 };
        let control = (self.header() as u32 / 4) << 28 | (flags as u32) << 16 | WINDOW as u32;
        let ports = packet.load::<4>(at).map(u32::from_ne_bytes)?.rotate_left(16);
        let mss = (0x0204_0000 | self.mss as u32).to_be();
        sum = put(packet, at, ports, sum)?;
        sum = put(packet, at + 4, self.cookie.to_be(), sum)?;
        sum = put(packet, at + 8, self.acknowledged.to_be(), sum)?;
        sum = put(packet, at + 12, control.to_be(), sum)?;
        sum = put(packet, at + 20, mss, sum)?;
        if self.full {
            let sack: u32 = if self.sack { 0x0402_080a } else { 0x0101_080a };
            let scale = match self.window_scale {
                NO_SCALE => 0x0101_0101,
                scale => 0x0103_0300 | scale as u32,
            };
            sum = put(packet, at + 24, sack.to_be(), sum)?;
            sum = put(packet, at + 28, self.clock.to_be(), sum)?;
            sum = put(packet, at + 32, self.echo, sum)?;
            sum = put(packet, at + 36, u32::to_be(scale), sum)?;
        }
        packet.store(at + 16, sum.checksum())?;
        packet.store(at + 18, [0; 2])
    }
}

/// Our clock in milliseconds with `options` in its low bits, never ahead of the true one (`cookie_init_timestamp`).
#[inline(always)]
const fn clock(now_ns: u64, options: u32) -> u32 {
    let now = (now_ns / 1_000_000) as u32;
    let marked = now >> OPTION_BITS << OPTION_BITS | options;
    if marked > now { marked.wrapping_sub(1 << OPTION_BITS) } else { marked }
}

/// The network header of an answer, which each family has its own of.
pub trait Network {
    /// Turns the header at an offset round, for a payload of so many bytes; the sum over its addresses.
    fn turn<P: Packet>(packet: &mut P, at: usize, payload: u16) -> Option<Sum>;
}

impl Network for Address<1> {
    #[inline(always)]
    fn turn<P: Packet>(packet: &mut P, at: usize, payload: u16) -> Option<Sum> {
        let addresses = exchange::<1, P>(packet, at + 12)?;
        let length = (0x4500_0000 | (payload as u32 + 20)).to_be();
        let hops = (u32::from(HOPS) << 24 | u32::from(TCP) << 16).to_be();
        let mut sum = put(packet, at, length, addresses)?;
        sum = put(packet, at + 4, DONT_FRAGMENT.to_be(), sum)?;
        sum = put(packet, at + 8, hops, sum)?;
        packet.store(at + 10, sum.checksum())?;
        Some(addresses)
    }
}

impl Network for Address<4> {
    #[inline(always)]
    fn turn<P: Packet>(packet: &mut P, at: usize, payload: u16) -> Option<Sum> {
        let addresses = exchange::<4, P>(packet, at + 8)?;
        let rest = u32::from(payload) << 16 | u32::from(TCP) << 8 | u32::from(HOPS);
        packet.store(at, 0x6000_0000_u32.to_be_bytes())?;
        packet.store(at + 4, rest.to_be_bytes())?;
        Some(addresses)
    }
}

/// Exchanges two addresses of `W` words that lie behind each other; the sum over them.
///
/// Without a loop: the compiler turns its bounds into arithmetic on the end of the frame, which the verifier refuses.
#[inline(always)]
fn exchange<const W: usize, P: Packet>(packet: &mut P, at: usize) -> Option<Sum> {
    let sum = exchange_word::<W, P>(packet, at, Sum::new())?;
    if W == 1 {
        return Some(sum);
    }
    let sum = exchange_word::<W, P>(packet, at + 4, sum)?;
    let sum = exchange_word::<W, P>(packet, at + 8, sum)?;
    exchange_word::<W, P>(packet, at + 12, sum)
}

/// Exchanges a word with that `W` words behind it, and adds both to the sum.
#[inline(always)]
fn exchange_word<const W: usize, P: Packet>(packet: &mut P, at: usize, sum: Sum) -> Option<Sum> {
    let source = packet.load::<4>(at).map(u32::from_ne_bytes)?;
    let destination = packet.load::<4>(at + 4 * W).map(u32::from_ne_bytes)?;
    let sum = put(packet, at, destination, sum)?;
    put(packet, at + 4 * W, source, sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum;
    use crate::parse;

    const SETTINGS: SynSettings = SynSettings {
        answer: 1,
        half_open: 1,
        flags: SYN_TIMESTAMPS | SYN_SACK | SYN_SCALE | SYN_ECN,
        window_scale: 10,
    };
    const OPTIONS: Options = Options {
        timestamps: true,
        timestamp: u32::from_ne_bytes([9, 8, 7, 6]),
        window_scale: 7,
        sack: true,
        signed: false,
    };

    fn question<'a>(options: &'a Options, settings: &'a SynSettings, flags: u8) -> Question<'a> {
        Question { cookie: 0xc00c_1e00, sequence: u32::MAX, flags, options, settings, mtu: 1500, now_ns: 5_000_000_000 }
    }

    fn syn4() -> Vec<u8> {
        let mut frame = vec![2, 2, 2, 2, 2, 2, 4, 4, 4, 4, 4, 4, 8, 0];
        frame.extend([0x45, 0, 0, 40, 1, 2, 0x40, 0, 55, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        frame.extend([0x9c, 0x40, 0, 80, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]);
        frame.resize(FRAME_MIN, 0);
        frame
    }

    fn syn6() -> Vec<u8> {
        let mut frame = vec![2, 2, 2, 2, 2, 2, 4, 4, 4, 4, 4, 4, 0x86, 0xdd];
        frame.extend([0x60, 1, 2, 3, 0, 20, 6, 55]);
        frame.extend([&[0xfd; 15][..], &[1], &[0xfd; 15], &[2]].concat());
        frame.extend([0x9c, 0x40, 0, 80, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]);
        frame
    }

    /// The answer over a SYN, and that its checksums are right and its addresses turned round.
    fn answered4(answer: &SynAck) -> Vec<u8> {
        let mut frame = syn4();
        let headers = parse::ipv4(&frame, 14).unwrap();
        frame.resize(answer.frame(headers.transport), 0);
        answer.write::<1, _>(&mut frame, headers.network, headers.transport).unwrap();
        let back = parse::ipv4(&frame, 14).unwrap();
        assert_eq!((back.tuple.source, back.tuple.destination), (headers.tuple.destination, headers.tuple.source));
        assert_eq!(checksum::of(&frame[14..34]), [0, 0]);
        let tcp = &frame[34..14 + usize::from(back.length)];
        let pseudo = [&frame[26..34], &[0, 6, 0, tcp.len() as u8], tcp].concat();
        assert_eq!(checksum::of(&pseudo), [0, 0]);
        frame
    }

    #[test]
    fn a_client_with_timestamps_keeps_every_option() {
        let frame = answered4(&SynAck::new::<1>(&question(&OPTIONS, &SETTINGS, SYN)));
        assert_eq!(frame.len(), 14 + 20 + 40);
        assert_eq!(frame[..12], [4, 4, 4, 4, 4, 4, 2, 2, 2, 2, 2, 2]);
        assert_eq!(frame[34..38], [0, 80, 0x9c, 0x40]);
        assert_eq!(frame[38..42], [0xc0, 0x0c, 0x1e, 0], "the cookie");
        assert_eq!(frame[42..46], [0, 0, 0, 0], "the SYN's number and one");
        assert_eq!(frame[46..48], [0xa0, SYN | ACK]);
        assert_eq!(frame[54..58], [2, 4, 5, 0xb4], "1460 bytes");
        assert_eq!(frame[58..62], [4, 2, 8, 10]);
        assert_eq!(frame[66..], [9, 8, 7, 6, 1, 3, 3, 10]);
        let clock = u32::from_be_bytes(frame[62..66].try_into().unwrap());
        assert_eq!(clock & 0x3f, 7 | OPTION_SACK);
        assert!(clock <= 5000 && clock > 5000 - 128, "{clock}");
    }

    #[test]
    fn without_timestamps_only_the_segment_size_survives() {
        let silent = Options { timestamps: false, ..OPTIONS };
        let off = SynSettings { flags: SYN_SACK | SYN_SCALE | SYN_ECN, ..SETTINGS };
        for (options, settings) in [(&silent, &SETTINGS), (&OPTIONS, &off)] {
            let frame = answered4(&SynAck::new::<1>(&question(options, settings, SYN | ECE | CWR)));
            assert_eq!(frame.len(), FRAME_MIN);
            assert_eq!(frame[46..48], [0x60, SYN | ACK]);
            assert_eq!(frame[54..58], [2, 4, 5, 0xb4]);
        }
    }

    #[test]
    fn what_one_side_lacks_is_not_promised() {
        let plain = Options { timestamps: true, ..Options::NONE };
        let stack = SynSettings { flags: SYN_TIMESTAMPS, ..SETTINGS };
        for (options, settings) in [(&plain, &SETTINGS), (&OPTIONS, &stack)] {
            let frame = answered4(&SynAck::new::<1>(&question(options, settings, SYN)));
            assert_eq!(frame[58..62], [1, 1, 8, 10]);
            assert_eq!(frame[65] & 0x3f, NO_SCALE);
            assert_eq!(frame[70..], [1; 4]);
        }
    }

    #[test]
    fn congestion_marks_are_agreed_on_by_both() {
        let answer = |flags, settings| answered4(&SynAck::new::<1>(&question(&OPTIONS, settings, flags)));
        let agreed = answer(SYN | ECE | CWR, &SETTINGS);
        assert_eq!((agreed[47], agreed[65] & 0x20), (SYN | ACK | ECE, 0x20));
        let off = SynSettings { flags: SETTINGS.flags & !SYN_ECN, ..SETTINGS };
        for frame in [answer(SYN | ECE, &SETTINGS), answer(SYN | ECE | CWR, &off)] {
            assert_eq!((frame[47], frame[65] & 0x20), (SYN | ACK, 0));
        }
    }

    #[test]
    fn an_ipv6_answer_is_right_too() {
        let mut frame = syn6();
        let headers = parse::ipv6(&frame, 14).unwrap();
        let answer = SynAck::new::<4>(&question(&OPTIONS, &SETTINGS, SYN));
        frame.resize(answer.frame(headers.transport), 0);
        answer.write::<4, _>(&mut frame, headers.network, headers.transport).unwrap();
        let back = parse::ipv6(&frame, 14).unwrap();
        assert_eq!((back.tuple.source, back.tuple.destination), (headers.tuple.destination, headers.tuple.source));
        assert_eq!((back.hops, back.length), (HOPS, 80));
        assert_eq!(frame[74..78], [2, 4, 5, 0xa0], "1440 bytes");
        let pseudo = [&frame[22..54], &[0, 6, 0, 40], &frame[54..]].concat();
        assert_eq!(checksum::of(&pseudo), [0, 0]);
    }

    #[test]
    fn the_clock_never_runs_ahead() {
        for now in [0_u64, 1, 63, 64, 100, 4_294_967_295, 4_294_967_296, 1 << 40] {
            for options in [0_u32, 7, 0x3f] {
                let marked = clock(now * 1_000_000, options);
                let behind = (now as u32).wrapping_sub(marked);
                assert_eq!(marked & 0x3f, options);
                assert!(behind < 128, "{now} {options}: {behind}");
            }
        }
    }
}
