//! ICMP errors about flows (RFC 792, RFC 4443): who is told by a router, or by the other end, that a packet did not arrive.
//!
//! An error quotes the packet that it is about, and by that it belongs to a flow. What comes from the clients' side quotes a
//! reply, from the VIP to the client, and goes to the flow's backend; what comes from the backends' side quotes what this host
//! has translated, and goes to the client. For `nat` the quote is translated as the packet was (RFC 5508, REQ-3 to REQ-5), with
//! every checksum that is in it; for `direct` and `tunnel` the error is sent on as it is.
//!
//! Stated verdicts: rules that deny an error are obeyed, and as many are delivered as a service may have in a second; the flow is
//! left as it was. All else is for this host's firewall, as any packet is: an error about no flow, to another address than the
//! quoted sender's, of a packet with IPv4 options, IPv6 extension headers or of a later fragment, or that quotes less than the
//! eight bytes which RFC 792 asks for; and source quench.

use crate::abi::{BACKEND_ABSENT, BUCKET_ERRORS, BucketKey, FORWARD_DIRECT, FORWARD_TUNNEL};
use crate::address::{Address, Be16, Family, Tuple};
use crate::checksum::Sum;
use crate::flow::{self, Belongs};
use crate::packet::{MAX_DEPTH, Packet};
use crate::parse::{Headers, ICMP, ICMPV6, TCP, UDP};
use crate::path::{self, Of};
use crate::reply;
use crate::rewrite::{self, update};
use crate::tables::{Mac, Route, RouteQuery, Tables};
use crate::verdict::{Reason, Stage, Verdict};
use crate::vlan::Tag;

/// Time for which one error of a service counts.
pub const INTERVAL_NS: u64 = 1_000_000;
/// What may come at once.
pub const BURST_NS: u64 = 200 * INTERVAL_NS;

/// Length of the ICMP header in front of the quote.
const HEADER: usize = 8;
/// What is quoted at least of the packet behind IP: the ports.
const QUOTED: usize = 8;
/// Type of the errors of IPv4: unreachable (too big, too), time exceeded, parameter problem.
const ERRORS: [u8; 3] = [3, 11, 12];
/// The first types of ICMPv6 are its errors: unreachable, too big, time exceeded, parameter problem.
const LAST_ERROR6: u8 = 4;

/// Whether the packet is an error that may be about a flow.
#[inline(always)]
#[must_use]
pub const fn is_error<const W: usize>(headers: &Headers<W>) -> bool {
    let kind = headers.icmp_type;
    match (headers.tuple.protocol, W) {
        (ICMP, 1) => kind == ERRORS[0] || kind == ERRORS[1] || kind == ERRORS[2],
        (ICMPV6, 4) => kind != 0 && kind <= LAST_ERROR6,
        _ => false,
    }
}

/// What is known of an error about a flow. A part of [`Of`]: the kernel's stack has no room for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct About<const W: usize> {
    /// Offset of the quoted packet's IP header.
    network: usize,
    /// Offset of the header behind that.
    transport: usize,
    /// Bytes from there to the error's end.
    left: usize,
    /// The quoted packet's ends, as they are.
    quoted: Tuple<W>,
    /// The same as they read where the error goes to.
    becomes: Tuple<W>,
    /// Source of the error there.
    source: Address<W>,
    /// Where it goes to.
    destination: Address<W>,
    /// See [`RouteQuery::by_source`].
    by_source: bool,
}

impl<const W: usize> About<W> {
    pub(crate) const fn new(none: Tuple<W>) -> Self {
        let (source, destination) = (none.source, none.destination);
        let (network, transport, left) = (0, 0, 0);
        Self { network, transport, left, quoted: none, becomes: none, source, destination, by_source: false }
    }
}

/// Judges an error whose headers are in `work`.
///
/// # Errors
/// The reason for which it is dropped.
#[inline(always)]
pub fn judge<const W: usize, P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    work: &mut Of<W>,
) -> Result<Verdict, Reason>
where
    Address<W>: Family<W>,
{
    let admitted = Address::<W>::admit(tables, work);
    if !matches!(admitted, Reason::RuleAllow | Reason::NoRule) {
        return Err(admitted);
    }
    if read(packet, work) && find(tables, work) {
        return deliver(packet, tables, work);
    }
    // About no flow of ours: what the firewall has said holds.
    if admitted == Reason::RuleAllow { Ok(Verdict::Pass(Reason::RuleAllow)) } else { Err(admitted) }
}

