//! The way of a packet: parse, flow, service, firewall, choice, rewriting, verdict.

use core::hint::black_box;

use crate::abi::{
    BACKEND_ABSENT, FLOW_REPLIES, FORWARD_DIRECT, FORWARD_NAT, FORWARD_TUNNEL, Flow, FlowTable, SERVICE_REPLIES,
    Service,
};
use crate::address::{Address, Be16, Family, Tuple};
use crate::choose;
use crate::express::{self, Forwarded};
use crate::firewall::{self, Allowed};
use crate::flow::{self, Belongs, Found, From};
use crate::generation::{USES_BALANCER, USES_REVERSE_PATH};
use crate::icmp::{self, About};
use crate::packet::Packet;
use crate::parse::{self, ACK, Headers, Network, RST, SYN, TCP, UDP};
use crate::reply::{self, Ask, Reply, Room};
use crate::rewrite::{self, Egress, Translation};
use crate::service;
use crate::tables::Tables;
use crate::tunnel;
use crate::verdict::{Reason, Stage, Verdict};
use crate::vlan::{self, Ingress, Tag};

/// What is known of one packet while it is on its way. The shell brings it: the kernel's stack has no room for it.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// Of an IPv4 packet.
    pub v4: Of<1>,
    /// Of an IPv6 packet.
    pub v6: Of<4>,
}

/// The same for one family.
#[derive(Clone, Copy, Debug)]
pub struct Of<const W: usize> {
    /// Length of the frame.
    bytes: u64,
    pub(crate) headers: Headers<W>,
    /// The client's tuple towards the VIP.
    pub(crate) key: Tuple<W>,
    /// Its flow.
    pub(crate) found: Found<W>,
    /// The service that it asks for.
    pub(crate) service: Service,
    /// The ends that it gets, or that its tunnel has.
    pub(crate) translation: Translation<W>,
    /// For look-ups of replies.
    pub room: Room<W>,
    /// The link by which it leaves.
    pub(crate) egress: Egress,
    /// Why it leaves.
    pub(crate) reason: Reason,
    /// An ICMP error's flow.
    pub(crate) about: About<W>,
}

impl Default for Work {
    fn default() -> Self {
        Self { v4: Of::new(), v6: Of::new() }
    }
}

impl<const W: usize> Of<W> {
    /// Length of the frame as it came.
    #[inline(always)]
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Its headers, once they are parsed.
    #[inline(always)]
    #[must_use]
    pub const fn headers(&self) -> &Headers<W> {
        &self.headers
    }

    fn new() -> Self {
        let (none, nowhere) = (Be16::new(0), Address([0; W]));
        let tuple = Tuple::new((nowhere, nowhere), (none, none), 0);
        let ingress = Ingress::default();
        let headers = Headers { network: 0, transport: 0, length: 0, hops: 0, flags: 0, icmp_type: 0, ingress, tuple };
        let found = Found { flow: Flow::default(), table: FlowTable::Established };
        let translation = Translation { to: tuple, by_source: false };
        let room = Room { tuple, reply: Reply::new(&tuple, 0) };
        Self {
            bytes: 0,
            headers,
            key: tuple,
            found,
            service: Service::default(),
            translation,
            room,
            egress: Egress::nowhere(),
            reason: Reason::Internal,
            about: About::new(tuple),
        }
    }
}

/// Judges one frame, and rewrites it when it is to be forwarded; `work` may hold anything before and after.
#[inline(always)]
pub fn process<P: Packet, T: Tables>(packet: &mut P, tables: &T, work: &mut Work) -> Verdict {
    match express::forward(packet, tables) {
        Some(verdict) => verdict,
        None => judge(packet, tables, work),
    }
}

/// The whole way, for what [`express::forward`] does not take.
#[inline(always)]
pub fn judge<P: Packet, T: Tables>(packet: &mut P, tables: &T, work: &mut Work) -> Verdict {
    match enter(packet, tables) {
        Entered::Ipv4 => ipv4(packet, tables, &mut work.v4),
        Entered::Ipv6 => ipv6(packet, tables, &mut work.v6),
        Entered::Done(verdict) => verdict,
    }
}

