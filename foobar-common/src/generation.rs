//! One generation of rules, as one value of a map: user space writes it whole beside the one in force, then one store
//! puts it in force for every interface.
//!
//! Rules are compiled, not walked: each dimension of a packet (source, destination, protocol with port, source port, TCP
//! flags, interface) names a [`RuleSet`] of the rules that may match; their AND is what does.

#[cfg(feature = "std")]
use std::net::IpAddr;

use crate::abi::{MAX_CLASSES, MAX_RULES, RULE_WORDS};
use crate::prefixes::Words;

/// Rule sets of one generation at the most; equal ones are stored once.
pub const MAX_SETS: usize = 8192;
/// Words of the prefix tables of one generation: four roots, and blocks for some ten thousand prefixes.
pub const MAX_WORDS: usize = 1 << 19;
/// Interfaces that the rules of a server may name.
pub const MAX_INTERFACES: usize = 16;
/// Rules that limit or shadow, of one server: they let packets pass on to the rules behind them.
pub const MAX_PASSING: usize = 32;

/// Index of TCP port 0 in the table of protocols.
pub const KIND_TCP: u32 = 0;
/// Index of UDP port 0.
pub const KIND_UDP: u32 = 0x1_0000;
/// Index of ICMP type 0.
pub const KIND_ICMP: u32 = 0x2_0000;
/// Index of ICMPv6 type 0.
pub const KIND_ICMPV6: u32 = KIND_ICMP + 256;
/// Index of IP protocol 0; of the four protocols above only in the other family.
pub const KIND_OTHER: u32 = KIND_ICMPV6 + 256;
/// Entries of the table of protocols.
pub const KINDS: u32 = KIND_OTHER + 256;
/// Entries of the table of source ports: TCP and UDP.
pub const SOURCE_PORTS: u32 = KIND_ICMP;

/// Everything that the firewall knows.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "std", derive(zerocopy::FromZeros, zerocopy::IntoBytes, zerocopy::Immutable))]
#[repr(C)]
pub struct Generation {
    /// What concerns all packets.
    pub head: Head,
    /// The ends of tunnels.
    pub tunnels: Tunnels,
    /// Rule set of each protocol with port or type, see [`KIND_TCP`].
    pub kinds: [u16; KINDS as usize],
    /// Rule set of each source port, UDP's behind TCP's.
    pub source_ports: [u16; SOURCE_PORTS as usize],
    /// Rule set of each combination of the six low TCP flags.
    pub flags: [u16; 64],
    /// Interfaces that rules name.
    pub interfaces: [Interface; MAX_INTERFACES],
    /// Rule set of each membership class of a source.
    pub source_classes: [u16; MAX_CLASSES],
    /// Rule set of each membership class of a destination.
    pub destination_classes: [u16; MAX_CLASSES],
    /// Rules that limit or shadow, in their order.
    pub passing: [u16; MAX_PASSING],
    /// The rules.
    pub rules: [RuleEntry; MAX_RULES],
    /// The rule sets; the first is empty.
    pub sets: [RuleSet; MAX_SETS],
    /// Prefix tables, whose values are rule sets.
    pub words: [u64; MAX_WORDS],
}

impl Tunnels {
    /// None.
    pub const NONE: Self = Self {
        own: [[0; 4]; 2],
        peers: [[0; 4]; MAX_TUNNEL_PEERS],
        vips: [[0; 4]; MAX_TUNNEL_VIPS],
        peer_count: 0,
        vip_count: 0,
    };
}

impl Default for Tunnels {
    fn default() -> Self {
        Self::NONE
    }
}

#[cfg(feature = "std")]
impl Tunnels {
    /// Of a server with these addresses of its own, for the VIPs that these balancers' tunnels reach it at; `None`: there are
    /// more than [`MAX_TUNNEL_PEERS`] or [`MAX_TUNNEL_VIPS`].
    #[must_use]
    pub fn new(own: &[IpAddr], peers: &[IpAddr], vips: &[IpAddr]) -> Option<Self> {
        let mut tunnels = Self::NONE;
        for address in own {
            tunnels.own[usize::from(address.is_ipv6())] = mapped(*address);
        }
        tunnels.peers.get_mut(..peers.len())?.iter_mut().zip(peers).for_each(|(place, peer)| *place = mapped(*peer));
        tunnels.vips.get_mut(..vips.len())?.iter_mut().zip(vips).for_each(|(place, vip)| *place = mapped(*vip));
        (tunnels.peer_count, tunnels.vip_count) = (peers.len() as u32, vips.len() as u32);
        Some(tunnels)
    }
}

