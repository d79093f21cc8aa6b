//! Replies that their endpoint alone does not tell apart: a table from a backend's packet, as it comes, to its flow.
//!
//! An endpoint that stands behind one VIP needs no such entry (see `flow`). One that stands behind several does, and so does a
//! service whose packets bear a source of the balancer's own, with a port for each flow. Both ends of a flow are then found from
//! the other: the flow names its source and port, and the entry names the flow.
//!
//! An entry lies in the table of the same kind as its flow. Those of established flows are in a plain hash: a table that
//! drives out what it has not seen for long would give away the port of a silent connection. Half-open flows and datagrams are
//! anybody's to make, so theirs drive out the least recently used, as the flows' own tables do; each of their packets asks whether
//! the entry is still there, and keeps it in use by that.
//!
//! No two flows have one entry, because an entry is inserted only where none is. What the kernel has driven out of a flow
//! table leaves its entry behind, and the agent's next walk takes it out.
//!
//! Anybody can begin connections that he never finishes, so these hold no port against others: a new connection that finds no
//! free one takes that of a half-open one, which is lost with its next packet, as are those that a table of half-open connections
//! drives out. In a flood each SYN drives out one of at most [`PORTS`] for each source, by a hash, so that a handshake that takes as
//! long as so many SYNs gets through with e^(-SYNs / ports). A backend that still waits for the old one's ACK, and has not
//! answered it by a cookie, has the new one's client send its SYN again.

use crate::abi::{Backend, FLOW_REPLIES, Flow, FlowTable, Service};
use crate::address::{Address, Be16, Family, Tuple};
use crate::choose;
use crate::flow::{self, Found};
use crate::parse::UDP;
use crate::path::Of;
use crate::tables::{Step, Tables};
use crate::verdict::Reason;

/// The first port that a flow may be given: below are those that mean something to backends.
pub const FIRST_PORT: u16 = 1024;
/// Ports of each source address.
pub const PORTS: u32 = u16::MAX as u32 + 1 - FIRST_PORT as u32;
/// Ports that are tried before a new flow is refused: with nine of ten in use one in a thousand is.
const TRIES: u32 = 64;
/// Places of the ring that are tried for a flow whose client talks already to the backend that it was given.
const OTHERS: u32 = 64;

/// The flow that a reply belongs to. 16 bytes for IPv4, 40 for IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Reply<const W: usize> {
    /// The client's address.
    pub client: Address<W>,
    /// The VIP that it asked for.
    pub vip: Address<W>,
    /// The client's port.
    pub client_port: Be16,
    /// The VIP's port.
    pub vip_port: Be16,
    /// Slot of the backend.
    pub backend: u32,
}

const _: () = assert!(size_of::<Reply<1>>() == 16 && size_of::<Reply<4>>() == 40);

impl<const W: usize> Reply<W> {
    /// To the flow of a client's tuple, at this backend.
    #[inline(always)]
    #[must_use]
    pub const fn new(key: &Tuple<W>, backend: u32) -> Self {
        Self {
            client: key.source,
            vip: key.destination,
            client_port: key.source_port,
            vip_port: key.destination_port,
            backend,
        }
    }

    /// The client's tuple towards the VIP.
    #[inline(always)]
    #[must_use]
    pub const fn flow(&self, protocol: u8) -> Tuple<W> {
        Tuple::new((self.client, self.vip), (self.client_port, self.vip_port), protocol)
    }

    /// Whether it is of this flow.
    #[inline(always)]
    #[must_use]
    pub const fn is_of(&self, key: &Tuple<W>, flow: &Flow<W>) -> bool {
        let ports = self.client_port.is(key.source_port) && self.vip_port.is(key.destination_port);
        ports && self.backend == flow.backend && self.client.is(&key.source) && self.vip.is(&key.destination)
    }
}