/// Where a frame goes on, by what it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entered {
    /// Nowhere: this is its verdict.
    Done(Verdict),
    /// In [`ipv4`].
    Ipv4,
    /// In [`ipv6`].
    Ipv6,
}

/// What a frame carries decides about the rest of its way.
#[inline(always)]
pub fn enter<P: Packet, T: Tables>(packet: &P, tables: &T) -> Entered {
    match parse::ethernet(packet) {
        Ok((Network::Ipv4, _)) => Entered::Ipv4,
        Ok((Network::Ipv6, _)) => Entered::Ipv6,
        Ok((Network::Arp, _)) => Entered::Done(Verdict::Pass(Reason::Arp)),
        Ok((Network::Slow, _)) => Entered::Done(Verdict::Pass(Reason::SlowProtocol)),
        Err(reason) => Entered::Done(told::<1, P, T>(packet, None, Err(reason), tables)),
    }
}

/// The way of an IPv4 packet. In the kernel a program of its own, as is IPv6's: the stack is too small for both families side by
/// side, and the verifier's patience.
#[inline(always)]
pub fn ipv4<P: Packet, T: Tables>(packet: &mut P, tables: &T, work: &mut Of<1>) -> Verdict {
    match parse::ethernet(packet).and_then(|(_, offset)| parse::ipv4(packet, offset)) {
        Ok(headers) => {
            work.headers = headers;
            let result = route(packet, tables, work);
            told(packet, Some(&work.headers), result, tables)
        }
        Err(reason) => told::<1, P, T>(packet, None, Err(reason), tables),
    }
}

/// See [`ipv4`].
#[inline(always)]
pub fn ipv6<P: Packet, T: Tables>(packet: &mut P, tables: &T, work: &mut Of<4>) -> Verdict {
    match parse::ethernet(packet).and_then(|(_, offset)| read_ipv6(packet, offset, &mut work.headers)) {
        Ok(()) => {
            let result = route(packet, tables, work);
            told(packet, Some(&work.headers), result, tables)
        }
        Err(reason) => told::<4, P, T>(packet, None, Err(reason), tables),
    }
}

/// Parses into the packet's work: its part of the stack is given back before the other stages need theirs.
#[inline(never)]
fn read_ipv6<P: Packet>(packet: &P, offset: usize, headers: &mut Headers<4>) -> Result<(), Reason> {
    *headers = parse::ipv6(packet, offset)?;
    Ok(())
}

/// Who watches is told of a packet that is dropped; rules tell of theirs themselves.
#[inline(always)]
pub(crate) fn told<const W: usize, P: Packet, T: Tables>(
    packet: &P,
    headers: Option<&Headers<W>>,
    result: Result<Verdict, Reason>,
    tables: &T,
) -> Verdict {
    match result {
        Ok(verdict) => verdict,
        Err(reason) => {
            if !reason.is_of_a_rule() && tables.watched() {
                tables.tell_drop(headers, reason, packet.length() as u64);
            }
            Verdict::Drop(reason)
        }
    }
}

/// Judges a packet whose headers lie in `work` and whose flow has replies with entries of their own.
#[inline(always)]
pub fn apart<const W: usize, P: Packet, T: Tables>(packet: &mut P, tables: &T, work: &mut Of<W>) -> Verdict
where
    Address<W>: Family<W>,
{
    let result = route(packet, tables, work);
    told(packet, Some(&work.headers), result, tables)
}

/// What a packet is to the balancer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Nothing: it is for this host.
    Local,
    /// A client's packet of a known flow.
    Known,
    /// A client's packet to a service, of no known flow.
    Unknown,
    /// A backend's reply.
    Reply,
    /// What is found out in a stage of its own.
    Apart,
}

impl Way {
    /// Why a packet is forwarded.
    const fn reason(self) -> Reason {
        match self {
            Self::Unknown => Reason::NewFlow,
            Self::Reply => Reason::FlowReply,
            Self::Local | Self::Known | Self::Apart => Reason::Flow,
        }
    }
}