/// The words of an address of IPv6, or of one of IPv4 mapped into it.
#[cfg(feature = "std")]
pub(crate) fn mapped(address: IpAddr) -> [u32; 4] {
    let v6 = match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    crate::address::Ipv6::from(v6).0
}

/// What concerns all packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "std", derive(zerocopy::FromZeros, zerocopy::IntoBytes, zerocopy::Immutable))]
#[repr(C)]
pub struct Head {
    /// Number of the generation; flows bear the number that judged them.
    pub number: u32,
    /// Stages and dimensions that this generation needs: `USES_*`.
    pub uses: u32,
    /// Roots of the prefix tables of sources, in [`Generation::words`].
    pub sources: Roots,
    /// The same for destinations.
    pub destinations: Roots,
    /// Roots of the named sets, in their own memory.
    pub members: Roots,
    /// Rule set of interfaces that no rule names.
    pub elsewhere: u32,
    /// Always zero.
    pub _pad: u32,
}

/// Which of the two generations is in force, by the word that says so: bit 0 is its index, the others a coarse monotonic
/// time in nanoseconds from which on it is the other one, because nobody has confirmed the change; 0: never.
#[inline(always)]
#[must_use]
pub fn in_force(control: u64, now_ns: impl FnOnce() -> u64) -> u32 {
    let index = (control & 1) as u32;
    if control > 1 && now_ns() >= control >> 1 { index ^ 1 } else { index }
}

/// The word of [`in_force`].
#[must_use]
pub const fn control(index: u32, revert_at_ns: u64) -> u64 {
    revert_at_ns << 1 | index as u64 & 1
}

/// Roots of a prefix table, one for each family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "std", derive(zerocopy::FromZeros, zerocopy::IntoBytes, zerocopy::Immutable))]
#[repr(C)]
pub struct Roots {
    /// Index of the first word for IPv4.
    pub v4: u32,
    /// Index of the first word for IPv6.
    pub v6: u32,
}

/// [`Head::uses`]: this server has services on the wire.
pub const USES_BALANCER: u32 = 1;
/// [`Head::uses`]: a rule names interfaces.
pub const USES_INTERFACES: u32 = 8;
/// [`Head::uses`]: a rule names a set of sources.
pub const USES_SOURCE_SETS: u32 = 16;
/// [`Head::uses`]: a rule names a set of destinations.
pub const USES_DESTINATION_SETS: u32 = 32;
/// [`Head::uses`]: a rule limits open connections.
pub const USES_OPEN_LIMITS: u32 = 256;
/// [`Head::uses`]: sources must be routed back by the interface they come from.
pub const USES_REVERSE_PATH: u32 = 64;

/// [`Head::uses`]: a rule limits or shadows.
pub const USES_PASSING: u32 = 128;
/// [`Head::uses`]: tunnels end at this server.
pub const USES_TUNNELS: u32 = 512;

/// Servers whose tunnels end at one server, in both families together.
pub const MAX_TUNNEL_PEERS: usize = 16;
/// VIPs that one server is reached at by tunnel, in both families together.
pub const MAX_TUNNEL_VIPS: usize = 64;

/// What a server knows of tunnels. Addresses are of IPv6, those of IPv4 mapped into it (RFC 4291, 2.5.5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "std", derive(zerocopy::FromZeros, zerocopy::IntoBytes, zerocopy::Immutable))]
#[repr(C)]
pub struct Tunnels {
    /// The server's own addresses, of IPv4 and of IPv6: tunnels begin and end there. All zero: it has none.
    pub own: [[u32; 4]; 2],
    /// Addresses of the balancers whose tunnels end here.
    pub peers: [[u32; 4]; MAX_TUNNEL_PEERS],
    /// VIPs that packets inside may be for.
    pub vips: [[u32; 4]; MAX_TUNNEL_VIPS],
    /// Peers in use.
    pub peer_count: u32,
    /// VIPs in use.
    pub vip_count: u32,
}

/// An interface that rules name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "std", derive(zerocopy::FromZeros, zerocopy::IntoBytes, zerocopy::Immutable))]
#[repr(C)]
pub struct Interface {
    /// Interface index; `u32::MAX`: an unused entry.
    pub index: u32,
    /// Its rule set.
    pub set: u32,
}

