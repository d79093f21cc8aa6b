//! Prefixes with their own values, in the order that a table is built from.

use std::collections::{BTreeMap, btree_map};

use ipnet::IpNet;

/// A prefix: its first address from the top of 128 bits on (IPv4: the upper 32), then its length.
///
/// In this order a prefix comes after those that hold it and before those that it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) bits: u128,
    pub(super) length: u8,
}

impl Key {
    fn new(prefix: IpNet) -> Self {
        let bits = match prefix {
            IpNet::V4(v4) => (v4.network().to_bits() as u128) << 96,
            IpNet::V6(v6) => v6.network().to_bits(),
        };
        Self { bits, length: prefix.prefix_len() }
    }

    /// The prefix of this one's first bits.
    fn parent(self, length: u8) -> Self {
        Self { bits: self.bits & !Self::low(length), length }
    }

    /// After every prefix that this one holds.
    fn last(self) -> Self {
        Self { bits: self.bits | Self::low(self.length), length: 128 }
    }

    /// The bits past a prefix of this length.
    fn low(length: u8) -> u128 {
        u128::MAX.checked_shr(length.into()).unwrap_or(0)
    }
}

/// The prefixes of one family.
#[derive(Clone, Debug)]
pub(super) struct Family {
    own: BTreeMap<Key, u32>,
    /// Number of prefixes by length, so that the look-up of holders skips the lengths that do not occur.
    lengths: [u32; 129],
}

impl Family {
    const fn new() -> Self {
        Self { own: BTreeMap::new(), lengths: [0; 129] }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Key, u32)> {
        self.own.iter().map(|(&key, &own)| (key, own))
    }

    /// The prefixes that this one holds, without itself.
    pub(super) fn within(&self, key: Key) -> impl Iterator<Item = (Key, u32)> {
        // Shorter prefixes with the same first address come before the key.
        self.own.range(key..=key.last()).filter(move |(within, _)| **within != key).map(|(&key, &own)| (key, own))
    }

    /// The value of a prefix with those that hold it.
    pub(super) fn value(&self, key: Key, combine: &mut impl FnMut(u32, u32) -> u32) -> u32 {
        let occurs = |length: &u8| self.lengths[usize::from(*length)] != 0;
        let holders = (0..=key.length).filter(occurs).filter_map(|length| self.own.get(&key.parent(length)));
        holders.fold(0, |inherited, &own| combine(inherited, own))
    }

    /// Sets or removes the own value of a prefix and returns the one before.
    pub(super) fn set(&mut self, key: Key, own: Option<u32>) -> Option<u32> {
        let count = &mut self.lengths[usize::from(key.length)];
        match (self.own.entry(key), own) {
            (btree_map::Entry::Occupied(mut entry), Some(own)) => Some(entry.insert(own)),
            (btree_map::Entry::Occupied(entry), None) => {
                *count -= 1;
                Some(entry.remove())
            }
            (btree_map::Entry::Vacant(entry), Some(own)) => {
                *count += 1;
                entry.insert(own);
                None
            }
            (btree_map::Entry::Vacant(_), None) => None,
        }
    }
}

/// Prefixes of both families with their own values.
#[derive(Clone, Debug)]
pub struct Prefixes {
    pub(super) v4: Family,
    pub(super) v6: Family,
}

impl Prefixes {
    /// No prefixes.
    #[must_use]
    pub const fn new() -> Self {
        Self { v4: Family::new(), v6: Family::new() }
    }

    /// The own value of a prefix; host bits do not count.
    #[must_use]
    pub fn get(&self, prefix: IpNet) -> Option<u32> {
        let family = if prefix.addr().is_ipv4() { &self.v4 } else { &self.v6 };
        family.own.get(&Key::new(prefix)).copied()
    }

    /// Sets the own value of a prefix and returns the one before; host bits do not count.
    pub fn insert(&mut self, prefix: IpNet, own: u32) -> Option<u32> {
        let (family, key) = self.family(prefix);
        family.set(key, Some(own))
    }

    /// Removes a prefix and returns its own value; host bits do not count.
    pub fn remove(&mut self, prefix: IpNet) -> Option<u32> {
        let (family, key) = self.family(prefix);
        family.set(key, None)
    }

    /// Number of prefixes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.v4.own.len() + self.v6.own.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn family(&mut self, prefix: IpNet) -> (&mut Family, Key) {
        let family = if prefix.addr().is_ipv4() { &mut self.v4 } else { &mut self.v6 };
        (family, Key::new(prefix))
    }
}

impl Default for Prefixes {
    fn default() -> Self {
        Self::new()
    }
}

impl FromIterator<(IpNet, u32)> for Prefixes {
    /// Of a prefix that occurs twice the last value is in force.
    fn from_iter<I: IntoIterator<Item = (IpNet, u32)>>(entries: I) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (prefix, own) in entries {
            let family = if prefix.addr().is_ipv4() { &mut v4 } else { &mut v6 };
            family.push((Key::new(prefix), own));
        }
        // From a sequence the map is built in one go, which is several times faster than one by one.
        let family = |entries: Vec<(Key, u32)>| {
            let own: BTreeMap<Key, u32> = entries.into_iter().collect();
            let mut lengths = [0; 129];
            own.keys().for_each(|key| lengths[usize::from(key.length)] += 1);
            Family { own, lengths }
        };
        Self { v4: family(v4), v6: family(v6) }
    }
}
