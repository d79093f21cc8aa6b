//! Open connections of each source, counted in a table of words that no flood fills and nothing leaks from.
//!
//! A word holds a mark of its key above a count. A word with count 0 is free for any key, so nothing is ever deleted; a
//! connection remembers the word that counts it, and gives back there, whatever has become of the rules. Two CPUs may take
//! two words for one key at once: the count of a key is the sum over its words.

use crate::abi::BucketKey;
use crate::hash::mix;

/// Words of one bucket: two cache lines.
pub const WAYS: usize = 16;
/// Buckets; a power of two.
pub const BUCKETS: u32 = 16_384;
/// Rules of one server that count open connections at the most: so many words a connection remembers.
pub const MAX_OPEN_RULES: usize = 8;
/// Bits of a word that count.
const COUNT_BITS: u32 = 24;
const COUNT: u64 = (1 << COUNT_BITS) - 1;

/// A key's place: its bucket, and the mark of its words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Index of the bucket.
    pub bucket: u32,
    /// The word with count 0.
    pub mark: u64,
}

impl Place {
    /// Of a rule and a source; `seed` is secret, so that nobody can choose who shares a bucket.
    #[inline(always)]
    #[must_use]
    pub const fn new(seed: u64, key: &BucketKey) -> Self {
        let mut hash = mix(seed ^ (key.rule as u64 | (key.family as u64) << 32));
        hash = mix(hash ^ key.source[0]);
        hash = mix(hash ^ key.source[1]);
        Self { bucket: hash as u32 % BUCKETS, mark: hash >> COUNT_BITS << COUNT_BITS }
    }

    /// What this word counts of the key.
    #[inline(always)]
    #[must_use]
    pub const fn counted(&self, word: u64) -> u32 {
        if word & !COUNT == self.mark { (word & COUNT) as u32 } else { 0 }
    }

    /// The word after one connection more, when it is the key's or free.
    #[inline(always)]
    #[must_use]
    pub const fn taken(&self, word: u64) -> Option<u64> {
        if is_free(word) {
            Some(self.mark | 1)
        } else if word & !COUNT == self.mark && word & COUNT < COUNT {
            Some(word + 1)
        } else {
            None
        }
    }
}

/// Whether any key may take a word.
#[inline(always)]
#[must_use]
pub const fn is_free(word: u64) -> bool {
    word & COUNT == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    /// The table as the kernel uses it.
    struct Table(HashMap<u32, [u64; WAYS]>);

    impl Table {
        fn open(&mut self, place: Place) -> Option<(u32, usize)> {
            let bucket = self.0.entry(place.bucket).or_insert([0; WAYS]);
            let own = bucket.iter().position(|word| place.counted(*word) > 0);
            let at = own.or_else(|| bucket.iter().position(|word| is_free(*word)))?;
            bucket[at] = place.taken(bucket[at])?;
            Some((place.bucket, at))
        }

        fn count(&self, place: Place) -> u32 {
            self.0.get(&place.bucket).map_or(0, |words| words.iter().map(|word| place.counted(*word)).sum())
        }
    }

    proptest! {
        #[test]
        fn counts_are_those_of_a_simple_list(steps in prop::collection::vec((0_u32..12, any::<bool>()), 1..400)) {
            let (mut table, mut open) = (Table(HashMap::new()), Vec::new());
            let place = |source| Place::new(7, &BucketKey::new(3, 1, [source, 0, 0, 0]));
            for (source, opens) in steps {
                if opens {
                    open.push((source, table.open(place(source)).unwrap()));
                } else if let Some(at) = open.iter().position(|(of, _)| *of == source) {
                    let (_, (bucket, way)) = open.remove(at);
                    table.0.get_mut(&bucket).unwrap()[way] -= 1;
                }
                let expected = open.iter().filter(|(of, _)| *of == source).count();
                prop_assert_eq!(table.count(place(source)) as usize, expected);
            }
        }
    }

    #[test]
    fn a_bucket_has_room_for_its_ways() {
        let mut table = Table(HashMap::new());
        let same = |mark: u64| Place { bucket: 1, mark: mark << COUNT_BITS };
        for key in 1..=WAYS as u64 {
            assert!(table.open(same(key)).is_some());
        }
        assert_eq!(table.open(same(99)), None);
        assert!(table.open(same(3)).is_some());
        assert_eq!(table.count(same(3)), 2);
    }

    #[test]
    fn rules_and_sources_have_places_of_their_own() {
        let place = |seed, rule, family, source| Place::new(seed, &BucketKey::new(rule, family, source));
        let base = place(1, 2, 4, [3, 0, 0, 0]);
        let others = [
            place(2, 2, 4, [3, 0, 0, 0]),
            place(1, 3, 4, [3, 0, 0, 0]),
            place(1, 2, 1, [3, 0, 0, 0]),
            place(1, 2, 4, [3, 0, 0, 7]),
        ];
        for other in others {
            assert_ne!(base.mark, other.mark);
        }
    }
}
