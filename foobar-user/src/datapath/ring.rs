//! Rings: which member has which place, so that the kernel's choice is one look-up.

use std::hash::Hasher as _;

use foobar_common::abi::RING_PLACES;

use crate::digest::Digest;
use crate::plan::Schedule;

/// Places of a hashed ring: a prime, so that each member's steps reach every place.
const HASHED: usize = 4093;

/// A member on its way into a ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Share {
    /// Its slot.
    pub(super) slot: u16,
    /// What it takes beside the others; not 0.
    pub(super) weight: u32,
    /// What its places in a hashed ring depend on: alike on every balancer, whatever the slots are.
    pub(super) name: String,
}

/// The slots by place.
pub(super) fn build(schedule: Schedule, members: &[Share]) -> Vec<u16> {
    match schedule {
        Schedule::RoundRobin => smooth(members),
        Schedule::LeastConnections => members.iter().map(|member| member.slot).collect(),
        Schedule::Maglev => hashed(members),
    }
}

/// Smooth weighted round robin: each member as often as its weight says, its turns as far apart as can be; with weights that
/// are all alike in the members' order.
fn smooth(members: &[Share]) -> Vec<u16> {
    let weights = reduced(members);
    let total: i64 = weights.iter().sum();
    let mut credit = vec![0; members.len()];
    (0..total)
        .filter_map(|_| {
            credit.iter_mut().zip(&weights).for_each(|(credit, weight)| *credit += weight);
            // The first of those with the most.
            let next = (0..members.len()).rev().max_by_key(|member| credit[*member])?;
            credit[next] -= total;
            Some(members[next].slot)
        })
        .collect()
}

/// The weights by their greatest common divisor, or as near to them as a ring's places allow.
fn reduced(members: &[Share]) -> Vec<i64> {
    let weights: Vec<u64> = members.iter().map(|member| u64::from(member.weight.max(1))).collect();
    let divisor = weights.iter().fold(0, |divisor, weight| common_divisor(*weight, divisor)).max(1);
    let total = weights.iter().sum::<u64>() / divisor;
    let room = (RING_PLACES - members.len().min(RING_PLACES)) as u64;
    let fitting = |weight: &u64| {
        let weight = weight / divisor;
        let fits = if total > RING_PLACES as u64 { (weight * room / total).max(1) } else { weight };
        fits.cast_signed()
    };
    weights.iter().map(fitting).collect()
}

const fn common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { common_divisor(b, a % b) }
}

/// Maglev (Eisenbud et al., NSDI 2016): each member takes places in an order of its own, one a round or as often as its weight
/// says, so that a member that comes or goes moves few of the others' places.
fn hashed(members: &[Share]) -> Vec<u16> {
    let Some(most) = members.iter().map(|member| member.weight.max(1)).max() else { return Vec::new() };
    let mut orders: Vec<_> = members.iter().map(|member| Order::of(&member.name)).collect();
    let mut places: Vec<Option<u16>> = vec![None; HASHED];
    let (mut left, mut credit) = (HASHED, vec![0; members.len()]);
    while left > 0 {
        for (index, member) in members.iter().enumerate() {
            credit[index] += member.weight.max(1);
            if left == 0 || credit[index] < most {
                continue;
            }
            credit[index] -= most;
            let free = orders[index].by_ref().find(|place| places[*place].is_none());
            if let Some(place) = free {
                places[place] = Some(member.slot);
                left -= 1;
            }
        }
    }
    places.into_iter().flatten().collect()
}

/// The order in which a member takes places: every one, in steps of its own.
struct Order {
    next: usize,
    step: usize,
}

impl Order {
    fn of(name: &str) -> Self {
        let hash = mixed(name);
        Self { next: (hash >> 32) as usize % HASHED, step: hash as u32 as usize % (HASHED - 1) + 1 }
    }
}

impl Iterator for Order {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let place = self.next;
        self.next = (place + self.step) % HASHED;
        Some(place)
    }
}

/// The digest of a name, mixed once more: alike names differ in all bits.
fn mixed(name: &str) -> u64 {
    let mut digest = Digest::default();
    digest.write(name.as_bytes());
    let hash = digest.finish();
    let mixed = (hash ^ hash >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed ^ mixed >> 33
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(weights: &[u32]) -> Vec<Share> {
        let share = |(slot, weight): (u16, &u32)| Share { slot, weight: *weight, name: format!("www/web{slot}") };
        (0..).zip(weights).map(share).collect()
    }

    fn count(ring: &[u16], slot: u16) -> usize {
        ring.iter().filter(|place| **place == slot).count()
    }

    #[test]
    fn alike_weights_take_turns_in_order() {
        for weight in [1, 7, 100] {
            assert_eq!(build(Schedule::RoundRobin, &members(&[weight; 3])), [0, 1, 2]);
        }
        assert_eq!(build(Schedule::RoundRobin, &[]), Vec::<u16>::new());
    }

    #[test]
    fn weights_are_exact_and_spread() {
        assert_eq!(build(Schedule::RoundRobin, &members(&[5, 1, 1])), [0, 0, 1, 0, 2, 0, 0]);
        let ring = build(Schedule::RoundRobin, &members(&[30, 20, 10]));
        assert_eq!([0, 1, 2].map(|slot| count(&ring, slot)), [3, 2, 1]);
    }

    #[test]
    fn weights_that_do_not_fit_come_near() {
        let weights: Vec<u32> = (1..=128).map(|n| n * 997 % 1000 + 1).collect();
        let (ring, total) = (build(Schedule::RoundRobin, &members(&weights)), weights.iter().sum::<u32>());
        assert!(ring.len() <= RING_PLACES);
        for (slot, weight) in (0..).zip(&weights) {
            let (share, wanted) =
                (count(&ring, slot) as f64 / ring.len() as f64, f64::from(*weight) / f64::from(total));
            assert!((share - wanted).abs() < 0.0004, "{slot}: {share} instead of {wanted}");
        }
    }

    #[test]
    fn least_connections_sees_each_member_once() {
        assert_eq!(build(Schedule::LeastConnections, &members(&[5, 1])), [0, 1]);
    }

    #[test]
    fn a_hashed_ring_is_fair() {
        let ring = build(Schedule::Maglev, &members(&[1; 10]));
        assert_eq!(ring.len(), HASHED);
        for slot in 0..10 {
            assert!((409..=410).contains(&count(&ring, slot)), "{}", count(&ring, slot));
        }
        let ring = build(Schedule::Maglev, &members(&[3, 1]));
        assert!((3065..=3075).contains(&count(&ring, 0)), "{}", count(&ring, 0));
    }

    #[test]
    fn a_member_that_goes_moves_few_others() {
        let all = members(&[1; 10]);
        let before = build(Schedule::Maglev, &all);
        let after = build(Schedule::Maglev, &[&all[..4], &all[5..]].concat());
        let moved = before.iter().zip(&after).filter(|(old, new)| **old != 4 && old != new).count();
        assert!(moved < HASHED / 20, "{moved} of {HASHED} places");
    }
}
