//! Addresses and ports as they lie in a packet, and the two address families.

use crate::abi::{Backend, Endpoint, Flow, FlowTable, Service, Stuck};
use crate::express::Express;
use crate::generation::Roots;
use crate::packet::Packet;
use crate::parse::Headers;
use crate::path::Of;
use crate::prefixes::{Words, look_up4, look_up6};
use crate::reply::{Ask, Over, Room};
use crate::tables::{Route, RouteQuery, Tables};
use crate::verdict::Reason;

/// A 16-bit number in network byte order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "std", derive(zerocopy::FromBytes, zerocopy::KnownLayout, zerocopy::Immutable))]
#[repr(transparent)]
pub struct Be16(u16);

impl Be16 {
    /// From host byte order.
    #[must_use]
    pub const fn new(host: u16) -> Self {
        Self(host.to_be())
    }

    /// From two bytes of a packet.
    #[inline(always)]
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 2]) -> Self {
        Self(u16::from_ne_bytes(bytes))
    }

    /// The two bytes of a packet.
    #[inline(always)]
    #[must_use]
    pub const fn bytes(self) -> [u8; 2] {
        self.0.to_ne_bytes()
    }

    /// Whether both are the same, also where constants are evaluated.
    #[inline(always)]
    #[must_use]
    pub const fn is(self, other: Self) -> bool {
        self.0 == other.0
    }

    /// In host byte order.
    #[inline(always)]
    #[must_use]
    pub const fn host(self) -> u16 {
        u16::from_be(self.0)
    }
}

/// An address of `W` 32-bit words, each in network byte order as it lies in a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Address<const W: usize>(pub [u32; W]);

impl<const W: usize> Address<W> {
    /// Whether both are the same: word by word, because a comparison of arrays would be a call.
    #[inline(always)]
    #[must_use]
    pub const fn is(&self, other: &Self) -> bool {
        let (mut differs, mut word) = (0, 0);
        while word < W {
            differs |= self.0[word] ^ other.0[word];
            word += 1;
        }
        differs == 0
    }
}

/// An IPv4 address.
pub type Ipv4 = Address<1>;
/// An IPv6 address.
pub type Ipv6 = Address<4>;

impl Ipv4 {
    /// From four bytes of a packet.
    #[inline(always)]
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 4]) -> Self {
        Self([u32::from_ne_bytes(bytes)])
    }

    /// The four bytes of a packet.
    #[inline(always)]
    #[must_use]
    pub const fn bytes(self) -> [u8; 4] {
        self.0[0].to_ne_bytes()
    }
}

impl Ipv6 {
    /// From sixteen bytes of a packet.
    #[inline(always)]
    #[must_use]
    pub const fn from_bytes(b: [u8; 16]) -> Self {
        Self([
            u32::from_ne_bytes([b[0], b[1], b[2], b[3]]),
            u32::from_ne_bytes([b[4], b[5], b[6], b[7]]),
            u32::from_ne_bytes([b[8], b[9], b[10], b[11]]),
            u32::from_ne_bytes([b[12], b[13], b[14], b[15]]),
        ])
    }

    /// The sixteen bytes of a packet.
    #[inline(always)]
    #[must_use]
    pub const fn bytes(self) -> [u8; 16] {
        let [a, b, c, d] =
            [self.0[0].to_ne_bytes(), self.0[1].to_ne_bytes(), self.0[2].to_ne_bytes(), self.0[3].to_ne_bytes()];
        [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3], c[0], c[1], c[2], c[3], d[0], d[1], d[2], d[3]]
    }
}

/// What names a connection: addresses, ports and protocol of one direction. 16 bytes for IPv4, 40 for IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Tuple<const W: usize> {
    /// Source address.
    pub source: Address<W>,
    /// Destination address.
    pub destination: Address<W>,
    /// Source port; 0 where the protocol has none.
    pub source_port: Be16,
    /// Destination port; 0 where the protocol has none.
    pub destination_port: Be16,
    /// IANA protocol number.
    pub protocol: u8,
    /// Always zero: the tuple is a map key.
    pub _pad: u8,
    /// Always zero, and apart from the byte before: three bytes at once would be set by a call.
    pub _pad_more: u16,
}

impl<const W: usize> Tuple<W> {
    /// From source and destination.
    #[inline(always)]
    #[must_use]
    pub const fn new(
        (source, destination): (Address<W>, Address<W>),
        (source_port, destination_port): (Be16, Be16),
        protocol: u8,
    ) -> Self {
        Self { source, destination, source_port, destination_port, protocol, _pad: 0, _pad_more: 0 }
    }

    /// Both ports as they lie in a packet, the source's first: a word for hashes and comparisons.
    #[inline(always)]
    #[must_use]
    pub const fn ports(&self) -> u32 {
        self.source_port.0 as u32 | (self.destination_port.0 as u32) << 16
    }
}