/// Room for a look-up, brought by the packet's work: the kernel's stack has none.
#[derive(Clone, Copy, Debug)]
pub struct Room<const W: usize> {
    /// A reply as it comes.
    pub tuple: Tuple<W>,
    /// What it belongs to.
    pub reply: Reply<W>,
}

/// Writes a flow's replies as they come: from its backend, to where its packets say that they are from.
#[inline(always)]
pub fn expect<const W: usize>(key: &Tuple<W>, flow: &Flow<W>, backend: &Backend, tuple: &mut Tuple<W>)
where
    Address<W>: Family<W>,
{
    tuple.source = Address::<W>::from_words(backend.address);
    (tuple.source_port, tuple.protocol) = (backend.port, key.protocol);
    (tuple.destination, tuple.destination_port) = sender(key, flow);
}

/// Where a flow's packets are from for its backend: a source of the balancer's, or the client.
#[inline(always)]
#[must_use]
pub const fn sender<const W: usize>(key: &Tuple<W>, flow: &Flow<W>) -> (Address<W>, Be16) {
    if flow.source_port.is(Be16::new(0)) {
        return (key.source, key.source_port);
    }
    (flow.source, flow.source_port)
}

/// What is asked of the replies' tables. One function answers all of it, and the kernel's is verified once: see
/// [`Tables::replies4`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Ask {
    /// Whether the flow that was found still has its entry.
    Has = 0,
    /// To take the entry of the flow that was found out, because it is over.
    Release = 1,
    /// The flow that the packet replies to; it and its client's tuple are left in the packet's work.
    Find = 2,
    /// To have the entry follow its flow to the established ones.
    Establish = 3,
    /// A source for a new flow, where its service has some, and an entry; both are left in the flow, as is the backend, for which
    /// another one may have been found.
    Claim = 4,
}

impl Ask {
    /// By its number; never [`Ask::Claim`], for which the kernel has a function beside, as it takes more of the stack.
    #[inline(always)]
    #[must_use]
    pub const fn numbered(number: u32) -> Self {
        match number {
            0 => Self::Has,
            1 => Self::Release,
            2 => Self::Find,
            _ => Self::Establish,
        }
    }
}

/// Answers for the flow of the packet's work: [`Reason::NewFlow`] is yes, of a claim everything else is why the packet is
/// dropped, and of the others [`Reason::NoFlow`] is no.
#[inline(always)]
pub fn answer<const W: usize, T: Tables>(ask: Ask, tables: &T, work: &mut Of<W>) -> Reason
where
    Address<W>: Family<W>,
{
    let Of { headers, key, found, service, room, .. } = work;
    if ask == Ask::Find {
        return yes(find(&headers.tuple, key, found, tables, room));
    }
    let Some(backend) = tables.backend(found.flow.backend) else { return Reason::NoFlow };
    expect(key, &found.flow, &backend, &mut room.tuple);
    match ask {
        Ask::Claim => claim(service, key, found, tables, room),
        Ask::Establish => yes(establish(key, found, tables, room)),
        Ask::Has | Ask::Release | Ask::Find => {
            // That of a flow which is being established is among the established ones before the flow is.
            let has = Address::<W>::reply(tables, found.table, room)
                || found.table == FlowTable::HalfOpen && Address::<W>::reply(tables, FlowTable::Established, room);
            let has = has && room.reply.is_of(key, &found.flow);
            // Between the look and the removal nobody else can have it: only packets of this flow, and the agent once the flow
            // is gone, take it out.
            if has && ask == Ask::Release {
                Address::<W>::remove_reply(tables, found.table, room);
            }
            yes(has)
        }
    }
}

#[inline(always)]
const fn yes(yes: bool) -> Reason {
    if yes { Reason::NewFlow } else { Reason::NoFlow }
}