/// What the packet is to the balancer; its key and flow are left in `work`.
#[inline(never)]
fn way<const W: usize, T: Tables>(tables: &T, work: &mut Of<W>) -> Way
where
    Address<W>: Family<W>,
{
    work.key = work.headers.tuple;
    match flow::of_client(work, tables) {
        Belongs::Yes => return Way::Known,
        Belongs::Apart => return Way::Apart,
        Belongs::No => {}
    }
    if let Some(known) = service::on_wire(&work.headers, tables) {
        let service = &mut work.service;
        // Field by field: a copy of the whole would be a call.
        (service.slot, service.ring, service.places) = (known.slot, known.ring, known.places);
        (service.flags, service.affinity_s, service.sources) = (known.flags, known.affinity_s, known.sources);
        if !T::APART && known.flags & SERVICE_REPLIES != 0 {
            return Way::Apart;
        }
        if !work.headers.opens()
            && let Some(found) = flow::established(&work.headers.tuple, tables)
        {
            work.found = found;
            return Way::Known;
        }
        return Way::Unknown;
    }
    match flow::of_backend(work, tables) {
        Belongs::Yes => Way::Reply,
        Belongs::Apart => Way::Apart,
        Belongs::No => Way::Local,
    }
}

/// A packet of a service's flow is forwarded; every other one is for this host's firewall.
#[inline(always)]
fn route<const W: usize, P: Packet, T: Tables>(packet: &mut P, tables: &T, work: &mut Of<W>) -> Result<Verdict, Reason>
where
    Address<W>: Family<W>,
{
    let generation = tables.generation().ok_or(Reason::Internal)?;
    let bytes = packet.length() as u64;
    work.bytes = bytes;
    if work.headers.tagged() {
        vlan::arrive(packet, tables, work);
    } else {
        work.headers.ingress.device = tables.interface();
    }
    if generation.uses(USES_BALANCER) && icmp::is_error(&work.headers) {
        return Ok(Verdict::Stage(if W == 1 { Stage::Error4 } else { Stage::Error6 }));
    }
    let may_be_forwarded = generation.uses(USES_BALANCER) && matches!(work.headers.tuple.protocol, TCP | UDP);
    let way = if may_be_forwarded { way(tables, work) } else { Way::Local };
    if way == Way::Apart {
        return Ok(Verdict::Stage(if W == 1 { Stage::Apart4 } else { Stage::Apart6 }));
    }
    if way != Way::Local {
        of_a_device(&work.headers)?;
    }
    let before = work.found.flow.generation;
    if matches!(way, Way::Local | Way::Unknown) || (way == Way::Known && before != generation.head.number) {
        match Address::<W>::admit(tables, work) {
            Reason::RuleAllow if way == Way::Local && tunnel::ends_here(&work.headers, generation) => {
                return Ok(Verdict::Stage(if W == 1 { Stage::Decapsulate4 } else { Stage::Decapsulate6 }));
            }
            Reason::RuleAllow if way == Way::Local => return Ok(let_in(&work.headers, tables)),
            Reason::RuleAllow => {}
            // What no rule says may still belong to a connection that this host has opened.
            Reason::NoRule if way == Way::Local && Address::<W>::own_connection(tables, &work.headers.tuple) => {
                return Ok(Verdict::Pass(Reason::OwnConnection));
            }
            reason => return Err(tunnel::refused(reason, &work.headers, generation)),
        }
    } else if way == Way::Known {
        tables.count_rule(u32::from(work.found.flow.rule), bytes);
    }
    if way == Way::Unknown {
        match Address::<W>::assign(tables, work) {
            Reason::NewFlow => {}
            reason => return Err(reason),
        }
        if T::APART && work.service.flags & SERVICE_REPLIES != 0 {
            match Address::<W>::replies(tables, Ask::Claim, work) {
                Reason::NewFlow => {}
                reason => return Err(reason),
            }
        }
        match begin(tables, work) {
            Reason::NewFlow => {}
            reason => return Err(reason),
        }
    }
    let judged = way == Way::Known && work.found.flow.generation != before;
    match forward(packet, tables, work, way, judged) {
        Reason::Flow => {
            remember(packet, tables, work, way == Way::Reply);
            Ok(leave(work, way.reason()))
        }
        Reason::Neighbour => Ok(Verdict::Pass(Reason::Neighbour)),
        BY_TUNNEL => {
            work.reason = way.reason();
            Ok(Verdict::Stage(if W == 1 { Stage::Encapsulate4 } else { Stage::Encapsulate6 }))
        }
        reason => unsent::<W>(reason),
    }
}