/// Brings an error to its flow's other end.
///
/// A function of its own: the firewall needs nearly all of the kernel's stack.
#[inline(never)]
fn deliver<const W: usize, P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    work: &mut Of<W>,
) -> Result<Verdict, Reason>
where
    Address<W>: Family<W>,
{
    path::of_a_device(work.headers())?;
    let slot = work.found.flow.backend;
    let Some(backend) = tables.backend(slot) else { return Err(Reason::Internal) };
    let bucket = BucketKey::new(BUCKET_ERRORS, W as u32, [backend.service, 0, 0, 0]);
    if !tables.take(&bucket, INTERVAL_NS, BURST_NS) {
        return Err(Reason::IcmpLimit);
    }
    tables.count_backend(backend.service, slot, 0, 1, work.bytes());
    if backend.forward == FORWARD_DIRECT {
        let Of { headers, about, translation, egress, .. } = work;
        (translation.to.source, translation.to.destination) = (headers.tuple.source, about.destination);
        translation.by_source = false;
        return match rewrite::relay(packet, headers, translation, egress, tables) {
            Reason::Flow => Ok(path::leave(work, Reason::IcmpError)),
            reason => Err(reason),
        };
    }
    if backend.forward == FORWARD_TUNNEL {
        work.translation.to.destination = work.about.destination;
        work.reason = Reason::IcmpError;
        return Ok(Verdict::Stage(if W == 1 { Stage::Encapsulate4 } else { Stage::Encapsulate6 }));
    }
    send(packet, work, tables)
}

/// Reads the packet that an error is about; false: it can be of no flow.
#[inline(never)]
fn read<const W: usize, P: Packet>(packet: &P, work: &mut Of<W>) -> bool {
    let Of { headers, about, .. } = work;
    let network = headers.transport + HEADER;
    let transport = network + if W == 1 { 20 } else { 40 };
    let Some(left) = (headers.network + headers.length as usize).checked_sub(transport) else { return false };
    let (fields, source) = if W == 1 { (ipv4(packet, network), 12) } else { (ipv6(packet, network), 8) };
    let Some(protocol) = fields else { return false };
    if left < QUOTED || !matches!(protocol, TCP | UDP) || transport > MAX_DEPTH {
        return false;
    }
    (about.network, about.transport, about.left) = (network, transport, left);
    let tuple = &mut about.quoted;
    tuple.protocol = protocol;
    let Some([a, b, c, d]) = packet.load::<4>(transport) else { return false };
    (tuple.source_port, tuple.destination_port) = (Be16::from_bytes([a, b]), Be16::from_bytes([c, d]));
    let mut word = 0;
    while word < W {
        let at = network + source + 4 * word;
        let (Some(from), Some(to)) = (packet.load::<4>(at), packet.load::<4>(at + 4 * W)) else { return false };
        (tuple.source.0[word], tuple.destination.0[word]) = (u32::from_ne_bytes(from), u32::from_ne_bytes(to));
        word += 1;
    }
    true
}

/// The protocol of a quoted IPv4 packet, if it begins with its ports.
#[inline(always)]
fn ipv4<P: Packet>(packet: &P, at: usize) -> Option<u8> {
    let [version, _] = packet.load::<2>(at)?;
    let [a, b, _, protocol] = packet.load::<4>(at + 6)?;
    let first = u16::from_be_bytes([a, b]) & 0x1fff == 0;
    (version == 0x45 && first).then_some(protocol)
}

/// The same of an IPv6 packet.
#[inline(always)]
fn ipv6<P: Packet>(packet: &P, at: usize) -> Option<u8> {
    let [version, _] = packet.load::<2>(at)?;
    let [protocol, _] = packet.load::<2>(at + 6)?;
    (version >> 4 == 6).then_some(protocol)
}

