//! Internet checksums: on the wire (RFC 1071) and changed in place (RFC 1624).

use crate::packet::Packet;

/// A running one's-complement sum of 16-bit words in network byte order, taken as native words.
///
/// One's-complement sums do not depend on byte order (RFC 1071, 2.B), so packet bytes are added as they lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// An empty sum.
    #[inline(always)]
    #[must_use]
    pub const fn new() -> Self {
        Self(0)
    }

    /// Adds a 16-bit word as it lies in the packet.
    #[inline(always)]
    #[must_use]
    pub const fn add16(self, word: u16) -> Self {
        Self(self.0 + word as u64)
    }

    /// Adds a 32-bit word as it lies in the packet.
    #[inline(always)]
    #[must_use]
    pub const fn add32(self, word: u32) -> Self {
        Self(self.0 + (word as u64 & 0xffff) + (word as u64 >> 16))
    }

    /// Adds what another sum has.
    #[inline(always)]
    #[must_use]
    pub const fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// Notes that a 16-bit word changes (RFC 1624, equation 3).
    #[inline(always)]
    #[must_use]
    pub const fn change16(self, old: u16, new: u16) -> Self {
        self.add16(!old).add16(new)
    }

    /// Notes that a 32-bit word changes.
    #[inline(always)]
    #[must_use]
    pub const fn change32(self, old: u32, new: u32) -> Self {
        self.add32(!old).add32(new)
    }

    /// Notes that an address changes.
    #[inline(always)]
    #[must_use]
    pub const fn change_address<const W: usize>(mut self, old: [u32; W], new: [u32; W]) -> Self {
        let mut word = 0;
        while word < W {
            self = self.change32(old[word], new[word]);
            word += 1;
        }
        self
    }

    /// Folded to 16 bits, as a word in network byte order: what [`Sum::add16`] goes on from.
    // Three folds suffice for every sum of fewer than 2^32 words.
    #[inline(always)]
    #[must_use]
    pub const fn folded(self) -> u16 {
        let sum = (self.0 & 0xffff) + (self.0 >> 16);
        let sum = (sum & 0xffff) + (sum >> 16);
        ((sum & 0xffff) + (sum >> 16)) as u16
    }

    /// The checksum of what was added, as it lies in the packet.
    #[inline(always)]
    #[must_use]
    pub const fn checksum(self) -> [u8; 2] {
        (!self.folded()).to_ne_bytes()
    }

    /// `checksum` after the changes that were noted (RFC 1624, equation 3: HC' = ~(~HC + ~m + m')).
    #[inline(always)]
    #[must_use]
    pub const fn applied_to(self, checksum: [u8; 2]) -> [u8; 2] {
        self.add16(!u16::from_ne_bytes(checksum)).checksum()
    }

    /// The same for UDP, where a computed zero is sent as ones, and zero, where it may be, is no checksum and stays (RFC 768).
    #[inline(always)]
    #[must_use]
    pub const fn applied_to_udp(self, checksum: [u8; 2], may_be_absent: bool) -> [u8; 2] {
        if may_be_absent && u16::from_ne_bytes(checksum) == 0 {
            return checksum;
        }
        match self.applied_to(checksum) {
            [0, 0] => [0xff, 0xff],
            new => new,
        }
    }
}

/// Stores a word as it lies in the packet, and adds it to the sum.
#[inline(always)]
pub(crate) fn put<P: Packet>(packet: &mut P, at: usize, word: u32, sum: Sum) -> Option<Sum> {
    packet.store(at, word.to_ne_bytes())?;
    Some(sum.add32(word))
}

/// The checksum of `bytes` from scratch; an odd last byte is padded with zero.
#[cfg(feature = "std")]
#[must_use]
pub fn of(bytes: &[u8]) -> [u8; 2] {
    let (words, rest) = bytes.as_chunks::<2>();
    let sum = words.iter().fold(Sum::new(), |sum, word| sum.add16(u16::from_ne_bytes(*word)));
    sum.add16(rest.first().map_or(0, |last| u16::from_ne_bytes([*last, 0]))).checksum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn example_of_rfc_1071() {
        assert_eq!(of(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), (!0xddf2_u16).to_be_bytes());
    }

    proptest! {
        #[test]
        fn incremental_equals_full(mut bytes in prop::collection::vec(any::<u8>(), 8..80), at in 0_usize..4, new: u32) {
            // A header is never all zeroes, the one case in which RFC 1624 differs from recomputation.
            bytes[6] |= 1;
            let old = u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
            let aligned = at % 2 == 0 && at + 4 <= 6;
            prop_assume!(aligned);
            let before = of(&bytes);
            bytes[at..at + 4].copy_from_slice(&new.to_ne_bytes());
            prop_assert_eq!(Sum::new().change32(old, new).applied_to(before), of(&bytes));
        }

        #[test]
        fn a_sum_over_data_and_checksum_is_zero(mut bytes in prop::collection::vec(any::<u8>(), 1..80)) {
            if bytes.len() % 2 == 1 { bytes.push(0); }
            let checksum = of(&bytes);
            bytes.extend(checksum);
            prop_assert_eq!(of(&bytes), [0, 0]);
        }
    }
}
