//! Membership classes: which named sets an address is in, and until when.

use std::collections::HashMap;

use anyhow::{Result, ensure};
use foobar_common::abi::{MAX_CLASSES, Membership};

/// Named sets of a server at the most: bits of a word.
pub(super) const MAX_SETS: usize = 64;

/// The sets of a class, ascending by bit, and when each membership ends; 0: never.
type Sets = Vec<(u8, u64)>;

/// All classes; the first is in no set.
#[derive(Clone, Debug)]
pub(super) struct Classes {
    classes: Vec<Sets>,
    numbers: HashMap<Sets, u32>,
    unions: HashMap<(u32, u32), u32>,
    /// A class was wanted when there were too many.
    full: bool,
}

impl Classes {
    pub(super) fn new() -> Self {
        Self {
            classes: vec![Sets::new()],
            numbers: HashMap::from([(Sets::new(), 0)]),
            unions: HashMap::new(),
            full: false,
        }
    }

    /// The class of a membership in one set more.
    pub(super) fn with(&mut self, class: u32, set: u8, expires_ns: u64) -> u32 {
        let mut sets = self.classes[class as usize].clone();
        sets.retain(|(other, _)| *other != set);
        sets.push((set, expires_ns));
        self.number(sets)
    }

    /// The class of all memberships but one.
    pub(super) fn without(&mut self, class: u32, set: u8) -> u32 {
        let mut sets = self.classes[class as usize].clone();
        sets.retain(|(other, _)| *other != set);
        self.number(sets)
    }

    /// The class of the memberships of both; in a set of both it lasts as long as the longer one.
    pub(super) fn union(&mut self, a: u32, b: u32) -> u32 {
        if let Some(known) = self.unions.get(&(a, b)) {
            return *known;
        }
        let mut sets = self.classes[a as usize].clone();
        for &(set, expires_ns) in &self.classes[b as usize] {
            match sets.iter_mut().find(|(other, _)| *other == set) {
                Some((_, first)) => *first = if *first == 0 || expires_ns == 0 { 0 } else { expires_ns.max(*first) },
                None => sets.push((set, expires_ns)),
            }
        }
        let union = self.number(sets);
        self.unions.insert((a, b), union);
        union
    }

    fn number(&mut self, mut sets: Sets) -> u32 {
        sets.sort_unstable();
        if let Some(number) = self.numbers.get(&sets) {
            return *number;
        }
        // What comes after is made first: a class is never there without it.
        self.after(&sets);
        if self.classes.len() >= MAX_CLASSES {
            self.full = true;
            return 0;
        }
        let number = self.classes.len() as u32;
        self.classes.push(sets.clone());
        self.numbers.insert(sets, number);
        number
    }

    /// When the first membership ends, and the class from then on.
    fn after(&mut self, sets: &Sets) -> Option<(u64, u32)> {
        let first = sets.iter().map(|(_, expires_ns)| *expires_ns).filter(|expires_ns| *expires_ns != 0).min()?;
        let rest = sets.iter().copied().filter(|(_, expires_ns)| *expires_ns != first).collect();
        Some((first, self.number(rest)))
    }

    /// How many there are.
    pub(super) const fn len(&self) -> usize {
        self.classes.len()
    }

    /// Whether all fitted.
    ///
    /// # Errors
    /// They did not.
    pub(super) fn check(&self) -> Result<()> {
        ensure!(
            !self.full,
            "members of the sets fall into more than {MAX_CLASSES} combinations of sets and times: give entries the same time \
             to live, or make fewer sets overlap"
        );
        Ok(())
    }

    /// The sets of each class as bits.
    pub(super) fn bits(&self) -> Vec<u64> {
        self.classes.iter().map(|sets| sets.iter().fold(0, |bits, (set, _)| bits | 1 << set)).collect()
    }

    /// What the kernel knows of a class.
    pub(super) fn membership(&mut self, class: u32) -> Membership {
        let sets = self.classes[class as usize].clone();
        match self.after(&sets) {
            Some((expires_ns, after)) => Membership { expires_ns, after, _pad: 0 },
            None => Membership::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memberships_end_one_after_the_other() {
        let mut classes = Classes::new();
        let always = classes.with(0, 3, 0);
        let two = classes.with(always, 1, 50);
        let three = classes.with(two, 2, 20);
        assert_eq!(classes.bits()[three as usize], 0b1110);
        assert_eq!(classes.membership(three), Membership { expires_ns: 20, after: two, _pad: 0 });
        assert_eq!(classes.membership(two), Membership { expires_ns: 50, after: always, _pad: 0 });
        assert_eq!(classes.membership(always), Membership::default());
        assert_eq!(classes.membership(0), Membership::default());
    }

    #[test]
    fn unions_last_as_long_as_the_longer_membership() {
        let mut classes = Classes::new();
        let (short, long, ever) = (classes.with(0, 1, 20), classes.with(0, 1, 50), classes.with(0, 1, 0));
        assert_eq!(classes.union(short, long), long);
        assert_eq!(classes.union(long, ever), ever);
        let other = classes.with(0, 2, 30);
        let both = classes.union(short, other);
        assert_eq!(classes.membership(both), Membership { expires_ns: 20, after: other, _pad: 0 });
        assert_eq!(classes.without(both, 2), short);
    }

    #[test]
    fn too_many_classes_are_refused() {
        let mut classes = Classes::new();
        (1..MAX_CLASSES as u64).for_each(|time| _ = classes.with(0, 1, time));
        assert!(classes.check().is_ok());
        classes.with(0, 1, MAX_CLASSES as u64);
        assert!(classes.check().is_err());
    }
}
