//! Flows: which backend a connection through the balancer belongs to, in both directions, by one entry.
//!
//! The entry is keyed by the client's tuple towards the VIP. A reply finds it through the endpoint table: an
//! endpoint (backend, port, protocol) stands behind one VIP, so the VIP gives the client's tuple.

use crate::abi::{BACKEND_MEMBER, Endpoint, FLOW_BACKEND_FIN, FLOW_CLIENT_FIN, FLOW_RESET, Flow};
use crate::address::{Address, Family, SocketKey, Tuple};
use crate::parse::{FIN, Headers, RST, UDP};
use crate::tables::Tables;

/// A UDP flow without a packet for so long is over.
pub const UDP_IDLE_NS: u64 = 30_000_000_000;
/// An entry's time is written again only when it is older than this: a store for each packet would bounce its line.
const REFRESH_NS: u64 = 1_000_000_000;

/// The living flow that a client's packet belongs to.
///
/// An entry is passed over when the packet opens a connection and the old one has finished, for clients use ports again,
/// or its backend is no member any more: who still waits for the answer of a dead one is given another.
#[inline(always)]
pub fn of_client<const W: usize, T: Tables>(headers: &Headers<W>, tables: &T) -> Option<Flow>
where
    Address<W>: Family<W>,
{
    let flow = Address::<W>::flow(tables, &headers.tuple)?;
    if !headers.opens() {
        return Some(flow);
    }
    let idle = headers.tuple.protocol == UDP && tables.now_ns().saturating_sub(flow.last_seen_ns) > UDP_IDLE_NS;
    let member = tables.backend(flow.backend).is_some_and(|backend| backend.state == BACKEND_MEMBER);
    if idle || closed(flow.state) || !member { None } else { Some(flow) }
}

/// The flow that a backend's packet replies to: the client's key, the entry, the endpoint.
#[inline(always)]
pub fn of_backend<const W: usize, T: Tables>(headers: &Headers<W>, tables: &T) -> Option<(Tuple<W>, Flow, Endpoint)>
where
    Address<W>: Family<W>,
{
    let tuple = &headers.tuple;
    let endpoint = Address::<W>::endpoint(tables, &SocketKey::new(tuple.source, tuple.source_port, tuple.protocol))?;
    let key = Tuple {
        source: tuple.destination,
        destination: Address::<W>::vip(&endpoint),
        source_port: tuple.destination_port,
        destination_port: endpoint.port,
        protocol: tuple.protocol,
        _pad: [0; 3],
    };
    let flow = Address::<W>::flow(tables, &key)?;
    if flow.backend == endpoint.backend { Some((key, flow, endpoint)) } else { None }
}

/// Both sides have closed, or either has reset.
#[inline(always)]
const fn closed(state: u32) -> bool {
    let both = FLOW_CLIENT_FIN | FLOW_BACKEND_FIN;
    state & FLOW_RESET != 0 || state & both == both
}

/// Writes back what a packet changes in its flow's entry: `old` is there, `flow` shall be, with marks and time.
///
/// Two CPUs may do this for one flow at once: the later store wins, and what can be lost is a mark of FIN or a
/// time, which the next packet brings again; backend and key never change here.
#[inline(always)]
pub fn note<const W: usize, T: Tables>(
    headers: &Headers<W>,
    tables: &T,
    key: &Tuple<W>,
    old: &Flow,
    flow: &Flow,
    from_client: bool,
) where
    Address<W>: Family<W>,
{
    let now = tables.now_ns();
    let state = old.state | marks(headers.flags, from_client);
    let stale = now.saturating_sub(old.last_seen_ns) > REFRESH_NS;
    if state != old.state || stale || flow.generation != old.generation {
        // A refusal leaves the old entry, which still leads to the same backend.
        let _: bool = Address::<W>::insert_flow(tables, key, &Flow { state, last_seen_ns: now, ..*flow });
    }
}

/// The marks that TCP flags leave.
#[inline(always)]
const fn marks(flags: u8, from_client: bool) -> u32 {
    let fin = if flags & FIN == 0 {
        0
    } else if from_client {
        FLOW_CLIENT_FIN
    } else {
        FLOW_BACKEND_FIN
    };
    fin | if flags & RST == 0 { 0 } else { FLOW_RESET }
}
