//! Overlaps of sets and within them, found by one sweep over all prefixes in order: a prefix's covers are those before it
//! that have not ended yet.

use ipnet::IpNet;

/// What prefixes of sets have in common; an example of each kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::site) struct Overlap {
    /// For each set that has any: its index, how many of its prefixes lie in wider ones of its own, one of them, its cover.
    pub(in crate::site) within: Vec<(usize, usize, IpNet, IpNet)>,
    /// Each pair of sets that share an address: the lower index, a prefix, the higher index, a prefix.
    pub(in crate::site) between: Vec<((usize, IpNet), (usize, IpNet))>,
}

/// A prefix that holds the one at hand.
struct Open {
    end: u128,
    prefix: IpNet,
    set: usize,
    /// The sets of this one and of all below it.
    sets: u64,
}

/// Compares at most 64 sets in `O(n log n)`.
pub(in crate::site) fn overlaps(sets: &[&[IpNet]]) -> Overlap {
    debug_assert!(sets.len() <= 64, "one bit for each set");
    let mut all: Vec<(bool, u128, u8, usize, IpNet)> = Vec::with_capacity(sets.iter().map(|set| set.len()).sum());
    for (index, set) in sets.iter().enumerate() {
        all.extend(set.iter().map(|prefix| {
            let (v6, start, _) = bounds(prefix);
            (v6, start, prefix.prefix_len(), index, *prefix)
        }));
    }
    all.sort_unstable();
    // The same prefix twice in one set is fine.
    all.dedup();
    let mut seen = vec![0_u64; sets.len()];
    let mut within: Vec<Option<(usize, IpNet, IpNet)>> = vec![None; sets.len()];
    let mut between = Vec::new();
    let mut open: Vec<Open> = Vec::new();
    for (v6, start, _, set, prefix) in all {
        while open.last().is_some_and(|wider| wider.end < start || matches!(wider.prefix, IpNet::V6(_)) != v6) {
            open.pop();
        }
        let covers = open.last().map_or(0, |wider| wider.sets);
        let cover_of = |other: usize| open.iter().find(|wider| wider.set == other).map(|wider| wider.prefix);
        if covers & (1 << set) != 0
            && let Some(cover) = cover_of(set)
        {
            within[set].get_or_insert((0, prefix, cover)).0 += 1;
        }
        let mut others = covers & !(1 << set) & !seen[set];
        while others != 0 {
            let other = others.trailing_zeros() as usize;
            others &= others - 1;
            seen[set] |= 1 << other;
            seen[other] |= 1 << set;
            if let Some(cover) = cover_of(other) {
                let (a, b) = ((set, prefix), (other, cover));
                between.push(if set < other { (a, b) } else { (b, a) });
            }
        }
        open.push(Open { end: bounds(&prefix).2, prefix, set, sets: covers | 1 << set });
    }
    between.sort_by_key(|(a, b)| (a.0, b.0));
    let within = within.into_iter().enumerate();
    let within = within.filter_map(|(set, found)| found.map(|(count, prefix, cover)| (set, count, prefix, cover)));
    Overlap { within: within.collect(), between }
}

/// Family, first and last address of a prefix.
fn bounds(prefix: &IpNet) -> (bool, u128, u128) {
    match prefix {
        IpNet::V4(net) => (false, net.network().to_bits().into(), net.broadcast().to_bits().into()),
        IpNet::V6(net) => (true, net.network().to_bits(), net.broadcast().to_bits()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().expect("a prefix")).collect()
    }

    #[test]
    fn examples_of_each_overlap_are_found() {
        let a = nets(&["10.0.0.0/8", "10.1.0.0/16", "10.1.1.0/24", "192.0.2.0/24", "192.0.2.0/24", "::/0"]);
        let b = nets(&["10.1.1.7/32", "11.0.0.0/8", "12.0.0.0/9"]);
        let c = nets(&["12.0.0.0/8"]);
        let found = overlaps(&[&a, &b, &c]);
        let net = |text: &str| -> IpNet { text.parse().expect("a prefix") };
        assert_eq!(found.within, [(0, 2, net("10.1.0.0/16"), net("10.0.0.0/8"))]);
        assert_eq!(
            found.between,
            [((0, net("10.0.0.0/8")), (1, net("10.1.1.7/32"))), ((1, net("12.0.0.0/9")), (2, net("12.0.0.0/8")))]
        );
    }

    fn prefix() -> impl Strategy<Value = IpNet> {
        (0_u32..16, 0_u8..=4, any::<bool>()).prop_map(|(bits, length, v6)| {
            let address = if v6 {
                std::net::Ipv6Addr::from_bits(u128::from(bits) << 124).into()
            } else {
                std::net::Ipv4Addr::from_bits(bits << 28).into()
            };
            IpNet::new(address, length).expect("a short prefix").trunc()
        })
    }

    proptest! {
        #[test]
        fn the_sweep_finds_what_comparing_all_with_all_finds(sets in prop::collection::vec(prop::collection::vec(prefix(), 0..6), 0..5)) {
            let slices: Vec<&[IpNet]> = sets.iter().map(Vec::as_slice).collect();
            let found = overlaps(&slices);
            for (index, set) in sets.iter().enumerate() {
                let mut distinct = set.clone();
                distinct.sort();
                distinct.dedup();
                let covered = |net: &&IpNet| distinct.iter().any(|wider| wider != *net && wider.contains(*net));
                let count = distinct.iter().filter(covered).count();
                let told = found.within.iter().find(|(set, ..)| *set == index);
                prop_assert_eq!(told.map_or(0, |(_, count, ..)| *count), count);
                prop_assert!(told.is_none_or(|(_, _, prefix, cover)| cover.contains(prefix) && cover != prefix));
                for (other, against) in sets.iter().enumerate().skip(index + 1) {
                    let shares = set.iter().any(|a| against.iter().any(|b| a.contains(b) || b.contains(a)));
                    let told = found.between.iter().find(|((a, _), (b, _))| (*a, *b) == (index, other));
                    prop_assert_eq!(told.is_some(), shares);
                    prop_assert!(told.is_none_or(|((_, a), (_, b))| a.contains(b) || b.contains(a)));
                }
            }
        }
    }
}
