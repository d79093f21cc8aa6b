//! SYN cookies, one packet at a time: real listeners, the kernel's own cookies, answers taken apart by `etherparse`.
//!
//! The kernel's part cannot be computed beforehand, so there is no host's shell beside it: what proves a cookie is that the
//! kernel takes its ACK, and not the one next to it.

use std::fs;
use std::net::{IpAddr, SocketAddr, TcpListener};

use anyhow::{Context, Result, ensure};
use aya::maps::Array;
use etherparse::{NetSlice, SlicedPacket, TcpHeader, TcpOptionElement, TransportSlice};
use foobar_common::abi::{SYN_ECN, SYN_SACK, SYN_SCALE, SYN_TIMESTAMPS, SynSettings};
use foobar_common::rules::{Action, Protocol, Rule};
use foobar_common::verdict::Reason;
use foobar_user::datapath::wire::Wire as MapWire;
use nix::sys::socket::{setsockopt, sockopt::RcvBuf};

use super::chain::Extension;
use super::frame::{ACK, CWR, ECE, Frame, RST, SYN, Transport};
use super::hosts::{CLIENT, LB1, LB1_TOO};
use super::kernel::Kernel;
use super::network::MTU;
use super::session::Tally;
use super::shell::{Done, Shell as _, XDP_DROP, XDP_PASS, XDP_TX};

/// Where listeners are as their programs leave them.
const OPEN: u16 = 9080;
/// Where a listener has a buffer of its own, so that nobody knows its window.
const TUNED: u16 = 9081;
/// Allowed by the rules, but nobody listens.
const NOBODY: u16 = 9082;
/// Window scale of the answers.
const SCALE: u8 = 9;
const CLIENT_PORT: u16 = 50_123;
const SEQUENCE: u32 = 0xffff_fffe;
const CLOCK: [u8; 4] = [1, 2, 3, 4];
/// Options of a Linux client: MSS, SACK, timestamp, window scale.
const LINUX: [u8; 20] = [2, 4, 5, 0xb4, 4, 2, 8, 10, CLOCK[0], CLOCK[1], CLOCK[2], CLOCK[3], 0, 0, 0, 0, 1, 3, 3, 7];

/// A SYN that is answered, and with what.
struct Offer {
    name: &'static str,
    options: &'static [u8],
    flags: u8,
    agreed: u32,
    tags: &'static [(u16, u16)],
    data: &'static [u8],
    /// Timestamp, SACK, scale, ECN.
    answer: (bool, bool, Option<u8>, bool),
}

const ALL: u32 = SYN_TIMESTAMPS | SYN_SACK | SYN_SCALE | SYN_ECN;
const PLAIN: Offer = Offer {
    name: "",
    options: &LINUX,
    flags: 0,
    agreed: ALL,
    tags: &[],
    data: &[],
    answer: (true, true, Some(SCALE), false),
};
const NOTHING: (bool, bool, Option<u8>, bool) = (false, false, None, false);

const OFFERS: [Offer; 13] = [
    Offer { name: "a Linux client's", ..PLAIN },
    Offer { name: "one without options", options: &[], answer: NOTHING, ..PLAIN },
    Offer { name: "one with an MSS alone", options: &[2, 4, 5, 0xb4], answer: NOTHING, ..PLAIN },
    Offer {
        name: "one without timestamps",
        options: &[2, 4, 5, 0xb4, 4, 2, 3, 3, 7, 1, 1, 1],
        answer: NOTHING,
        ..PLAIN
    },
    Offer {
        name: "one with a clock alone",
        options: &[1, 1, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0],
        answer: (true, false, None, false),
        ..PLAIN
    },
    Offer {
        name: "one that ends its options early",
        options: &[1, 1, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 0, 4, 2, 0],
        answer: (true, false, None, false),
        ..PLAIN
    },
    Offer { name: "one that marks congestion", flags: ECE | CWR, answer: (true, true, Some(SCALE), true), ..PLAIN },
    Offer { name: "one with half of the congestion marks", flags: ECE, ..PLAIN },
    Offer { name: "one under a VLAN tag", tags: &[(0x8100, 100)], ..PLAIN },
    Offer { name: "one under two", tags: &[(0x88a8, 7), (0x8100, 100)], ..PLAIN },
    Offer { name: "one with data", data: b"GET / HTTP/1.0\r\n\r\n", ..PLAIN },
    Offer {
        name: "one to a stack without SACK and scales",
        agreed: SYN_TIMESTAMPS,
        answer: (true, false, None, false),
        ..PLAIN
    },
    Offer { name: "one to a stack without timestamps", agreed: ALL & !SYN_TIMESTAMPS, answer: NOTHING, ..PLAIN },
];