/// One end of a connection: address, port and protocol. 8 bytes for IPv4, 20 for IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct SocketKey<const W: usize> {
    /// Address.
    pub address: Address<W>,
    /// Port.
    pub port: Be16,
    /// IANA protocol number.
    pub protocol: u8,
    /// Always zero: it is a map key.
    pub _pad: u8,
}

impl<const W: usize> SocketKey<W> {
    /// A key with its padding zeroed.
    #[inline(always)]
    #[must_use]
    pub const fn new(address: Address<W>, port: Be16, protocol: u8) -> Self {
        Self { address, port, protocol, _pad: 0 }
    }
}

const _: () = assert!(size_of::<Tuple<1>>() == 16 && size_of::<Tuple<4>>() == 40);
const _: () = assert!(size_of::<SocketKey<1>>() == 8 && size_of::<SocketKey<4>>() == 20);

/// Look-ups that each family has its own tables for.
///
/// A local socket, and an end that it talks to. 16 bytes for IPv4, 28 for IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Peer<const W: usize> {
    /// The kernel's cookie of the socket, its low half first: in halves, so that IPv6 needs no padding.
    pub socket: [u32; 2],
    /// The other end.
    pub end: SocketKey<W>,
}

impl<const W: usize> Peer<W> {
    /// Of a socket's cookie.
    #[inline(always)]
    #[must_use]
    pub const fn new(cookie: u64, end: SocketKey<W>) -> Self {
        Self { socket: [cookie as u32, (cookie >> 32) as u32], end }
    }
}

/// Implemented for `Ipv4` and `Ipv6`, so that every stage is written once.
pub trait Family<const W: usize> {
    /// See [`Tables::admit4`].
    fn admit<T: Tables>(tables: &T, work: &mut Of<W>) -> Reason;
    /// See [`Tables::assign4`].
    fn assign<T: Tables>(tables: &T, work: &mut Of<W>) -> Reason;
    /// See [`Tables::replies4`].
    fn replies<T: Tables>(tables: &T, ask: Ask, work: &mut Of<W>) -> Reason;
    /// See [`Tables::flow4`].
    fn flow<T: Tables>(tables: &T, table: FlowTable, key: &Tuple<W>) -> Option<Flow<W>>;
    /// See [`Tables::insert_flow4`].
    fn insert_flow<T: Tables>(tables: &T, table: FlowTable, key: &Tuple<W>, flow: &Flow<W>) -> bool;
    /// See [`Tables::amend_flow4`].
    fn amend_flow<T: Tables>(tables: &T, table: FlowTable, key: &Tuple<W>, flow: &Flow<W>);
    /// See [`Tables::remove_flow4`].
    fn remove_flow<T: Tables>(tables: &T, table: FlowTable, key: &Tuple<W>);
    /// See [`Tables::express4`].
    fn express<T: Tables, R>(tables: &T, tuple: &Tuple<W>, look: impl FnOnce(&mut Express<W>) -> R) -> Option<R>;
    /// See [`Tables::service4`].
    fn service<T: Tables>(tables: &T, key: &SocketKey<W>) -> Option<Service>;
    /// See [`Tables::asked4`].
    fn asked<T: Tables>(tables: &T, peer: &Peer<W>) -> Option<SocketKey<W>>;
    /// See [`Tables::ask4`].
    fn ask<T: Tables>(tables: &T, peer: &Peer<W>, vip: &SocketKey<W>);
    /// See [`Tables::chosen4`].
    fn chosen<T: Tables>(tables: &T, peer: &Peer<W>) -> Option<Stuck>;
    /// See [`Tables::choose4`].
    fn choose<T: Tables>(tables: &T, peer: &Peer<W>, stuck: Stuck);
    /// See [`Tables::endpoint4`].
    fn endpoint<T: Tables>(tables: &T, key: &SocketKey<W>) -> Option<Endpoint>;
    /// Value of the longest prefix that holds an address.
    fn look_up<D: Words>(words: &D, roots: Roots, address: Address<W>) -> u32;
    /// Membership class of an address.
    fn member<T: Tables>(tables: &T, roots: Roots, address: Address<W>) -> u32 {
        Self::look_up(&Members(tables), roots, address)
    }
    /// The first `length` bits of an address, IPv4 in the first word.
    fn masked(address: Address<W>, length: u8) -> [u32; 4];
    /// See [`Tables::routed_back4`]; a link-local source is at home on every interface.
    fn routed_back<T: Tables>(tables: &T, headers: &Headers<W>) -> bool;
    /// See [`Tables::own_connection4`].
    fn own_connection<T: Tables>(tables: &T, tuple: &Tuple<W>) -> bool;
    /// See [`Tables::route4`].
    fn route<T: Tables>(tables: &T, query: &RouteQuery<W>) -> Route;
    /// See [`Tables::reply4`].
    fn reply<T: Tables>(tables: &T, table: FlowTable, room: &mut Room<W>) -> bool;
    /// See [`Tables::insert_reply4`].
    fn insert_reply<T: Tables>(tables: &T, table: FlowTable, room: &mut Room<W>, over: Over) -> bool;
    /// See [`Tables::remove_reply4`].
    fn remove_reply<T: Tables>(tables: &T, table: FlowTable, room: &mut Room<W>);
    /// Writes an address into a packet.
    fn store<P: Packet>(&self, packet: &mut P, offset: usize) -> Option<()>;
    /// An address as table values hold it, which is of this family because its service is.
    fn from_words(words: [u32; 4]) -> Address<W>;
    /// The address of a backend.
    fn backend_address(backend: &Backend) -> Address<W> {
        Self::from_words(backend.address)
    }
    /// The VIP of an endpoint.
    fn vip(endpoint: &Endpoint) -> Address<W> {
        Self::from_words(endpoint.vip)
    }
}