/// What [`forward`] returns for a packet that a tunnel has to take: no reason for which one is refused.
const BY_TUNNEL: Reason = Reason::NewFlow;

/// Sends a packet of a flow on its way; `judged`: the flow bears another generation than it had. Returns as
/// [`rewrite::forward`] does, or [`BY_TUNNEL`].
///
/// A function of its own, so that the firewall need not share the stack with it.
#[inline(never)]
fn forward<const W: usize, P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    work: &mut Of<W>,
    way: Way,
    judged: bool,
) -> Reason
where
    Address<W>: Family<W>,
{
    let Some(backend) = tables.backend(work.found.flow.backend) else { return Reason::NoFlow };
    if backend.state == BACKEND_ABSENT {
        return Reason::NoFlow;
    }
    let from = match way {
        Way::Reply => From::Backend,
        _ if backend.forward != FORWARD_NAT => From::ClientAlone,
        _ => From::Client,
    };
    flow::note(packet, tables, work, judged, from);
    let Of { bytes, headers, key, found, translation, egress, .. } = work;
    tables.count_backend(backend.service, found.flow.backend, 0, 1, *bytes);
    let to = &mut translation.to;
    if way == Way::Reply {
        (to.source, to.source_port) = (key.destination, key.destination_port);
        (to.destination, to.destination_port) = (key.source, key.source_port);
    } else {
        (to.source, to.source_port) = reply::sender(key, &found.flow);
        (to.destination, to.destination_port) = (Address::<W>::backend_address(&backend), backend.port);
    }
    translation.by_source = way == Way::Reply;
    match backend.forward {
        FORWARD_TUNNEL => BY_TUNNEL,
        FORWARD_DIRECT => rewrite::relay(packet, headers, translation, egress, tables),
        _ => rewrite::forward(packet, headers, translation, egress, tables),
    }
}

/// Has this CPU remember the way of a packet that was forwarded, unless each packet is to be asked for, or its flow has not
/// shown yet that it is one.
///
/// A function of its own: its part of the stack is given back.
#[inline(never)]
fn remember<const W: usize, P: Packet, T: Tables>(packet: &P, tables: &T, work: &Of<W>, reply: bool)
where
    Address<W>: Family<W>,
{
    let Of { headers, found, translation, egress, .. } = work;
    let (Some(generation), Some(backend)) = (tables.generation(), tables.backend(found.flow.backend)) else { return };
    let settled = reply || found.flow.generation == generation.head.number;
    // Entries for replies are kept in use by the packets that look for them.
    let apart = found.flow.state & FLOW_REPLIES != 0;
    if !settled || apart || found.table == FlowTable::HalfOpen || !express::is_plain(headers) || egress.tag != Tag::NONE
    {
        return;
    }
    let way = Forwarded {
        headers,
        translation,
        egress,
        generation: generation.head.number,
        rule: if reply { None } else { Some(found.flow.rule) },
        backend: found.flow.backend,
        service: backend.service,
        relayed: backend.forward == FORWARD_DIRECT,
    };
    Address::<W>::express(tables, &headers.tuple, |entry| express::learn(packet, tables, &way, entry));
}

/// A packet that cannot be sent on: of some its sender is told.
#[inline(always)]
pub(crate) const fn unsent<const W: usize>(reason: Reason) -> Result<Verdict, Reason> {
    match reason {
        Reason::TooBig | Reason::TimeExceeded => {
            Ok(Verdict::Stage(if W == 1 { Stage::Answer4 } else { Stage::Answer6 }))
        }
        reason => Err(reason),
    }
}