/// A set of rules as a bitmap; bit `n % 64` of word `n / 64` is rule `n`, if it allows or denies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "std", derive(zerocopy::FromZeros, zerocopy::IntoBytes, zerocopy::Immutable))]
#[repr(C)]
pub struct RuleSet {
    /// Bit `w` is set when word `w` is not zero: 1,000 rules cost what one costs.
    pub summary: u64,
    /// The same for rules that limit or shadow: bit `n` is the one at [`Generation::passing`]`[n]`.
    pub passing: u64,
    /// The bitmap.
    pub words: [u64; RULE_WORDS],
}

/// What a matching rule does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "std", derive(zerocopy::FromZeros, zerocopy::IntoBytes, zerocopy::Immutable))]
#[repr(C)]
pub struct RuleEntry {
    /// [`RULE_DENY`], [`RULE_ALLOW`] or [`RULE_LIMIT`].
    pub action: u8,
    /// 1: counts and tells what it would do, and does nothing.
    pub shadow: u8,
    /// [`LIMIT_PACKETS`], [`LIMIT_CONNECTIONS`] or [`LIMIT_OPEN`]; only for [`RULE_LIMIT`].
    pub limit: u8,
    /// Length of the IPv4 prefix whose addresses share a limit.
    pub per4: u8,
    /// The same for IPv6.
    pub per6: u8,
    /// 1: what it allows is dropped while the fence is up, see [`crate::fence`]; only for [`RULE_ALLOW`].
    pub leased: u8,
    /// Always zero.
    pub _pad: [u8; 2],
    /// Slot of the rule's counter, which its name keeps over reloads.
    pub counter: u32,
    /// Open connections at the most.
    pub open: u32,
    /// Time that one packet or connection takes from a limit, in nanoseconds.
    pub interval_ns: u64,
    /// Time that a burst may take at once, in nanoseconds.
    pub burst_ns: u64,
    /// Time between two events of this rule, in nanoseconds; 0: it tells nothing.
    pub log_interval_ns: u64,
    /// Rules that limit or shadow in front of this one, as in [`RuleSet::passing`].
    pub passing_before: u64,
}

/// [`RuleEntry::action`]: the packet is dropped.
pub const RULE_DENY: u8 = 0;
/// [`RuleEntry::action`]: the packet is accepted.
pub const RULE_ALLOW: u8 = 1;
/// [`RuleEntry::action`]: the packet is dropped above the limit, else the next rule is asked.
pub const RULE_LIMIT: u8 = 2;

/// [`RuleEntry::limit`]: packets in a time.
pub const LIMIT_PACKETS: u8 = 1;
/// [`RuleEntry::limit`]: new TCP connections in a time.
pub const LIMIT_CONNECTIONS: u8 = 2;
/// [`RuleEntry::limit`]: TCP connections open at one time.
pub const LIMIT_OPEN: u8 = 3;

const _: () = assert!(size_of::<RuleSet>() == 144 && size_of::<RuleEntry>() == 48 && size_of::<Head>() == 40);
const _: () = assert!(size_of::<Tunnels>() == 1320);
const _: () = assert!(MAX_SETS.is_power_of_two() && MAX_WORDS.is_power_of_two() && MAX_CLASSES.is_power_of_two());

impl Generation {
    /// Whether a stage or dimension is needed.
    #[inline(always)]
    #[must_use]
    pub const fn uses(&self, what: u32) -> bool {
        self.head.uses & what != 0
    }

    /// A rule set by its index.
    #[inline(always)]
    #[must_use]
    pub const fn set(&self, index: u32) -> &RuleSet {
        &self.sets[index as usize & (MAX_SETS - 1)]
    }

    /// A rule by its index.
    #[inline(always)]
    #[must_use]
    pub const fn rule(&self, index: u32) -> &RuleEntry {
        &self.rules[index as usize & (MAX_RULES - 1)]
    }

    /// Index of the rule set of a packet's interface.
    #[inline(always)]
    #[must_use]
    pub fn interface_set(&self, interface: u32) -> u32 {
        let mut set = self.head.elsewhere;
        if self.uses(USES_INTERFACES) {
            for named in &self.interfaces {
                set = if named.index == interface { named.set } else { set };
            }
        }
        set
    }
}

impl Words for Generation {
    #[inline(always)]
    fn word(&self, index: u32) -> Option<u64> {
        Some(self.words[index as usize & (MAX_WORDS - 1)])
    }
}