/// The named sets' prefix tables.
struct Members<'t, T>(&'t T);

impl<T: Tables> Words for Members<'_, T> {
    #[inline(always)]
    fn word(&self, index: u32) -> Option<u64> {
        self.0.member_word(index)
    }
}

/// The first `length` of the 32 bits of a word in network byte order.
#[inline(always)]
const fn first_bits(word: u32, length: u8) -> u32 {
    if length >= 32 { word } else { word & (!(u32::MAX >> length)).to_be() }
}

macro_rules! family {
    ($words:literal, $admit:ident, $assign:ident, $replies:ident, $flow:ident, $insert:ident, $amend:ident, $remove:ident, $express:ident, $service:ident, $asked:ident, $ask:ident, $chosen:ident, $choose:ident, $endpoint:ident, $reply:ident, $insert_reply:ident, $remove_reply:ident, $own:ident, $route:ident,
     $back:ident, $root:ident, $look_up:ident, $address:expr, $link_local:expr, $masked:expr) => {
        impl Family<$words> for Address<$words> {
            #[inline(always)]
            fn admit<T: Tables>(tables: &T, work: &mut Of<$words>) -> Reason {
                tables.$admit(work)
            }
            #[inline(always)]
            fn assign<T: Tables>(tables: &T, work: &mut Of<$words>) -> Reason {
                tables.$assign(work)
            }
            #[inline(always)]
            fn replies<T: Tables>(tables: &T, ask: Ask, work: &mut Of<$words>) -> Reason {
                tables.$replies(ask, work)
            }
            #[inline(always)]
            fn flow<T: Tables>(tables: &T, table: FlowTable, key: &Tuple<$words>) -> Option<Flow<$words>> {
                tables.$flow(table, key)
            }
            #[inline(always)]
            fn insert_flow<T: Tables>(tables: &T, table: FlowTable, key: &Tuple<$words>, flow: &Flow<$words>) -> bool {
                tables.$insert(table, key, flow)
            }
            #[inline(always)]
            fn amend_flow<T: Tables>(tables: &T, table: FlowTable, key: &Tuple<$words>, flow: &Flow<$words>) {
                tables.$amend(table, key, flow);
            }
            #[inline(always)]
            fn remove_flow<T: Tables>(tables: &T, table: FlowTable, key: &Tuple<$words>) {
                tables.$remove(table, key);
            }
            #[inline(always)]
            fn express<T: Tables, R>(
                tables: &T,
                tuple: &Tuple<$words>,
                look: impl FnOnce(&mut Express<$words>) -> R,
            ) -> Option<R> {
                tables.$express(tuple, look)
            }
            #[inline(always)]
            fn service<T: Tables>(tables: &T, key: &SocketKey<$words>) -> Option<Service> {
                tables.$service(key)
            }
            #[inline(always)]
            fn asked<T: Tables>(tables: &T, peer: &Peer<$words>) -> Option<SocketKey<$words>> {
                tables.$asked(peer)
            }
            #[inline(always)]
            fn ask<T: Tables>(tables: &T, peer: &Peer<$words>, vip: &SocketKey<$words>) {
                tables.$ask(peer, vip);
            }
            #[inline(always)]
            fn chosen<T: Tables>(tables: &T, peer: &Peer<$words>) -> Option<Stuck> {
                tables.$chosen(peer)
            }
            #[inline(always)]
            fn choose<T: Tables>(tables: &T, peer: &Peer<$words>, stuck: Stuck) {
                tables.$choose(peer, stuck);
            }
            #[inline(always)]
            fn endpoint<T: Tables>(tables: &T, key: &SocketKey<$words>) -> Option<Endpoint> {
                tables.$endpoint(key)
            }
            #[inline(always)]
            fn look_up<D: Words>(words: &D, roots: Roots, address: Self) -> u32 {
                $look_up(words, roots.$root, address)
            }
            #[inline(always)]
            fn masked(address: Self, length: u8) -> [u32; 4] {
                $masked(address, length)
            }
            #[inline(always)]
            fn routed_back<T: Tables>(tables: &T, headers: &Headers<$words>) -> bool {
                $link_local(headers.tuple.source) || tables.$back(headers.tuple.source, headers.ingress.device)
            }
            #[inline(always)]
            fn own_connection<T: Tables>(tables: &T, tuple: &Tuple<$words>) -> bool {
                tables.$own(tuple)
            }
            #[inline(always)]
            fn route<T: Tables>(tables: &T, query: &RouteQuery<$words>) -> Route {
                tables.$route(query)
            }
            #[inline(always)]
            fn reply<T: Tables>(tables: &T, table: FlowTable, room: &mut Room<$words>) -> bool {
                tables.$reply(table, room)
            }
            #[inline(always)]
            fn insert_reply<T: Tables>(tables: &T, table: FlowTable, room: &mut Room<$words>, over: Over) -> bool {
                tables.$insert_reply(table, room, over)
            }
            #[inline(always)]
            fn remove_reply<T: Tables>(tables: &T, table: FlowTable, room: &mut Room<$words>) {
                tables.$remove_reply(table, room);
            }
            #[inline(always)]
            fn store<P: Packet>(&self, packet: &mut P, offset: usize) -> Option<()> {
                packet.store::<{ 4 * $words }>(offset, self.bytes())
            }
            #[inline(always)]
            fn from_words(words: [u32; 4]) -> Self {
                $address(words)
            }
        }
    };
}