/// What the rules let through to this host; of handshakes SYN cookies judge once more.
#[inline(always)]
fn let_in<const W: usize, T: Tables>(headers: &Headers<W>, tables: &T) -> Verdict {
    if headers.tuple.protocol != TCP {
        return Verdict::Pass(Reason::RuleAllow);
    }
    let completes = headers.flags & (SYN | ACK | RST) == ACK;
    // While there is no flood, a look at some SYNs tells as well when one begins, and spares the others its cost.
    let judged = if headers.opens() {
        tables.answers_syns() || tables.samples_syn()
    } else {
        completes && tables.answers_syns()
    };
    if judged {
        return Verdict::Handshake(if W == 1 { Stage::Handshake4 } else { Stage::Handshake6 });
    }
    Verdict::Pass(Reason::RuleAllow)
}

/// The firewall, in front of it the question whether the source can be where it claims to be. The rule that allows, and its
/// generation, are left in the flow; returns [`Reason::RuleAllow`] or why the packet is dropped.
#[inline(always)]
pub fn admit<const W: usize, T: Tables>(tables: &T, work: &mut Of<W>) -> Reason
where
    Address<W>: Family<W>,
{
    let Some(generation) = tables.generation() else { return Reason::Internal };
    if generation.uses(USES_REVERSE_PATH) && !Address::<W>::routed_back(tables, &work.headers) {
        return Reason::ReversePath;
    }
    match firewall::judge(&work.headers, tables, generation, work.bytes) {
        Ok(Allowed { counter, each_packet }) => {
            work.found.flow.rule = counter as u16;
            work.found.flow.generation = if each_packet { 0 } else { generation.head.number };
            Reason::RuleAllow
        }
        Err(reason) => reason,
    }
}

/// The first packet of a flow is given a backend, which is left in the flow that is to begin; returns [`Reason::NewFlow`] or why it is dropped.
#[inline(always)]
pub fn assign<const W: usize, T: Tables>(tables: &T, work: &mut Of<W>) -> Reason
where
    Address<W>: Family<W>,
{
    let Of { headers, found, service, .. } = work;
    if !headers.opens() {
        return Reason::NoFlow;
    }
    let now_ns = tables.now_ns();
    let slot = match choose::for_client(service, &headers.tuple, now_ns, tables) {
        Ok(slot) => slot,
        Err(reason) => return reason,
    };
    let (rule, generation) = (found.flow.rule, found.flow.generation);
    // Hidden from the compiler, which would set so many zeroes byte by byte, by a call.
    let source = Address([black_box(0); W]);
    found.flow = Flow { backend: slot, rule, generation, last_seen_ns: now_ns, source, ..Flow::default() };
    found.table = flow::table_of_new(headers.tuple.protocol);
    Reason::NewFlow
}

/// Puts a new flow into its table; returns [`Reason::NewFlow`] or why its packet is dropped.
#[inline(always)]
fn begin<const W: usize, T: Tables>(tables: &T, work: &mut Of<W>) -> Reason
where
    Address<W>: Family<W>,
{
    if !Address::<W>::insert_flow(tables, work.found.table, &work.headers.tuple, &work.found.flow) {
        if T::APART && work.found.flow.state & FLOW_REPLIES != 0 {
            Address::<W>::replies(tables, Ask::Release, work);
        }
        return Reason::FlowTable;
    }
    let slot = work.found.flow.backend;
    tables.add_active(slot, 1);
    tables.count_backend(work.service.slot, slot, 1, 0, 0);
    Reason::NewFlow
}

/// Services are forwarded from under one tag, of a VLAN that has a device here: the routing tables know no other.
#[inline(always)]
pub(crate) const fn of_a_device<const W: usize>(headers: &Headers<W>) -> Result<(), Reason> {
    if headers.ingress.device == 0 { Err(Reason::TaggedService) } else { Ok(()) }
}

/// A packet leaves by its egress; under another tag than it came, in a stage of its own.
#[inline(always)]
pub(crate) fn leave<const W: usize>(work: &mut Of<W>, reason: Reason) -> Verdict {
    if work.egress.tag == work.headers.ingress.tag {
        return Verdict::Forward { reason, interface: work.egress.interface };
    }
    work.reason = reason;
    Verdict::Stage(if W == 1 { Stage::Tag4 } else { Stage::Tag6 })
}