/// Finds the flow that a reply belongs to.
#[inline(always)]
fn find<const W: usize, T: Tables>(
    tuple: &Tuple<W>,
    key: &mut Tuple<W>,
    found: &mut Found<W>,
    tables: &T,
    room: &mut Room<W>,
) -> bool
where
    Address<W>: Family<W>,
{
    let first = if tuple.protocol == UDP { FlowTable::Datagrams } else { FlowTable::Established };
    room.tuple = *tuple;
    // An entry that goes over to the established ones is put there before it is taken out here: who has seen it in neither
    // table finds it there.
    let entry = Address::<W>::reply(tables, first, room)
        || tuple.protocol != UDP
            && (Address::<W>::reply(tables, FlowTable::HalfOpen, room) || Address::<W>::reply(tables, first, room));
    if !entry {
        return false;
    }
    let reply = &room.reply;
    (key.source, key.source_port) = (reply.client, reply.client_port);
    (key.destination, key.destination_port) = (reply.vip, reply.vip_port);
    let Some(known) = flow::find(key, tables).or_else(|| flow::established(key, tables)) else { return false };
    *found = known;
    let (address, port) = sender(key, &found.flow);
    // The entry may be of a flow that is over, and whose successor has another one.
    found.flow.backend == reply.backend && address.is(&tuple.destination) && port.is(tuple.destination_port)
}

/// Has the entry of a half-open flow follow it to the established ones; false: there is no room, and both stay where they are.
#[inline(always)]
fn establish<const W: usize, T: Tables>(key: &Tuple<W>, found: &Found<W>, tables: &T, room: &mut Room<W>) -> bool
where
    Address<W>: Family<W>,
{
    room.reply = Reply::new(key, found.flow.backend);
    // At no time is it in neither table, so that nobody can take it.
    let inserted = Address::<W>::insert_reply(tables, FlowTable::Established, room, Over::Nothing);
    if inserted {
        Address::<W>::remove_reply(tables, FlowTable::HalfOpen, room);
    }
    inserted
}

/// See [`Ask::Claim`].
#[inline(always)]
fn claim<const W: usize, T: Tables>(
    service: &Service,
    key: &Tuple<W>,
    found: &mut Found<W>,
    tables: &T,
    room: &mut Room<W>,
) -> Reason
where
    Address<W>: Family<W>,
{
    found.flow.state |= FLOW_REPLIES;
    let hash = choose::hash(key);
    room.reply = Reply::new(key, found.flow.backend);
    if service.sources > 0 {
        // At least one, as the compiler sees it, too: a division by zero would be a way to panic.
        let all = (service.sources * PORTS).max(1);
        // By the client, as a client's ports follow each other; the upper bits say how far apart the tries are.
        let (place, stride) = (hash % all, 1 + (hash >> 23));
        let mut ports = Ports { service, key, found, tables, room, all, place, stride, over: 0, claimed: 0 };
        tables.repeat(TRIES, &mut ports);
        if ports.claimed == 0 && ports.found.table == FlowTable::HalfOpen {
            (ports.place, ports.over) = (place, 1);
            tables.repeat(TRIES, &mut ports);
        }
        return if ports.claimed != 0 { Reason::NewFlow } else { Reason::SourcePorts };
    }
    // The backend that was chosen first, then along the ring. Not by the walk itself: Linux 6.1 verifies a turn by what is known
    // before the first one, and leaves out what only a later one would do.
    if take(key, found, tables, room) {
        return Reason::NewFlow;
    }
    let mut others = Others { service, key, found, tables, room, place: hash % service.places.max(1), claimed: 0 };
    tables.repeat(OTHERS, &mut others);
    if others.claimed != 0 { Reason::NewFlow } else { Reason::ReplyTaken }
}

/// What an entry may be put in the place of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// Of none.
    Nothing,
    /// Of any.
    Anything,
}

