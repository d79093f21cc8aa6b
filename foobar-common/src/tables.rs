//! What the packet path asks of its surroundings: maps and helpers in the kernel, hash maps on the host.

use crate::abi::{Backend, BucketKey, Endpoint, Flow, FlowTable, Membership, Service, Stuck};
use crate::address::{Address, Peer, SocketKey, Tuple};
use crate::express::Express;
use crate::generation::{Generation, RuleEntry};
use crate::parse::Headers;
use crate::path::{self, Of};
use crate::reply::{self, Ask, Over, Room};
use crate::verdict::Reason;
use crate::vlan::{Link, Tag};

/// A question to the kernel's routing and neighbour tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteQuery<const W: usize> {
    /// Interface by which the packet has come; that of its VLAN, under a tag.
    pub ingress: u32,
    /// Source address of the rewritten packet.
    pub source: Address<W>,
    /// Destination address of the rewritten packet.
    pub destination: Address<W>,
    /// Protocol number.
    pub protocol: u8,
    /// Length of the IP packet in bytes.
    pub length: u16,
    /// Whether the way may depend on the source. The way to a backend is the same for every client: rules of policy routing
    /// that look at a client's address are not asked for each of them.
    pub by_source: bool,
}

/// A MAC address, its six bytes in the low ones of a little-endian word.
///
/// One register for the verifier, which refuses the unaligned words that six bytes on the stack are copied by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mac(pub u64);

impl Mac {
    /// From the six bytes of a frame.
    #[must_use]
    pub const fn new(b: [u8; 6]) -> Self {
        Self(u64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], 0, 0]))
    }

    /// The six bytes of a frame.
    #[inline(always)]
    #[must_use]
    pub const fn bytes(self) -> [u8; 6] {
        let [a, b, c, d, e, f, ..] = self.0.to_le_bytes();
        [a, b, c, d, e, f]
    }
}

/// The next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Send it out of this interface with these MAC addresses.
    Hop {
        /// Interface index.
        interface: u32,
        /// The tag under which it leaves there.
        tag: Tag,
        /// Source MAC address.
        source: Mac,
        /// Destination MAC address.
        destination: Mac,
        /// Whether it is a router's, and the packet's destination lies behind it.
        gateway: bool,
        /// Longest IP packet that the way takes, in bytes.
        mtu: u16,
    },
    /// There is a route, but its neighbour has to be resolved first.
    NoNeighbour,
    /// The packet does not fit the next link.
    TooBig {
        /// The longest IP packet that does, in bytes.
        mtu: u16,
    },
    /// There is no route, or forwarding is off.
    Unreachable,
}

/// One turn of a loop.
pub trait Step {
    /// Takes it; false: it was the last.
    fn step(&mut self) -> bool;
}

/// Look-ups and counters of the packet path; methods ending in 4 and 6 are the same for each family.
pub trait Tables {
    /// Whether packets of flows whose replies have entries of their own go their whole way here. In the kernel they go on in a
    /// stage, so that no others pay for what these need of the stack and of the verifier's budget.
    const APART: bool = true;

    /// The rules in force; the same for the whole way of a packet.
    fn generation(&self) -> Option<&Generation>;
    /// Interface on which the packet came.
    fn interface(&self) -> u32;
    /// Coarse monotonic time in nanoseconds.
    fn now_ns(&self) -> u64;

    /// See [`path::admit`]; the kernel's is a function that is verified once, whatever the ways to it are.
    fn admit4(&self, work: &mut Of<1>) -> Reason
    where
        Self: Sized,
    {
        path::admit(self, work)
    }
    /// See [`Tables::admit4`].
    fn admit6(&self, work: &mut Of<4>) -> Reason
    where
        Self: Sized,
    {
        path::admit(self, work)
    }

    /// See [`path::assign`]; a function of its own in the kernel, as [`Tables::admit4`] is.
    fn assign4(&self, work: &mut Of<1>) -> Reason
    where
        Self: Sized,
    {
        path::assign(self, work)
    }
    /// See [`Tables::assign4`].
    fn assign6(&self, work: &mut Of<4>) -> Reason
    where
        Self: Sized,
    {
        path::assign(self, work)
    }

    /// See [`reply::answer`]; a function of its own in the kernel, as [`Tables::admit4`] is.
    fn replies4(&self, ask: Ask, work: &mut Of<1>) -> Reason
    where
        Self: Sized,
    {
        reply::answer(ask, self, work)
    }
    /// See [`Tables::replies4`].
    fn replies6(&self, ask: Ask, work: &mut Of<4>) -> Reason
    where
        Self: Sized,
    {
        reply::answer(ask, self, work)
    }

