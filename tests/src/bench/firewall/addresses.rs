//! The addresses of the bench: members of lists and sets, strangers beside them, spread so that neighbours in time are far apart.
//!
//! The n-th address is a golden part of the range further than the one before it. So 65,536 of them in turn touch as many
//! different places of any table, and a table's cache lines are cold when their turn comes again.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

use crate::bpf::code::{self, Instruction, op};

/// How the source address of packets goes round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cycle {
    /// So many addresses in turn.
    pub(super) period: u32,
    /// Whether they are members.
    pub(super) who: Who,
}

/// Whose addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    /// Those that lists and sets hold.
    Members,
    /// Those that none holds.
    Strangers,
}

impl Who {
    /// The address with this number.
    pub(super) const fn address(self, number: u32) -> Ipv4Addr {
        let spread = number.wrapping_mul(GOLDEN) & RANGE;
        let (high, low) = (spread >> 8, spread & 0xff);
        Ipv4Addr::from_bits(self.base() + (high << 9 | low))
    }

    /// 16.0.0.0 to 79.255.255.255; of each two blocks of 256 addresses the first is the members'.
    const fn base(self) -> u32 {
        match self {
            Self::Members => 16 << 24,
            Self::Strangers => 16 << 24 | 1 << 8,
        }
    }
}

/// A set's prefix with this number: three addresses, then a block of 256; it holds the member with the same number.
pub(super) fn prefix(number: u32) -> IpNet {
    let address = Who::Members.address(number);
    if number % 4 < 3 {
        return IpNet::from(IpAddr::V4(address));
    }
    IpNet::V4(Ipv4Net::new_assert(address, 24).trunc())
}

/// Instructions that turn the number in register 5 into an address as the packet has it, like [`Who::address`]; 4 is lost.
pub(super) fn choose(cycle: Cycle) -> Vec<Instruction> {
    vec![
        op(code::MODULO, 5, 0, 0, cycle.period.cast_signed()),
        op(code::MULTIPLY_32, 5, 0, 0, GOLDEN.cast_signed()),
        op(code::AND, 5, 0, 0, RANGE.cast_signed()),
        op(code::MOV_REGISTER, 4, 5, 0, 0),
        op(code::AND, 4, 0, 0, 0xff),
        op(code::SHIFT_RIGHT, 5, 0, 0, 8),
        op(code::SHIFT_LEFT, 5, 0, 0, 9),
        op(code::OR_REGISTER, 5, 4, 0, 0),
        op(code::ADD, 5, 0, 0, cycle.who.base().cast_signed()),
    ]
}

/// Bits of a number's place in the range.
const RANGE: u32 = (1 << 29) - 1;
/// The golden part of the range; odd, so that no place comes twice.
const GOLDEN: u32 = 0x13c6_ef37;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_million_prefixes_are_distinct_and_hold_their_members_alone() {
        let prefixes: Vec<IpNet> = (0..1_000_000).map(prefix).collect();
        let all: HashSet<IpNet> = prefixes.iter().copied().collect();
        assert_eq!(all.len(), prefixes.len());
        for number in (0..1_000_000).step_by(997) {
            let member = IpAddr::V4(Who::Members.address(number));
            assert!(prefixes[number as usize].contains(&member));
            let stranger = IpAddr::V4(Who::Strangers.address(number));
            assert!(!all.contains(&IpNet::from(stranger)));
            let block = IpNet::new(stranger, 24).expect("a prefix").trunc();
            assert!(!all.contains(&block), "{block}");
        }
    }
}