/// Finds the flow of the quoted packet, and with it where the error goes to; false: there is none. The error must be addressed to
/// who has sent the packet.
#[inline(never)]
fn find<const W: usize, T: Tables>(tables: &T, work: &mut Of<W>) -> bool
where
    Address<W>: Family<W>,
{
    let Of { headers, key, found, about, .. } = &mut *work;
    if headers.tuple.destination != about.quoted.source {
        return false;
    }
    // The quoted packet's way back, end by end: the kernel's stack has no room for a tuple.
    (key.source, key.source_port) = (about.quoted.destination, about.quoted.destination_port);
    (key.destination, key.destination_port) = (about.quoted.source, about.quoted.source_port);
    key.protocol = about.quoted.protocol;
    let of_reply = match flow::find(key, tables) {
        Some(known) => {
            *found = known;
            true
        }
        None => false,
    };
    if !of_reply {
        // Else as if the backend had answered the packet; the error's own tuple waits where there is room.
        about.becomes = headers.tuple;
        headers.tuple = *key;
        let belongs = flow::of_backend(work, tables);
        work.headers.tuple = work.about.becomes;
        if belongs != Belongs::Yes {
            return false;
        }
    }
    becomes(tables, work, of_reply)
}

/// What the error and its quote become; false: the flow's backend is gone.
#[inline(never)]
fn becomes<const W: usize, T: Tables>(tables: &T, work: &mut Of<W>, of_reply: bool) -> bool
where
    Address<W>: Family<W>,
{
    let Of { headers, key, found, about, .. } = work;
    let Some(backend) = tables.backend(found.flow.backend) else { return false };
    let at_backend = Address::<W>::backend_address(&backend);
    let source = headers.tuple.source;
    if of_reply {
        // A reply did not reach the client: the backend reads its own packet.
        let (destination, destination_port) = reply::sender(key, &found.flow);
        let ends = ((at_backend, destination), (backend.port, destination_port));
        about.becomes = Tuple::new(ends.0, ends.1, about.quoted.protocol);
        (about.source, about.destination, about.by_source) = (source, at_backend, !rewrite::is_global(source));
    } else {
        // Who the client knows as the VIP complains as the VIP; a router stays who it is.
        about.becomes = *key;
        let source = if source == at_backend { key.destination } else { source };
        (about.source, about.destination, about.by_source) = (source, key.source, true);
    }
    backend.state != BACKEND_ABSENT
}

/// Sends an error to where it belongs.
#[inline(always)]
fn send<const W: usize, P: Packet, T: Tables>(packet: &mut P, work: &mut Of<W>, tables: &T) -> Result<Verdict, Reason>
where
    Address<W>: Family<W>,
{
    let Of { headers, about, egress, .. } = work;
    if headers.hops <= 1 {
        return Err(Reason::TimeExceeded);
    }
    let (source, destination, by_source) = (about.source, about.destination, about.by_source);
    let (protocol, length) = (headers.tuple.protocol, headers.length);
    // Numbers also where there is none: the verifier refuses a register that only one of the answers has set.
    let query = RouteQuery { ingress: headers.ingress.device, source, destination, protocol, length, by_source };
    let (resolved, interface, tag, source, destination) = match Address::<W>::route(tables, &query) {
        Route::Hop { interface, tag, source, destination, .. } => (true, interface, tag, source, destination),
        Route::NoNeighbour => (false, 0, Tag::NONE, Mac(0), Mac(0)),
        Route::TooBig { .. } => return Err(Reason::TooBig),
        Route::Unreachable => return Err(Reason::Unreachable),
    };
    (egress.interface, egress.tag) = (interface, tag);
    translate(packet, headers, about).ok_or(Reason::Truncated)?;
    if !resolved {
        return Ok(Verdict::Pass(Reason::Neighbour));
    }
    rewrite::readdress(packet, headers, source, destination).ok_or(Reason::Truncated)?;
    Ok(path::leave(work, Reason::IcmpError))
}

/// Replaces the ends of the error and of the quoted packet, with all checksums.
///
/// Both in functions of their own, one after the other: the kernel's stack has no room for both at once.
#[inline(always)]
fn translate<const W: usize, P: Packet>(packet: &mut P, headers: &Headers<W>, about: &About<W>) -> Option<()> {
    let ends = translate_ends(packet, headers, about)?;
    // The pseudo header of ICMPv6 has the error's addresses; ICMP has none, and IPv4 a checksum of its own.
    let sum = translate_quote(packet, about, if W == 1 { Sum::new() } else { ends })?;
    update(packet, headers.transport + 2, sum)?;
    if W == 1 { update(packet, headers.network + 10, ends) } else { Some(()) }
}

