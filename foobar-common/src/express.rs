//! Express: what this CPU remembers of flows whose packets it has forwarded lately, so that the next one needs a single look-up.
//!
//! Nothing is decided here. What the whole path has found out about one direction of an established flow (translation, next
//! hop, counters) is kept for [`KEPT`] and applied to packets that could not change anything: without options, fragments,
//! tags, without SYN, FIN or RST, with hops left, and no longer than the next link takes. All others go the whole way.
//!
//! An entry bears the generation of rules and the epoch of services under which it was learned; both must be in force. So a
//! new rule, a backend that is cut off and a flow that is killed end it at once; a changed route or neighbour, when its time is
//! over. It belongs to one CPU: no other reads or writes it. A client that closes a connection, opens the next one from the
//! same port within that time, and whose packets come to another CPU from then on, can meet an entry of the old one there: it
//! is answered by a reset, as if the port had been used too early.

use crate::address::{Address, Be16, Ipv4, Ipv6, Tuple};
use crate::checksum::Sum;
use crate::packet::Packet;
use crate::parse::{ACK, ETHERNET, FIN, Headers, RST, SYN, TCP, UDP, URG};
use crate::rewrite::{Egress, Translation};
use crate::tables::Tables;
use crate::verdict::{Reason, Verdict};

/// Nanoseconds of a tick, as a power of two: a little more than a millisecond.
const TICK: u32 = 20;
/// Ticks for which a way is remembered.
pub const KEPT: u32 = 96;
/// [`Express::rule`]: no rule counts the packets, which are a backend's replies.
const NO_RULE: u16 = u16::MAX;

/// [`Express::kind`]: nothing is remembered.
const NOTHING: u8 = 0;
/// [`Express::kind`]: the destination is replaced.
const DESTINATION: u8 = 1;
/// [`Express::kind`]: the source is replaced.
const SOURCE: u8 = 2;
/// [`Express::kind`]: nothing but hop count and MAC addresses changes (direct server return).
const RELAY: u8 = 3;

/// The way of one direction of a flow. A cache line for IPv4, two for IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct Express<const W: usize> {
    /// The packets' tuple as they come.
    tuple: Tuple<W>,
    /// MAC addresses of the next hop and of this host, as they lie in a frame.
    macs: [u32; 3],
    /// What replaces one end's address.
    address: Address<W>,
    /// Interface by which they come.
    ingress: u32,
    /// Interface by which they leave.
    egress: u32,
    /// Generation of rules that let them through.
    generation: u32,
    /// Epoch of services.
    epoch: u32,
    /// Tick after which the entry is over.
    until: u32,
    /// What replaces one end's port.
    port: Be16,
    /// Longest IP packet that the next link takes, in bytes.
    mtu: u16,
    /// What the transport checksum changes by, as a running sum.
    change: u16,
    /// Counter slot of the rule.
    rule: u16,
    /// Slot of the backend.
    backend: u16,
    /// Slot of the service.
    service: u8,
    /// [`NOTHING`], [`DESTINATION`], [`SOURCE`] or [`RELAY`].
    kind: u8,
}

const _: () = assert!(size_of::<Express<1>>() == 64 && size_of::<Express<4>>() == 128);
const _: () = assert!(crate::abi::MAX_SERVICES <= 1 << 8 && crate::abi::MAX_BACKENDS <= 1 << 16);
const _: () = assert!(crate::abi::RULE_COUNTERS < NO_RULE as u32);

/// What the whole path knows of a packet that it has forwarded.
#[derive(Clone, Copy, Debug)]
pub struct Forwarded<'w, const W: usize> {
    /// Its headers before.
    pub headers: &'w Headers<W>,
    /// Its new ends, of which one is as it was.
    pub translation: &'w Translation<W>,
    /// The link by which it leaves.
    pub egress: &'w Egress,
    /// Generation of rules in force.
    pub generation: u32,
    /// Counter slot of the rule that counts such packets; `None`: no rule does, because they are replies, whose source changes.
    pub rule: Option<u16>,
    /// Slot of the backend.
    pub backend: u32,
    /// Slot of the service.
    pub service: u32,
    /// Whether nothing but MAC addresses and hop count has changed.
    pub relayed: bool,
}

/// The tick of a time of the coarse monotonic clock.
#[inline(always)]
const fn tick(now_ns: u64) -> u32 {
    (now_ns >> TICK) as u32
}