/// Runs all of them.
pub fn check(kernel: &mut Kernel, tally: &mut Tally) -> Result<()> {
    for (setting, value) in [("tcp_syncookies", "2"), ("tcp_timestamps", "2")] {
        fs::write(format!("/proc/sys/net/ipv4/{setting}"), value).with_context(|| format!("cannot set {setting}"))?;
    }
    let _listeners = listen()?;
    kernel.judge_with(&[Rule { protocol: Protocol::Tcp(vec![OPEN..=NOBODY]), ..Rule::any("web", Action::Allow) }])?;
    for v6 in [false, true] {
        let family = if v6 { "IPv6" } else { "IPv4" };
        let mut note = |name: &str, result: Result<()>| {
            let faults: Vec<String> = result.err().map(|fault| format!("{fault:#}")).into_iter().collect();
            tally.note(&format!("handshake, {family}: {name}"), &faults);
        };
        for offer in &OFFERS {
            note(&format!("{} SYN is answered, and its ACK is taken", offer.name), answered(kernel, offer, v6));
        }
        for (name, frame) in left_to_stack(v6) {
            note(&format!("{name} is left to the stack"), passed(kernel, &frame, ALL, true));
        }
        note("a SYN is left to the stack while there is no flood", passed(kernel, &syn(&PLAIN, v6), ALL, false));
        let stray = Frame { transport: Transport::Tcp(CLIENT_PORT, OPEN, ACK), ..syn(&PLAIN, v6) };
        note("an ACK of nothing is left to the stack while there is no flood", passed(kernel, &stray, ALL, false));
        note("an ACK of nothing is dropped in a flood", dropped(kernel, &stray));
    }
    Ok(())
}

/// Listeners on both families.
fn listen() -> Result<Vec<TcpListener>> {
    let mut listeners = Vec::new();
    for v6 in [false, true] {
        for port in [OPEN, TUNED] {
            let listener = TcpListener::bind(SocketAddr::new(LB1.address(v6), port)).context("cannot listen")?;
            if port == TUNED {
                setsockopt(&listener, RcvBuf, &65_536)?;
            }
            listeners.push(listener);
        }
    }
    Ok(listeners)
}

fn syn(offer: &Offer, v6: bool) -> Frame {
    let transport = Transport::Tcp(CLIENT_PORT, OPEN, SYN | offer.flags);
    let frame = Frame::new(v6, CLIENT, LB1, transport).numbers(SEQUENCE, 0).tcp_options(offer.options).data(offer.data);
    Frame { tags: offer.tags.to_vec(), ..frame }
}

/// SYNs that are the stack's even in a flood.
fn left_to_stack(v6: bool) -> Vec<(&'static str, Frame)> {
    let to = |port: u16| Frame { transport: Transport::Tcp(CLIENT_PORT, port, SYN), ..syn(&PLAIN, v6) };
    let mut signed = vec![19, 18];
    signed.extend([7; 18]);
    let mut all = vec![
        ("a SYN to a listener with a buffer of its own", to(TUNED)),
        ("a SYN to nobody", to(NOBODY)),
        ("a SYN to an address where nobody listens", Frame { destination: LB1_TOO.address(v6), ..to(OPEN) }),
        ("a SYN with a signature", to(OPEN).tcp_options(&signed)),
        ("a SYN to all hosts of the link", Frame { macs: ([0xff; 6], CLIENT.mac), ..to(OPEN) }),
        ("a reset", Frame { transport: Transport::Tcp(CLIENT_PORT, OPEN, RST), ..to(OPEN) }),
    ];
    if v6 {
        all.push(("a SYN behind an extension header", to(OPEN).behind_too(Extension::Destination(8))));
    }
    all
}

/// A SYN is answered; the ACK of the answer is taken, those with other numbers are not.
fn answered(kernel: &mut Kernel, offer: &Offer, v6: bool) -> Result<()> {
    settle(kernel, offer.agreed, true)?;
    let asked = syn(offer, v6);
    let (done, reason) = run(kernel, &asked)?;
    ensure!((done.action, reason) == (XDP_TX, Reason::SynAnswered), "action {}, {reason:?}", done.action);
    let cookie = right(&done.bytes, &asked, offer, v6)?;
    let ack = |sequence: u32, acknowledged: u32| {
        let transport = Transport::Tcp(CLIENT_PORT, OPEN, ACK);
        let numbers = (SEQUENCE.wrapping_add(1).wrapping_add(sequence), cookie.wrapping_add(acknowledged));
        Frame { transport, numbers, ..asked.clone() }.data(b"")
    };
    let (done, reason) = run(kernel, &ack(0, 1))?;
    ensure!((done.action, reason) == (XDP_PASS, Reason::SynCookie), "its ACK: action {}, {reason:?}", done.action);
    for (what, wrong) in [("cookie", ack(0, 1 << 30)), ("sequence number", ack(1 << 30, 1))] {
        let (done, reason) = run(kernel, &wrong)?;
        ensure!((done.action, reason) == (XDP_DROP, Reason::BadCookie), "another {what}: {}, {reason:?}", done.action);
    }
    Ok(())
}

fn passed(kernel: &mut Kernel, frame: &Frame, agreed: u32, answer: bool) -> Result<()> {
    settle(kernel, agreed, answer)?;
    let (done, reason) = run(kernel, frame)?;
    ensure!((done.action, reason) == (XDP_PASS, Reason::RuleAllow), "action {}, {reason:?}", done.action);
    ensure!(done.bytes == frame.bytes(), "it was changed");
    Ok(())
}

