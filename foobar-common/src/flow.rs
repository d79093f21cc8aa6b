//! Flows: which backend a connection through the balancer belongs to, in both directions, by one entry.
//!
//! The entry is keyed by the client's tuple towards the VIP. A reply finds it through the endpoint table: an
//! endpoint (backend, port, protocol) that stands behind one VIP gives the client's tuple by it; another leads to the replies' own
//! table, see `reply`.
//!
//! A TCP flow is half open, in a table of its own, until its client acknowledges the number that the backend has chosen:
//! who only sends SYNs, or cannot see the answers to a forged source, drives out nothing that is established.

use crate::abi::{
    BACKEND_MEMBER, ENDPOINT_REPLIES, FLOW_ANSWERED, FLOW_BACKEND_FIN, FLOW_CLIENT_FIN, FLOW_REPLIES, FLOW_RESET, Flow,
    FlowTable,
};
use crate::address::{Address, Be16, Family, SocketKey, Tuple};
use crate::express::Express;
use crate::packet::Packet;
use crate::parse::{ACK, FIN, Headers, RST, SYN, UDP};
use crate::path::Of;
use crate::reply::{self, Ask};
use crate::tables::Tables;
use crate::verdict::Reason;

/// A UDP flow without a packet for so long is over.
pub const UDP_IDLE_NS: u64 = 30_000_000_000;
/// A half-open flow without a packet for so long is over: clients send a SYN again after 32 seconds at the latest.
pub const HALF_OPEN_IDLE_NS: u64 = 60_000_000_000;
/// An established flow may be silent for so long (RFC 5382, REQ-5: no less than two hours and four minutes).
pub const ESTABLISHED_IDLE_NS: u64 = 7_440_000_000_000;
/// A flow that both sides have ended is remembered for what may still be on its way (Linux's `TIME_WAIT`).
pub const FINISHED_NS: u64 = 60_000_000_000;
/// One that was reset: not at once, because the number of the reset is not checked, so that it may be forged (RFC 7857, 2.2).
pub const RESET_NS: u64 = 240_000_000_000;
/// An entry's time is written again only when it is older than this: a store for each packet would bounce its line.
pub const REFRESH_NS: u64 = 1_000_000_000;

/// Whether nothing more is expected of an entry, so that it only takes room.
#[must_use]
pub const fn is_over<const W: usize>(table: FlowTable, flow: &Flow<W>, now_ns: u64) -> bool {
    const BOTH: u16 = FLOW_CLIENT_FIN | FLOW_BACKEND_FIN;
    let kept_ns = match table {
        FlowTable::Datagrams => UDP_IDLE_NS,
        FlowTable::HalfOpen => HALF_OPEN_IDLE_NS,
        FlowTable::Established if flow.state & FLOW_RESET != 0 => RESET_NS,
        FlowTable::Established if flow.state & BOTH == BOTH => FINISHED_NS,
        FlowTable::Established => ESTABLISHED_IDLE_NS,
    };
    now_ns.saturating_sub(flow.last_seen_ns) > kept_ns
}

/// Who has sent a packet of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// Its client.
    Client,
    /// Its client, whose backend answers on another way: what it says is not seen, so the client's word is taken for both.
    ClientAlone,
    /// Its backend.
    Backend,
}

/// A flow, and the table that holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found<const W: usize> {
    /// The entry.
    pub flow: Flow<W>,
    /// Its table.
    pub table: FlowTable,
}

/// The entry of a client's tuple.
#[inline(always)]
pub(crate) fn find<const W: usize, T: Tables>(key: &Tuple<W>, tables: &T) -> Option<Found<W>>
where
    Address<W>: Family<W>,
{
    let first = if key.protocol == UDP { FlowTable::Datagrams } else { FlowTable::Established };
    if let Some(flow) = Address::<W>::flow(tables, first, key) {
        return Some(Found { flow, table: first });
    }
    if key.protocol == UDP {
        return None;
    }
    Address::<W>::flow(tables, FlowTable::HalfOpen, key).map(|flow| Found { flow, table: FlowTable::HalfOpen })
}

/// The entry of a client's tuple that [`find`] has not found, because it went over to the established ones between its two
/// looks: it is put there before it is taken out here.
#[inline(always)]
pub(crate) fn established<const W: usize, T: Tables>(key: &Tuple<W>, tables: &T) -> Option<Found<W>>
where
    Address<W>: Family<W>,
{
    let table = FlowTable::Established;
    if key.protocol == UDP { None } else { Address::<W>::flow(tables, table, key).map(|flow| Found { flow, table }) }
}

/// Whether, and what for, a packet belongs to a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Belongs {
    /// To none.
    No,
    /// To the one that is left in the packet's work.
    Yes,
    /// To one that is looked for in a stage of its own, see [`Tables::APART`].
    Apart,
}