/// Number of a tuple's pair of entries, of so many bits. Who finds tuples that fall together slows down his own packets.
#[inline(always)]
#[must_use]
pub fn place<const W: usize>(tuple: &Tuple<W>, bits: u32) -> u32 {
    const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;
    let ports = u64::from(tuple.ports()) | u64::from(tuple.protocol) << 32;
    let mut mixed = ports.wrapping_mul(MULTIPLIER);
    let mut word = 0;
    while word < W {
        let pair = u64::from(tuple.source.0[word]) | u64::from(tuple.destination.0[word]) << 32;
        mixed = (mixed ^ mixed >> 29 ^ pair).wrapping_mul(MULTIPLIER);
        word += 1;
    }
    (mixed >> (64 - bits)) as u32
}

/// Forwards a packet of a flow that this CPU remembers; `None`: it goes the whole way, and is as it came.
#[inline(always)]
pub fn forward<P: Packet, T: Tables>(packet: &mut P, tables: &T) -> Option<Verdict> {
    let bytes = packet.length() as u64;
    match u16::from_be_bytes(packet.load::<2>(ETHERNET - 2)?) {
        0x0800 => {
            let seen = Seen::ipv4(packet)?;
            tables.express4(&seen.tuple, |entry| entry.apply(packet, tables, &seen, bytes))?
        }
        0x86dd => {
            let seen = Seen::ipv6(packet)?;
            tables.express6(&seen.tuple, |entry| entry.apply(packet, tables, &seen, bytes))?
        }
        _ => None,
    }
}

/// Remembers the way of a packet's flow.
#[inline(always)]
pub fn learn<const W: usize, P: Packet, T: Tables>(
    packet: &P,
    tables: &T,
    way: &Forwarded<'_, W>,
    entry: &mut Express<W>,
) {
    let Forwarded { headers, translation, .. } = way;
    let Some(macs) = packet.load::<12>(0) else { return };
    let tuple = &headers.tuple;
    let to = &translation.to;
    let (old, old_port, new, new_port, kind) = if way.rule.is_none() {
        (tuple.source, tuple.source_port, to.source, to.source_port, SOURCE)
    } else {
        (tuple.destination, tuple.destination_port, to.destination, to.destination_port, DESTINATION)
    };
    let ports = (u16::from_ne_bytes(old_port.bytes()), u16::from_ne_bytes(new_port.bytes()));
    // Written in place, field by field: on the stack it would be too much, and a copy of the whole a call.
    entry.kind = NOTHING;
    entry.tuple = *tuple;
    entry.macs = [
        u32::from_ne_bytes([macs[0], macs[1], macs[2], macs[3]]),
        u32::from_ne_bytes([macs[4], macs[5], macs[6], macs[7]]),
        u32::from_ne_bytes([macs[8], macs[9], macs[10], macs[11]]),
    ];
    entry.address = new;
    (entry.port, entry.mtu) = (new_port, way.egress.mtu);
    entry.change = Sum::new().change_address(old.0, new.0).change16(ports.0, ports.1).folded();
    (entry.ingress, entry.egress) = (tables.interface(), way.egress.interface);
    (entry.generation, entry.epoch) = (way.generation, tables.epoch());
    entry.until = tick(tables.now_ns()).wrapping_add(KEPT);
    entry.rule = way.rule.unwrap_or(NO_RULE);
    (entry.backend, entry.service) = (way.backend as u16, way.service as u8);
    entry.kind = if way.relayed { RELAY } else { kind };
}

/// Whether other packets of a packet's flow can be remembered by it: with the headers in the places where [`forward`] expects
/// them.
#[inline(always)]
#[must_use]
pub const fn is_plain<const W: usize>(headers: &Headers<W>) -> bool {
    headers.network == ETHERNET && headers.transport == ETHERNET + ip_header(W)
}

/// Length of an IP header without options or extensions.
const fn ip_header(words: usize) -> usize {
    if words == 1 { 20 } else { 40 }
}

/// What is read of a packet.
struct Seen<const W: usize> {
    tuple: Tuple<W>,
    /// Of the IP packet, in bytes.
    length: u16,
    hops: u8,
}