family!(
    1,
    admit4,
    assign4,
    replies4,
    flow4,
    insert_flow4,
    amend_flow4,
    remove_flow4,
    express4,
    service4,
    asked4,
    ask4,
    chosen4,
    choose4,
    endpoint4,
    reply4,
    insert_reply4,
    remove_reply4,
    own_connection4,
    route4,
    routed_back4,
    v4,
    look_up4,
    |words: [u32; 4]| Address([words[0]]),
    // 0.0.0.0, of a host that asks for its address, and 169.254.0.0/16.
    |source: Ipv4| source.0[0] == 0 || matches!(source.bytes(), [169, 254, ..]),
    |address: Ipv4, length| [first_bits(address.0[0], length), 0, 0, 0]
);
family!(
    4,
    admit6,
    assign6,
    replies6,
    flow6,
    insert_flow6,
    amend_flow6,
    remove_flow6,
    express6,
    service6,
    asked6,
    ask6,
    chosen6,
    choose6,
    endpoint6,
    reply6,
    insert_reply6,
    remove_reply6,
    own_connection6,
    route6,
    routed_back6,
    v6,
    look_up6,
    Address,
    // The unspecified address of duplicate detection, and fe80::/10.
    |source: Ipv6| source.0 == [0; 4] || u32::from_be(source.0[0]) >> 22 == 0xfe80 >> 6,
    |address: Ipv6, length: u8| [
        first_bits(address.0[0], length),
        first_bits(address.0[1], length.saturating_sub(32)),
        first_bits(address.0[2], length.saturating_sub(64)),
        first_bits(address.0[3], length.saturating_sub(96)),
    ]
);

#[cfg(feature = "std")]
mod host {
    use super::{Address, Ipv4, Ipv6};

    impl From<std::net::Ipv4Addr> for Ipv4 {
        fn from(address: std::net::Ipv4Addr) -> Self {
            Self::from_bytes(address.octets())
        }
    }

    impl From<std::net::Ipv6Addr> for Ipv6 {
        fn from(address: std::net::Ipv6Addr) -> Self {
            Self::from_bytes(address.octets())
        }
    }

    impl From<Ipv4> for std::net::IpAddr {
        fn from(address: Ipv4) -> Self {
            Self::from(address.bytes())
        }
    }

    impl From<Ipv6> for std::net::IpAddr {
        fn from(address: Ipv6) -> Self {
            Self::from(address.bytes())
        }
    }

    /// The words of an address as table values hold them: IPv4 in the first word.
    #[must_use]
    pub fn words(address: std::net::IpAddr) -> [u32; 4] {
        match address {
            std::net::IpAddr::V4(v4) => [Address::<1>::from(v4).0[0], 0, 0, 0],
            std::net::IpAddr::V6(v6) => Address::<4>::from(v6).0,
        }
    }
}

#[cfg(feature = "std")]
pub use host::words;
