//! What the packet path asks of its surroundings: maps and helpers in the kernel, hash maps on the host.

use crate::abi::{Backend, Endpoint, Flow, RuleEntry, RuleSet, Service};
use crate::address::{Address, Ipv4, Ipv6, SocketKey, Tuple};

/// A question to the kernel's routing and neighbour tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteQuery<const W: usize> {
    /// Source address of the rewritten packet.
    pub source: Address<W>,
    /// Destination address of the rewritten packet.
    pub destination: Address<W>,
    /// Protocol number.
    pub protocol: u8,
    /// Length of the IP packet in bytes.
    pub length: u16,
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
        /// Source MAC address.
        source: Mac,
        /// Destination MAC address.
        destination: Mac,
    },
    /// There is a route, but its neighbour has to be resolved first.
    NoNeighbour,
    /// The packet does not fit the next link.
    TooBig,
    /// There is no route, or forwarding is off.
    Unreachable,
}

/// Look-ups and counters of the packet path; methods ending in 4 and 6 are the same for each family.
pub trait Tables {
    /// Number of the rule set in force.
    fn generation(&self) -> u32;
    /// Whether this server has services on the wire at all; constant for a loaded program.
    fn balances(&self) -> bool;
    /// Interface on which the packet came.
    fn interface(&self) -> u32;
    /// Coarse monotonic time in nanoseconds.
    fn now_ns(&self) -> u64;

    /// The flow of a client's tuple.
    fn flow4(&self, key: &Tuple<1>) -> Option<Flow>;
    /// The flow of a client's tuple.
    fn flow6(&self, key: &Tuple<4>) -> Option<Flow>;
    /// Inserts or replaces a flow; false: the table refused it.
    fn insert_flow4(&self, key: &Tuple<1>, flow: &Flow) -> bool;
    /// Inserts or replaces a flow; false: the table refused it.
    fn insert_flow6(&self, key: &Tuple<4>, flow: &Flow) -> bool;

    /// The service at a VIP and port.
    fn service4(&self, key: &SocketKey<1>) -> Option<Service>;
    /// The service at a VIP and port.
    fn service6(&self, key: &SocketKey<4>) -> Option<Service>;
    /// The VIP behind which a backend's endpoint answers.
    fn endpoint4(&self, key: &SocketKey<1>) -> Option<Endpoint>;
    /// The VIP behind which a backend's endpoint answers.
    fn endpoint6(&self, key: &SocketKey<4>) -> Option<Endpoint>;
    /// Takes a service's cursor and moves it on, atomically over all CPUs and both hooks.
    fn advance(&self, slot: u32) -> Option<u64>;
    /// The backend slot at an index of the ring table.
    fn member(&self, index: u32) -> Option<u32>;
    /// A backend by its slot.
    fn backend(&self, slot: u32) -> Option<Backend>;

    /// Class of a source address; 0: no rule names a prefix that holds it.
    fn source_class4(&self, address: Ipv4) -> u32;
    /// Class of a source address; 0: no rule names a prefix that holds it.
    fn source_class6(&self, address: Ipv6) -> u32;
    /// Class of a destination address; 0: no rule names a prefix that holds it.
    fn destination_class4(&self, address: Ipv4) -> u32;
    /// Class of a destination address; 0: no rule names a prefix that holds it.
    fn destination_class6(&self, address: Ipv6) -> u32;
    /// Class of a protocol with its port or type, see `firewall::kind_index`.
    fn kind_class(&self, index: u32) -> u32;
    /// Rules that a source class may match.
    fn source_rules(&self, class: u32) -> Option<&RuleSet>;
    /// Rules that a destination class may match.
    fn destination_rules(&self, class: u32) -> Option<&RuleSet>;
    /// Rules that a protocol class may match.
    fn kind_rules(&self, class: u32) -> Option<&RuleSet>;
    /// What a rule does.
    fn rule(&self, index: u32) -> Option<RuleEntry>;

    /// Whether the packet belongs to a connection of this host: a TCP socket with this tuple that does not
    /// listen, or a connected UDP socket.
    fn own_connection4(&self, tuple: &Tuple<1>) -> bool;
    /// See [`Tables::own_connection4`].
    fn own_connection6(&self, tuple: &Tuple<4>) -> bool;
    /// Next hop by the kernel's tables.
    fn route4(&self, query: &RouteQuery<1>) -> Route;
    /// Next hop by the kernel's tables.
    fn route6(&self, query: &RouteQuery<4>) -> Route;

    /// Counts one packet for a rule's counter slot.
    fn count_rule(&self, counter: u32, bytes: u64);
    /// Counts connections, packets and bytes for a service slot and a backend slot.
    fn count_backend(&self, service: u32, backend: u32, connections: u64, packets: u64, bytes: u64);
}