fn dropped(kernel: &mut Kernel, frame: &Frame) -> Result<()> {
    settle(kernel, ALL, true)?;
    let (done, reason) = run(kernel, frame)?;
    ensure!((done.action, reason) == (XDP_DROP, Reason::BadCookie), "action {}, {reason:?}", done.action);
    Ok(())
}

/// Whether SYNs are answered, and what the stack agrees to.
fn settle(kernel: &mut Kernel, flags: u32, answer: bool) -> Result<()> {
    let settings = SynSettings { answer: u32::from(answer), half_open: 1000, flags, window_scale: u32::from(SCALE) };
    let mut map: Array<_, MapWire<SynSettings>> = kernel.programs().map_mut("SYN_SETTINGS")?.try_into()?;
    Ok(map.set(0, MapWire(settings), 0)?)
}

/// Runs a frame; what was done, and the one reason that was counted.
fn run(kernel: &mut Kernel, frame: &Frame) -> Result<(Done, Reason)> {
    let before = kernel.counters()?.verdicts;
    let done = kernel.run(frame.ingress, &frame.bytes())?;
    let after = kernel.counters()?.verdicts;
    let mut counted = Reason::ALL.iter().filter(|reason| {
        let slot = **reason as usize;
        after[slot].packets != before[slot].packets
    });
    let reason = *counted.next().context("no verdict was counted")?;
    ensure!(counted.next().is_none(), "two verdicts were counted");
    let slot = reason as usize;
    ensure!(after[slot].packets == before[slot].packets + 1, "it was counted more than once");
    Ok((done, reason))
}

/// Source and destination of a packet whose IP header is right, and the checksum that its TCP header should have.
fn network(packet: &SlicedPacket<'_>, tcp: &TcpHeader, payload: &[u8]) -> Result<((IpAddr, IpAddr), u16)> {
    match &packet.net {
        Some(NetSlice::Ipv4(ip)) => {
            let header = ip.header().to_header();
            ensure!(header.header_checksum == header.calc_header_checksum(), "the checksum of IPv4 is wrong");
            let ends = (ip.header().source_addr().into(), ip.header().destination_addr().into());
            Ok((ends, tcp.calc_checksum_ipv4(&header, payload)?))
        }
        Some(NetSlice::Ipv6(ip)) => {
            let header = ip.header().to_header();
            let ends = (ip.header().source_addr().into(), ip.header().destination_addr().into());
            Ok((ends, tcp.calc_checksum_ipv6(&header, payload)?))
        }
        _ => anyhow::bail!("it is not IP"),
    }
}

/// Checks an answer by another parser; its sequence number.
fn right(bytes: &[u8], asked: &Frame, offer: &Offer, v6: bool) -> Result<u32> {
    ensure!(bytes[..6] == asked.macs.1 && bytes[6..12] == asked.macs.0, "MAC addresses are not turned round");
    ensure!(bytes[12..asked.network()] == asked.bytes()[12..asked.network()], "VLAN tags are not those of the SYN");
    ensure!(bytes.len() >= 60, "{} bytes are less than an Ethernet frame has", bytes.len());
    let packet = SlicedPacket::from_ethernet(bytes).context("etherparse cannot read it")?;
    let Some(TransportSlice::Tcp(tcp)) = &packet.transport else { anyhow::bail!("it is not TCP") };
    let header = tcp.to_header();
    let (ends, sum) = network(&packet, &header, tcp.payload())?;
    ensure!(ends == (asked.destination, asked.source), "addresses are not turned round");
    ensure!(header.checksum == sum, "the checksum of TCP is wrong");
    ensure!((header.source_port, header.destination_port) == (OPEN, CLIENT_PORT), "ports are not turned round");
    ensure!(header.syn && header.ack && !header.rst && !header.fin && !header.psh, "flags");
    ensure!(header.acknowledgment_number == SEQUENCE.wrapping_add(1), "acknowledgement number");
    let (timestamp, sack, scale, ecn) = offer.answer;
    ensure!((header.ece, header.cwr) == (ecn, false), "congestion marks: {} {}", header.ece, header.cwr);
    let mss = MTU - if v6 { 60 } else { 40 };
    let mut left = (Some(mss), timestamp, sack, scale);
    for option in header.options_iterator() {
        match option.context("a bad option")? {
            TcpOptionElement::MaximumSegmentSize(size) => {
                ensure!(left.0.take() == Some(size), "MSS {size}");
            }
            TcpOptionElement::Timestamp(own, echo) => {
                ensure!(std::mem::take(&mut left.1) && echo == u32::from_be_bytes(CLOCK), "timestamp {own} {echo}");
            }
            TcpOptionElement::SelectiveAcknowledgementPermitted => ensure!(std::mem::take(&mut left.2), "SACK"),
            TcpOptionElement::WindowScale(shift) => ensure!(left.3.take() == Some(shift), "scale {shift}"),
            TcpOptionElement::Noop => {}
            other => anyhow::bail!("an option {other:?}"),
        }
    }
    ensure!(left == (None, false, false, None), "options are missing: {left:?}");
    Ok(header.sequence_number)
}