/// Whether a client's packet belongs to a living flow, which is left in `work`.
///
/// An entry is passed over when the packet opens a connection and the old one has finished, for clients use ports again,
/// or its backend is no member any more: who still waits for the answer of a dead one is given another. So is one whose replies
/// would find another flow, or none.
#[inline(always)]
pub fn of_client<const W: usize, T: Tables>(work: &mut Of<W>, tables: &T) -> Belongs
where
    Address<W>: Family<W>,
{
    let Some(found) = find(&work.headers.tuple, tables) else { return Belongs::No };
    work.found = found;
    let state = found.flow.state;
    if !T::APART && state & FLOW_REPLIES != 0 {
        return Belongs::Apart;
    }
    let lost = T::APART
        && state & FLOW_REPLIES != 0
        && found.table != FlowTable::Established
        && Address::<W>::replies(tables, Ask::Has, work) != Reason::NewFlow;
    if !work.headers.opens() && !lost {
        return Belongs::Yes;
    }
    let idle =
        found.table == FlowTable::Datagrams && tables.now_ns().saturating_sub(found.flow.last_seen_ns) > UDP_IDLE_NS;
    let member = tables.backend(found.flow.backend).is_some_and(|backend| backend.state == BACKEND_MEMBER);
    let closed = closed(state);
    if idle || closed || !member || lost {
        forget(work, tables);
        if !closed {
            tables.add_active(found.flow.backend, -1);
        }
        if T::APART && state & FLOW_REPLIES != 0 {
            Address::<W>::replies(tables, Ask::Release, work);
        }
        // Its successor begins in another table, where it must not be found in front of it.
        Address::<W>::remove_flow(tables, found.table, &work.headers.tuple);
        return Belongs::No;
    }
    Belongs::Yes
}

/// Has this CPU forget both directions of a flow whose client begins another one from the same port.
#[inline(always)]
fn forget<const W: usize, T: Tables>(work: &mut Of<W>, tables: &T)
where
    Address<W>: Family<W>,
{
    let Of { headers, found, room, .. } = work;
    Address::<W>::express(tables, &headers.tuple, Express::forget);
    if let Some(backend) = tables.backend(found.flow.backend) {
        reply::expect(&headers.tuple, &found.flow, &backend, &mut room.tuple);
        Address::<W>::express(tables, &room.tuple, Express::forget);
    }
}

/// Whether a backend's packet replies to a flow; it, and the client's tuple towards the VIP, are left in `work`.
#[inline(always)]
pub fn of_backend<const W: usize, T: Tables>(work: &mut Of<W>, tables: &T) -> Belongs
where
    Address<W>: Family<W>,
{
    let tuple = &work.headers.tuple;
    let Some(endpoint) =
        Address::<W>::endpoint(tables, &SocketKey::new(tuple.source, tuple.source_port, tuple.protocol))
    else {
        return Belongs::No;
    };
    if endpoint.flags & ENDPOINT_REPLIES != 0 {
        if !T::APART {
            return Belongs::Apart;
        }
        if Address::<W>::replies(tables, Ask::Find, work) == Reason::NewFlow {
            return Belongs::Yes;
        }
    }
    // Also the flows from before an endpoint stood behind more than one VIP.
    let (tuple, key) = (&work.headers.tuple, &mut work.key);
    (key.source, key.source_port) = (tuple.destination, tuple.destination_port);
    (key.destination, key.destination_port) = (Address::<W>::vip(&endpoint), endpoint.port);
    let Some(found) = find(key, tables).or_else(|| established(key, tables)) else { return Belongs::No };
    work.found = found;
    let same = found.flow.backend == endpoint.backend && found.flow.source_port.is(Be16::new(0));
    if same { Belongs::Yes } else { Belongs::No }
}

/// Both sides have closed, or either has reset.
#[inline(always)]
#[must_use]
pub const fn closed(state: u16) -> bool {
    let both = FLOW_CLIENT_FIN | FLOW_BACKEND_FIN;
    state & FLOW_RESET != 0 || state & both == both
}

/// The table of a new flow.
#[inline(always)]
pub const fn table_of_new(protocol: u8) -> FlowTable {
    if protocol == UDP { FlowTable::Datagrams } else { FlowTable::HalfOpen }
}

