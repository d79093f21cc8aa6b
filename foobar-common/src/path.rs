//! The way of a packet: parse, flow, service, firewall, choice, rewriting, verdict.

use crate::abi::{BACKEND_ABSENT, Flow, Service};
use crate::address::{Address, Be16, Family};
use crate::choose;
use crate::firewall::{self, Allowed};
use crate::flow;
use crate::packet::Packet;
use crate::parse::{self, Headers, Network, TCP, UDP};
use crate::rewrite::{self, End, Translation};
use crate::service;
use crate::tables::Tables;
use crate::verdict::{Reason, Verdict};

/// Judges one frame, and rewrites it when it is to be forwarded.
#[inline(always)]
pub fn process<P: Packet, T: Tables>(packet: &mut P, tables: &T) -> Verdict {
    judged(packet, tables).unwrap_or_else(Verdict::Drop)
}

#[inline(always)]
fn judged<P: Packet, T: Tables>(packet: &mut P, tables: &T) -> Result<Verdict, Reason> {
    match parse::ethernet(packet)? {
        (Network::Arp, _) => Ok(Verdict::Pass(Reason::Arp)),
        (Network::Ipv4, offset) => route(packet, &parse::ipv4(packet, offset)?, tables),
        (Network::Ipv6, offset) => route(packet, &parse::ipv6(packet, offset)?, tables),
    }
}

/// A packet of a service's flow is forwarded; every other one is for this host's firewall.
#[inline(always)]
fn route<const W: usize, P: Packet, T: Tables>(
    packet: &mut P,
    headers: &Headers<W>,
    tables: &T,
) -> Result<Verdict, Reason>
where
    Address<W>: Family<W>,
{
    let bytes = packet.length() as u64;
    let balanced = tables.balances() && (headers.tuple.protocol == TCP || headers.tuple.protocol == UDP);
    if balanced {
        if let Some(flow) = flow::of_client(headers, tables) {
            return to_backend(packet, headers, tables, &flow, Reason::Flow);
        }
        if let Some(service) = service::on_wire(headers, tables) {
            return open(packet, headers, tables, &service);
        }
        if let Some((key, flow, endpoint)) = flow::of_backend(headers, tables) {
            untagged(headers)?;
            flow::note(headers, tables, &key, &flow, &flow, false);
            let backend = tables.backend(flow.backend).ok_or(Reason::Internal)?;
            tables.count_backend(backend.service, flow.backend, 0, 1, bytes);
            let source = translation(End::Source, Address::<W>::vip(&endpoint), endpoint.port);
            return rewrite::forward(packet, headers, &source, tables, Reason::FlowReply);
        }
    }
    match firewall::judge(headers, tables, bytes)? {
        Allowed::Rule(_) => Ok(Verdict::Pass(Reason::RuleAllow)),
        Allowed::OwnConnection => Ok(Verdict::Pass(Reason::OwnConnection)),
    }
}

/// The first packet of a flow: judged by the rules, then given to the next backend.
#[inline(always)]
fn open<const W: usize, P: Packet, T: Tables>(
    packet: &mut P,
    headers: &Headers<W>,
    tables: &T,
    service: &Service,
) -> Result<Verdict, Reason>
where
    Address<W>: Family<W>,
{
    untagged(headers)?;
    let Allowed::Rule(rule) = firewall::judge(headers, tables, packet.length() as u64)? else {
        return Err(Reason::NoRule);
    };
    if !headers.opens() {
        return Err(Reason::NoFlow);
    }
    let (slot, _) = choose::next(service, tables).ok_or(Reason::NoBackend)?;
    let flow = Flow { backend: slot, generation: tables.generation(), state: 0, rule, last_seen_ns: tables.now_ns() };
    if !Address::<W>::insert_flow(tables, &headers.tuple, &flow) {
        return Err(Reason::FlowTable);
    }
    tables.count_backend(service.slot, slot, 1, 0, 0);
    to_backend(packet, headers, tables, &flow, Reason::NewFlow)
}

/// A packet of a flow on its way to the backend; a flow of an older generation of rules is judged again.
#[inline(always)]
fn to_backend<const W: usize, P: Packet, T: Tables>(
    packet: &mut P,
    headers: &Headers<W>,
    tables: &T,
    flow: &Flow,
    reason: Reason,
) -> Result<Verdict, Reason>
where
    Address<W>: Family<W>,
{
    untagged(headers)?;
    let bytes = packet.length() as u64;
    let mut judged = *flow;
    if flow.generation != tables.generation() {
        judged.generation = tables.generation();
        judged.rule = match firewall::judge(headers, tables, bytes)? {
            Allowed::Rule(rule) => rule,
            Allowed::OwnConnection => return Err(Reason::NoRule),
        };
    } else if reason == Reason::Flow {
        tables.count_rule(flow.rule, bytes);
    }
    let backend =
        tables.backend(flow.backend).filter(|backend| backend.state != BACKEND_ABSENT).ok_or(Reason::NoFlow)?;
    flow::note(headers, tables, &headers.tuple, flow, &judged, true);
    tables.count_backend(backend.service, flow.backend, 0, 1, bytes);
    let destination = translation(End::Destination, Address::<W>::backend_address(&backend), backend.port);
    rewrite::forward(packet, headers, &destination, tables, reason)
}

/// Services are not forwarded from under VLAN tags: the tag of the next link is not known here.
#[inline(always)]
const fn untagged<const W: usize>(headers: &Headers<W>) -> Result<(), Reason> {
    if headers.tagged() { Err(Reason::TaggedService) } else { Ok(()) }
}

#[inline(always)]
const fn translation<const W: usize>(end: End, address: Address<W>, port: Be16) -> Translation<W> {
    Translation { end, address, port }
}