    /// The flow of a client's tuple.
    fn flow4(&self, table: FlowTable, key: &Tuple<1>) -> Option<Flow<1>>;
    /// The flow of a client's tuple.
    fn flow6(&self, table: FlowTable, key: &Tuple<4>) -> Option<Flow<4>>;
    /// Inserts or replaces a flow; false: the table refused it.
    fn insert_flow4(&self, table: FlowTable, key: &Tuple<1>, flow: &Flow<1>) -> bool;
    /// Inserts or replaces a flow; false: the table refused it.
    fn insert_flow6(&self, table: FlowTable, key: &Tuple<4>, flow: &Flow<4>) -> bool;
    /// Changes what a flow's entry says, in its place, if it is still there.
    fn amend_flow4(&self, table: FlowTable, key: &Tuple<1>, flow: &Flow<1>);
    /// See [`Tables::amend_flow4`].
    fn amend_flow6(&self, table: FlowTable, key: &Tuple<4>, flow: &Flow<4>);
    /// Removes a flow.
    fn remove_flow4(&self, table: FlowTable, key: &Tuple<1>);
    /// Removes a flow.
    fn remove_flow6(&self, table: FlowTable, key: &Tuple<4>);

    /// Shows what this CPU may remember of a flow with such a tuple, or of another one in its place; `None`: it remembers nothing.
    fn express4<R>(&self, tuple: &Tuple<1>, look: impl FnOnce(&mut Express<1>) -> R) -> Option<R>;
    /// See [`Tables::express4`].
    fn express6<R>(&self, tuple: &Tuple<4>, look: impl FnOnce(&mut Express<4>) -> R) -> Option<R>;
    /// Another number whenever services, backends or flows have changed by hand: then nothing that was remembered holds.
    fn epoch(&self) -> u32;

    /// The service at a VIP and port.
    fn service4(&self, key: &SocketKey<1>) -> Option<Service>;
    /// The service at a VIP and port.
    fn service6(&self, key: &SocketKey<4>) -> Option<Service>;
    /// What a socket had asked for, when it was given this end.
    fn asked4(&self, peer: &Peer<1>) -> Option<SocketKey<1>>;
    /// See [`Tables::asked4`].
    fn asked6(&self, peer: &Peer<4>) -> Option<SocketKey<4>>;
    /// Remembers what a socket has asked for, and which end it was given.
    fn ask4(&self, peer: &Peer<1>, vip: &SocketKey<1>);
    /// See [`Tables::ask4`].
    fn ask6(&self, peer: &Peer<4>, vip: &SocketKey<4>);
    /// The backend that a socket's datagrams to this VIP go to.
    fn chosen4(&self, peer: &Peer<1>) -> Option<Stuck>;
    /// See [`Tables::chosen4`].
    fn chosen6(&self, peer: &Peer<4>) -> Option<Stuck>;
    /// Remembers it.
    fn choose4(&self, peer: &Peer<1>, stuck: Stuck);
    /// See [`Tables::choose4`].
    fn choose6(&self, peer: &Peer<4>, stuck: Stuck);
    /// The VIP behind which a backend's endpoint answers.
    fn endpoint4(&self, key: &SocketKey<1>) -> Option<Endpoint>;
    /// The VIP behind which a backend's endpoint answers.
    fn endpoint6(&self, key: &SocketKey<4>) -> Option<Endpoint>;
    /// The flow that the reply in `room`, as it comes, belongs to, which is left there; false: none. An entry is in the table of
    /// its flow's kind.
    fn reply4(&self, table: FlowTable, room: &mut Room<1>) -> bool;
    /// See [`Tables::reply4`].
    fn reply6(&self, table: FlowTable, room: &mut Room<4>) -> bool;
    /// Inserts the entry in `room` where none is, or over the one that is there; false: there is one, or no place.
    fn insert_reply4(&self, table: FlowTable, room: &mut Room<1>, over: Over) -> bool;
    /// See [`Tables::insert_reply4`].
    fn insert_reply6(&self, table: FlowTable, room: &mut Room<4>, over: Over) -> bool;
    /// Removes the entry of the reply in `room`.
    fn remove_reply4(&self, table: FlowTable, room: &mut Room<1>);
    /// See [`Tables::remove_reply4`].
    fn remove_reply6(&self, table: FlowTable, room: &mut Room<4>);
    /// A source address (below [`crate::abi::MAX_SOURCES`]) of the service with this ring.
    fn source(&self, ring: u32, index: u32) -> Option<[u32; 4]>;
    /// Takes a service's cursor and moves it on, atomically over all CPUs and both hooks.
    fn advance(&self, slot: u32) -> Option<u64>;
    /// The backend slot at a place (below [`crate::abi::RING_PLACES`]) of a ring.
    fn member(&self, ring: u32, place: usize) -> Option<u32>;
    /// A backend by its slot.
    fn backend(&self, slot: u32) -> Option<Backend>;
    /// Flows from the wire and connections of local sockets that a backend slot has now.
    fn active(&self, slot: u32) -> u64;
    /// Adds to its flows from the wire, atomically.
    fn add_active(&self, slot: u32, change: i64);
    /// A flow from the wire has closed; `refused`: because its backend has not taken it.
    fn flow_closed(&self, slot: u32, refused: bool) {
        self.add_active(slot, -1);
        if refused {
            self.connect_failed(slot);
        }
    }
    /// Counts one connection of a local socket more, atomically; how many of both kinds there were before.
    fn hold(&self, slot: u32) -> u64;
    /// Counts one less.
    fn release(&self, slot: u32);
    /// A backend has not taken a connection.
    fn connect_failed(&self, slot: u32);
    /// It has taken one.
    fn connect_answered(&self, slot: u32);
    /// The backend that a client stays with.
    fn stuck(&self, key: &BucketKey) -> Option<Stuck>;
    /// Has a client stay with a backend.
    fn stick(&self, key: &BucketKey, backend: u32, now_ns: u64);

