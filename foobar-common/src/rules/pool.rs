//! The rule sets of a generation as they are gathered: equal ones are stored once.

use std::collections::HashMap;

use super::compile::CompileError;
use crate::generation::RuleSet;

/// Indices of rule sets; equal ones are stored once.
#[derive(Clone, Debug, Default)]
pub(super) struct Pool {
    indices: HashMap<RuleSet, u16>,
}

impl Pool {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.indices.len()
    }

    /// Index of a rule set, which is stored if it is new.
    pub(super) fn index(&mut self, sets: &mut [RuleSet], set: RuleSet) -> Result<u16, CompileError> {
        if let Some(index) = self.indices.get(&set) {
            return Ok(*index);
        }
        let index = self.indices.len();
        *sets.get_mut(index).ok_or(CompileError::Combinations)? = set;
        self.indices.insert(set, index as u16);
        Ok(index as u16)
    }
}

/// Adds the rules of another set.
pub(super) fn unite(set: &mut RuleSet, other: &RuleSet) {
    set.summary |= other.summary;
    set.passing |= other.passing;
    for (word, more) in set.words.iter_mut().zip(other.words) {
        *word |= more;
    }
}

/// Where a rule stands in a rule set.
#[derive(Clone, Copy, Debug)]
pub(super) enum Standing {
    /// It allows or denies: by its number.
    Ends(usize),
    /// It limits or shadows: by its place among those.
    Passes(usize),
}

/// Adds a rule.
pub(super) fn insert(set: &mut RuleSet, rule: Standing) {
    match rule {
        Standing::Ends(rule) => {
            set.words[rule / 64] |= 1 << (rule % 64);
            set.summary |= 1 << (rule / 64);
        }
        Standing::Passes(place) => set.passing |= 1 << place,
    }
}