impl Seen<1> {
    #[inline(always)]
    fn ipv4<P: Packet>(packet: &mut P) -> Option<Self> {
        let frame = packet.length();
        let head = packet.head::<42>()?;
        let length = u16::from_be_bytes([head[16], head[17]]);
        let fragment = u16::from_be_bytes([head[20], head[21]]) & 0x3fff;
        let (hops, protocol) = (head[22], head[23]);
        if head[14] != 0x45 || fragment != 0 || hops <= 1 || ETHERNET + length as usize > frame {
            return None;
        }
        let source = Ipv4::from_bytes([head[26], head[27], head[28], head[29]]);
        let destination = Ipv4::from_bytes([head[30], head[31], head[32], head[33]]);
        let ports = (Be16::from_bytes([head[34], head[35]]), Be16::from_bytes([head[36], head[37]]));
        let udp_length = u16::from_be_bytes([head[38], head[39]]);
        carries::<20, 54, P>(packet, protocol, length, udp_length)?;
        Some(Self { tuple: Tuple::new((source, destination), ports, protocol), length, hops })
    }
}

impl Seen<4> {
    #[inline(always)]
    fn ipv6<P: Packet>(packet: &mut P) -> Option<Self> {
        let frame = packet.length();
        let head = packet.head::<62>()?;
        let length = u16::from_be_bytes([head[18], head[19]]).checked_add(40)?;
        let (protocol, hops) = (head[20], head[21]);
        if head[14] >> 4 != 6 || hops <= 1 || ETHERNET + length as usize > frame {
            return None;
        }
        let (source, destination) = (Ipv6::from_bytes(taken(head, 22)), Ipv6::from_bytes(taken(head, 38)));
        let ports = (Be16::from_bytes([head[54], head[55]]), Be16::from_bytes([head[56], head[57]]));
        let udp_length = u16::from_be_bytes([head[58], head[59]]);
        carries::<40, 74, P>(packet, protocol, length, udp_length)?;
        Some(Self { tuple: Tuple::new((source, destination), ports, protocol), length, hops })
    }
}

/// The bytes at a place that the compiler knows to be within the head.
#[inline(always)]
fn taken<const N: usize, const E: usize>(head: &[u8; E], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&head[at..at + N]);
    bytes
}

/// Whether the packet, with an IP header of `H` bytes and a TCP header that ends at `E`, carries what changes no flow: a sound
/// UDP datagram, or a sound TCP segment with ACK, and of the other flags none but PSH and those of ECN.
#[inline(always)]
fn carries<const H: usize, const E: usize, P: Packet>(
    packet: &mut P,
    protocol: u8,
    length: u16,
    udp_length: u16,
) -> Option<()> {
    let payload = length.checked_sub(H as u16)?;
    if protocol == UDP {
        return if payload >= 8 && udp_length == payload { Some(()) } else { None };
    }
    if protocol != TCP {
        return None;
    }
    let head = packet.head::<E>()?;
    let (header, flags) = (u16::from(head[E - 8] >> 4) * 4, head[E - 7]);
    let sound = header >= 20 && header <= payload;
    if sound && flags & (SYN | FIN | RST | URG | ACK) == ACK { Some(()) } else { None }
}

impl<const W: usize> Express<W> {
    /// An entry that remembers nothing.
    #[must_use]
    pub const fn nothing() -> Self {
        let (nowhere, none) = (Address([0; W]), Be16::new(0));
        Self {
            tuple: Tuple::new((nowhere, nowhere), (none, none), 0),
            macs: [0; 3],
            address: nowhere,
            ingress: 0,
            egress: 0,
            generation: 0,
            epoch: 0,
            until: 0,
            port: none,
            mtu: 0,
            change: 0,
            rule: 0,
            backend: 0,
            service: 0,
            kind: NOTHING,
        }
    }

    /// Which of a pair a tuple's entry is, or would be: the second instead of the first. The one that will be over sooner gives way.
    #[inline(always)]
    #[must_use]
    pub fn is_second(first: &Self, second: &Self, tuple: &Tuple<W>) -> bool {
        !first.is_of(tuple) && (second.is_of(tuple) || first.until.wrapping_sub(second.until).cast_signed() > 0)
    }

    /// Forgets.
    #[inline(always)]
    pub const fn forget(&mut self) {
        self.kind = NOTHING;
    }