    /// A word of the named sets' prefix tables.
    fn member_word(&self, index: u32) -> Option<u64>;
    /// What is known of a membership class.
    fn membership(&self, class: u32) -> Option<Membership>;
    /// Takes one from a source's token bucket; false: it is empty. See [`crate::bucket::taken`].
    fn take(&self, key: &BucketKey, interval_ns: u64, burst_ns: u64) -> bool;
    /// TCP connections that a source has open to this host's own sockets.
    fn open_connections(&self, key: &BucketKey) -> u32;

    /// Whether SYNs to listeners of this host are answered with cookies now.
    fn answers_syns(&self) -> bool;
    /// Whether this is one of the SYNs by which floods are seen; by chance, so that nobody can choose the others.
    fn samples_syn(&self) -> bool;
    /// Whether the packet belongs to a connection of this host: a TCP socket with this tuple that does not
    /// listen, or a connected UDP socket.
    fn own_connection4(&self, tuple: &Tuple<1>) -> bool;
    /// See [`Tables::own_connection4`].
    fn own_connection6(&self, tuple: &Tuple<4>) -> bool;
    /// Next hop by the kernel's tables.
    fn route4(&self, query: &RouteQuery<1>) -> Route;
    /// Next hop by the kernel's tables.
    fn route6(&self, query: &RouteQuery<4>) -> Route;

    /// Index of the device of a VLAN; 0: there is none.
    fn vlan(&self, link: &Link) -> u32;
    /// Whether a packet from here would be answered by this interface, on which it came.
    fn routed_back4(&self, source: Address<1>, ingress: u32) -> bool;
    /// See [`Tables::routed_back4`].
    fn routed_back6(&self, source: Address<4>, ingress: u32) -> bool;

    /// Whether this server's lease is over, see [`crate::fence`].
    fn fenced(&self) -> bool;

    /// Takes so many turns at the most. The kernel has a helper for this, so that the verifier sees a turn once.
    fn repeat<S: Step>(&self, times: u32, state: &mut S);
    /// Whether somebody watches: then drops are told, too.
    fn watched(&self) -> bool;
    /// Tells of a packet for which a rule has decided, as often as the rule may.
    fn tell_rule<const W: usize>(&self, headers: &Headers<W>, rule: &RuleEntry, reason: Reason, bytes: u64);
    /// Tells of a packet that is dropped by no rule, as often as its reason may.
    fn tell_drop<const W: usize>(&self, headers: Option<&Headers<W>>, reason: Reason, bytes: u64);
    /// Counts one packet for a rule's counter slot.
    fn count_rule(&self, counter: u32, bytes: u64);
    /// Counts a packet that was put into a tunnel here ([`crate::abi::TUNNEL_SENT`]), or taken out of one
    /// ([`crate::abi::TUNNEL_RECEIVED`]).
    fn count_tunnel(&self, way: u32, bytes: u64);
    /// Counts connections, packets and bytes for a service slot and a backend slot.
    fn count_backend(&self, service: u32, backend: u32, connections: u64, packets: u64, bytes: u64);
}