/// Replaces the error's own ends; what sums over them change by.
#[inline(never)]
fn translate_ends<const W: usize, P: Packet>(packet: &mut P, headers: &Headers<W>, about: &About<W>) -> Option<Sum> {
    let (old, to) = (&headers.tuple, (&about.source, &about.destination));
    replace_addresses(packet, headers.network, (&old.source, &old.destination), to)
}

/// Replaces the ends of the quoted packet, with its checksums as far as they are quoted; `sum` and what the error's changes by.
#[inline(never)]
fn translate_quote<const W: usize, P: Packet>(packet: &mut P, about: &About<W>, mut sum: Sum) -> Option<Sum> {
    let (old, new) = (&about.quoted, &about.becomes);
    let to = (&new.source, &new.destination);
    let addresses = replace_addresses(packet, about.network, (&old.source, &old.destination), to)?;
    sum = sum.add(addresses);
    if W == 1 {
        sum = change(packet, about.network + 10, addresses, sum)?;
    }
    let ports = Sum::new()
        .change16(word(old.source_port), word(new.source_port))
        .change16(word(old.destination_port), word(new.destination_port));
    packet.store::<2>(about.transport, new.source_port.bytes())?;
    packet.store::<2>(about.transport + 2, new.destination_port.bytes())?;
    sum = sum.add(ports);
    let ends = addresses.add(ports);
    if old.protocol == UDP {
        return change_udp(packet, about.transport + 6, ends, sum, W == 1);
    }
    // Of TCP often only eight bytes are quoted, and the checksum is behind them.
    if about.left < 18 { Some(sum) } else { change(packet, about.transport + 16, ends, sum) }
}

#[inline(always)]
const fn word(port: Be16) -> u16 {
    u16::from_ne_bytes(port.bytes())
}

/// Replaces source and destination, old and new, in the IP header at `at`; what its sum changes by.
#[inline(always)]
fn replace_addresses<const W: usize, P: Packet>(
    packet: &mut P,
    at: usize,
    old: (&Address<W>, &Address<W>),
    new: (&Address<W>, &Address<W>),
) -> Option<Sum> {
    let first = at + if W == 1 { 12 } else { 8 };
    let sum = replace(packet, first, old.0, new.0, Sum::new())?;
    replace(packet, first + 4 * W, old.1, new.1, sum)
}

/// Replaces the address at `at`, word by word: the kernel's stack has no room for all at once.
#[inline(always)]
fn replace<const W: usize, P: Packet>(
    packet: &mut P,
    at: usize,
    old: &Address<W>,
    new: &Address<W>,
    mut sum: Sum,
) -> Option<Sum> {
    let mut word = 0;
    while word < W {
        sum = sum.change32(old.0[word], new.0[word]);
        packet.store::<4>(at + 4 * word, new.0[word].to_ne_bytes())?;
        word += 1;
    }
    Some(sum)
}

/// Applies a change to the quoted checksum at `at`, and notes in `sum` that it has changed.
#[inline(always)]
fn change<P: Packet>(packet: &mut P, at: usize, change: Sum, sum: Sum) -> Option<Sum> {
    let old = packet.load::<2>(at)?;
    let new = change.applied_to(old);
    packet.store::<2>(at, new)?;
    Some(sum.change16(u16::from_ne_bytes(old), u16::from_ne_bytes(new)))
}

/// The same for UDP: absent stays absent in IPv4, and a computed zero is sent as ones.
#[inline(always)]
fn change_udp<P: Packet>(packet: &mut P, at: usize, change: Sum, sum: Sum, may_be_absent: bool) -> Option<Sum> {
    let old = packet.load::<2>(at)?;
    if may_be_absent && old == [0, 0] {
        return Some(sum);
    }
    let new = match change.applied_to(old) {
        [0, 0] => [0xff, 0xff],
        new => new,
    };
    packet.store::<2>(at, new)?;
    Some(sum.change16(u16::from_ne_bytes(old), u16::from_ne_bytes(new)))
}