/// Writes what a packet changes in its flow's entry: marks of TCP's flags, the backend's answer, the time. `judged`: the
/// entry bears another generation than it had.
///
/// Two CPUs may do this for one flow at once: the later store wins, and what can be lost is a mark of FIN, an answer or a
/// time, which the next packet brings again; backend and key never change here.
#[inline(always)]
pub fn note<const W: usize, P: Packet, T: Tables>(packet: &P, tables: &T, work: &mut Of<W>, judged: bool, from: From)
where
    Address<W>: Family<W>,
{
    let Of { headers, found: Found { flow, table }, .. } = work;
    let before = *table;
    let now = tables.now_ns();
    let stale = now.saturating_sub(flow.last_seen_ns) > REFRESH_NS;
    let state = flow.state | marks(headers.flags, from);
    let mut changed = judged || stale || state != flow.state;
    if closed(state) && !closed(flow.state) {
        let refused = *table == FlowTable::HalfOpen && refuses(headers.flags, flow.state, from);
        tables.flow_closed(flow.backend, refused);
    }
    flow.state = state;
    if *table == FlowTable::HalfOpen {
        changed |= shake(packet, headers, tables, flow, table, from);
    }
    if T::APART && *table != before && flow.state & FLOW_REPLIES != 0 {
        let established = Address::<W>::replies(tables, Ask::Establish, work) == Reason::NewFlow;
        if !established {
            // There is no room for its replies: it stays as it was, and the next segment tries again.
            work.found.table = before;
            work.found.flow.state |= FLOW_ANSWERED;
        }
    }
    if changed {
        let Of { key, found: Found { flow, table }, .. } = work;
        flow.last_seen_ns = now;
        if *table == before {
            Address::<W>::amend_flow(tables, before, key, flow);
        } else if Address::<W>::insert_flow(tables, *table, key, flow) {
            // A refusal leaves the old entry, which still leads to the same backend.
            Address::<W>::remove_flow(tables, before, key);
        }
    }
}

/// Whether a backend refuses a connection: with a reset that acknowledges the SYN, before any answer. One without ACK is to
/// something else that a client has sent, which cannot speak against a backend (RFC 9293, 3.10.7.1).
#[inline(always)]
const fn refuses(flags: u8, state: u16, from: From) -> bool {
    matches!(from, From::Backend) && flags & (RST | ACK) == RST | ACK && state & FLOW_ANSWERED == 0
}

/// The handshake of a half-open flow: notes the backend's answer, and establishes the flow when the client has received it.
/// Whether anything has changed.
#[inline(always)]
fn shake<const W: usize, P: Packet, T: Tables>(
    packet: &P,
    headers: &Headers<W>,
    tables: &T,
    flow: &mut Flow<W>,
    table: &mut FlowTable,
    from: From,
) -> bool {
    match (from, headers.flags & (SYN | ACK)) {
        (From::Backend, flags) if flags == SYN | ACK => {
            let answer = number(packet, headers.transport + 4).wrapping_add(1);
            let first = flow.state & FLOW_ANSWERED == 0;
            let new = first || flow.answer != answer;
            if first {
                tables.connect_answered(flow.backend);
            }
            flow.state |= FLOW_ANSWERED;
            flow.answer = answer;
            new
        }
        // What the backend has answered was not seen.
        (From::ClientAlone, ACK) => {
            *table = FlowTable::Established;
            true
        }
        (From::Client, ACK)
            if flow.state & FLOW_ANSWERED != 0 && number(packet, headers.transport + 8) == flow.answer =>
        {
            flow.state &= !FLOW_ANSWERED;
            *table = FlowTable::Established;
            true
        }
        _ => false,
    }
}

/// A sequence or acknowledgement number; the header was parsed, so it is there.
#[inline(always)]
fn number<P: Packet>(packet: &P, offset: usize) -> u32 {
    packet.load::<4>(offset).map_or(0, u32::from_be_bytes)
}

/// The marks that TCP flags leave.
#[inline(always)]
const fn marks(flags: u8, from: From) -> u16 {
    let fin = if flags & FIN == 0 {
        0
    } else {
        match from {
            From::Client => FLOW_CLIENT_FIN,
            From::Backend => FLOW_BACKEND_FIN,
            From::ClientAlone => FLOW_CLIENT_FIN | FLOW_BACKEND_FIN,
        }
    };
    fin | if flags & RST == 0 { 0 } else { FLOW_RESET }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds of silence after which an entry is over.
    fn kept(table: FlowTable, state: u16) -> u64 {
        let flow = Flow::<1> { state, last_seen_ns: 5, ..Flow::default() };
        (0..10_000).find(|seconds| is_over(table, &flow, 6 + seconds * 1_000_000_000)).unwrap()
    }

    #[test]
    fn each_state_has_its_time() {
        use FlowTable::{Datagrams, Established, HalfOpen};
        let both = FLOW_CLIENT_FIN | FLOW_BACKEND_FIN;
        for (table, state, seconds) in [
            (Datagrams, 0, 30),
            (HalfOpen, 0, 60),
            (HalfOpen, FLOW_ANSWERED, 60),
            (HalfOpen, FLOW_RESET, 60),
            (Established, 0, 7440),
            (Established, FLOW_CLIENT_FIN, 7440),
            (Established, FLOW_BACKEND_FIN, 7440),
            (Established, both, 60),
            (Established, both | FLOW_RESET, 240),
        ] {
            assert_eq!(kept(table, state), seconds, "{table:?} {state}");
        }
    }

    #[test]
    fn an_entry_from_after_the_look_is_not_over() {
        let flow = Flow::<1> { last_seen_ns: u64::MAX, ..Flow::default() };
        assert!(!is_over(FlowTable::Datagrams, &flow, 1));
    }
}