/// Inserts the entry that lies in `room` for a new flow; false: another flow has it, or there is no room.
///
/// Over another half-open flow's: that one is lost. If it is established at this very moment by another CPU, either this look
/// finds it, or the new entry is taken out in its place, and then it is the new flow that is lost: its SYN, which has an
/// established connection's ends, is answered by the backend with an ACK that its client can do nothing with.
#[inline(always)]
fn insert<const W: usize, T: Tables>(found: &Found<W>, tables: &T, room: &mut Room<W>, over: Over) -> bool
where
    Address<W>: Family<W>,
{
    if !Address::<W>::insert_reply(tables, found.table, room, over) {
        return false;
    }
    // After the insertion: a flow that goes over from half open to established is in one of the tables at every time, so that
    // either this look or the insertion finds it.
    if found.table == FlowTable::HalfOpen && Address::<W>::reply(tables, FlowTable::Established, room) {
        Address::<W>::remove_reply(tables, found.table, room);
        return false;
    }
    true
}

/// As [`insert`], for a flow whose replies come to its client's own address. The entry may be there already: of a flow of this
/// very tuple that was driven out.
#[inline(always)]
fn take<const W: usize, T: Tables>(key: &Tuple<W>, found: &Found<W>, tables: &T, room: &mut Room<W>) -> bool
where
    Address<W>: Family<W>,
{
    if insert(found, tables, room, Over::Nothing) {
        return true;
    }
    Address::<W>::reply(tables, found.table, room) && room.reply.is_of(key, &found.flow)
}

/// A walk over the sources' ports.
struct Ports<'s, T, const W: usize> {
    service: &'s Service,
    key: &'s Tuple<W>,
    found: &'s mut Found<W>,
    tables: &'s T,
    room: &'s mut Room<W>,
    /// Pairs of source and port.
    all: u32,
    place: u32,
    stride: u32,
    /// Not 0: half-open flows give way. 64 bits, as below.
    over: u64,
    /// Not 0: one was found. 64 bits, as below: the verifier refuses the unaligned stores that narrower ones are merged into.
    claimed: u64,
}

impl<T: Tables, const W: usize> Step for Ports<'_, T, W>
where
    Address<W>: Family<W>,
{
    #[inline(always)]
    fn step(&mut self) -> bool {
        let (source, port) = (self.place / PORTS, FIRST_PORT + (self.place % PORTS) as u16);
        self.place += self.stride;
        if self.place >= self.all {
            self.place -= self.all;
        }
        let Some(address) = self.tables.source(self.service.ring, source) else { return false };
        let (address, port) = (Address::<W>::from_words(address), Be16::new(port));
        (self.found.flow.source, self.found.flow.source_port) = (address, port);
        (self.room.tuple.destination, self.room.tuple.destination_port) = (address, port);
        self.room.reply = Reply::new(self.key, self.found.flow.backend);
        let over = if self.over != 0 { Over::Anything } else { Over::Nothing };
        self.claimed = u64::from(insert(self.found, self.tables, self.room, over));
        self.claimed == 0
    }
}

/// A walk along a ring, to a backend that the client does not talk to yet from this port.
struct Others<'s, T, const W: usize> {
    service: &'s Service,
    key: &'s Tuple<W>,
    found: &'s mut Found<W>,
    tables: &'s T,
    room: &'s mut Room<W>,
    place: u32,
    /// Not 0: one was found.
    claimed: u64,
}

impl<T: Tables, const W: usize> Step for Others<'_, T, W>
where
    Address<W>: Family<W>,
{
    #[inline(always)]
    fn step(&mut self) -> bool {
        let member = choose::with_room(self.service, self.place, self.tables);
        self.place = choose::after(self.service, self.place);
        let Some((slot, backend)) = member else { return true };
        self.found.flow.backend = slot;
        expect(self.key, &self.found.flow, &backend, &mut self.room.tuple);
        self.room.reply = Reply::new(self.key, slot);
        self.claimed = u64::from(take(self.key, self.found, self.tables, self.room));
        self.claimed == 0
    }
}