    /// Applies what is remembered, if it is of this packet's flow and still holds.
    #[inline(always)]
    fn apply<P: Packet, T: Tables>(&self, packet: &mut P, tables: &T, seen: &Seen<W>, bytes: u64) -> Option<Verdict> {
        if self.kind == NOTHING || !self.is_of(&seen.tuple) || seen.length > self.mtu {
            return None;
        }
        let in_force = self.ingress == tables.interface()
            && self.generation == tables.generation()?.head.number
            && self.epoch == tables.epoch();
        let left = self.until.wrapping_sub(tick(tables.now_ns()));
        if !in_force || left > KEPT {
            return None;
        }
        self.rewrite(packet, seen)?;
        let reason = if self.rule == NO_RULE {
            Reason::FlowReply
        } else {
            tables.count_rule(u32::from(self.rule), bytes);
            Reason::Flow
        };
        tables.count_backend(u32::from(self.service), u32::from(self.backend), 0, 1, bytes);
        Some(Verdict::Forward { reason, interface: self.egress })
    }

    /// Whether it is of a flow with this tuple. Word by word: a comparison of the whole would be a call.
    #[inline(always)]
    fn is_of(&self, tuple: &Tuple<W>) -> bool {
        let mut differs = self.tuple.ports() ^ tuple.ports() | u32::from(self.tuple.protocol ^ tuple.protocol);
        let mut word = 0;
        while word < W {
            differs |= self.tuple.source.0[word] ^ tuple.source.0[word];
            differs |= self.tuple.destination.0[word] ^ tuple.destination.0[word];
            word += 1;
        }
        differs == 0
    }

    /// The frame for the next hop; `None`: it is too short, and as it came.
    #[inline(always)]
    fn rewrite<P: Packet>(&self, packet: &mut P, seen: &Seen<W>) -> Option<()> {
        match (W, seen.tuple.protocol) {
            (1, TCP) => self.write::<20, 54, 50, P>(packet, seen),
            (1, _) => self.write::<20, 42, 40, P>(packet, seen),
            (_, TCP) => self.write::<40, 74, 70, P>(packet, seen),
            (_, _) => self.write::<40, 62, 60, P>(packet, seen),
        }
    }

    /// With an IP header of `H` bytes, all headers within `E` bytes, and the transport checksum at `C`.
    #[inline(always)]
    fn write<const H: usize, const E: usize, const C: usize, P: Packet>(
        &self,
        packet: &mut P,
        seen: &Seen<W>,
    ) -> Option<()> {
        let head = packet.head::<E>()?;
        let tuple = &seen.tuple;
        let (source, destination) = if W == 1 { (26, 30) } else { (22, 38) };
        let addresses = match self.kind {
            SOURCE => self.replace(head, &tuple.source, source, ETHERNET + H),
            DESTINATION => self.replace(head, &tuple.destination, destination, ETHERNET + H + 2),
            _ => Sum::new(),
        };
        if self.kind != RELAY {
            let (old, change) = ([head[C], head[C + 1]], Sum::new().add16(self.change));
            let new = if tuple.protocol == TCP { change.applied_to(old) } else { change.applied_to_udp(old, W == 1) };
            put(head, C, new);
        }
        let hops = seen.hops - 1;
        if W == 1 {
            let change = addresses.change16(u16::from_ne_bytes([seen.hops, 0]), u16::from_ne_bytes([hops, 0]));
            let new = change.applied_to([head[24], head[25]]);
            put(head, 24, new);
        }
        put(head, if W == 1 { 22 } else { 21 }, [hops]);
        put(head, 0, self.macs[0].to_ne_bytes());
        put(head, 4, self.macs[1].to_ne_bytes());
        put(head, 8, self.macs[2].to_ne_bytes());
        Some(())
    }

    /// Replaces one end, whose address and port lie there; what it changes in the sum of the addresses.
    #[inline(always)]
    fn replace<const E: usize>(&self, head: &mut [u8; E], old: &Address<W>, address: usize, port: usize) -> Sum {
        let mut word = 0;
        while word < W {
            put(head, address + 4 * word, self.address.0[word].to_ne_bytes());
            word += 1;
        }
        put(head, port, self.port.bytes());
        Sum::new().change_address(old.0, self.address.0)
    }
}

/// Writes bytes at a place that the compiler knows to be within the head.
#[inline(always)]
fn put<const N: usize, const E: usize>(head: &mut [u8; E], at: usize, bytes: [u8; N]) {
    head[at..at + N].copy_from_slice(&bytes);
}
