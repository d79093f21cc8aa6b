//! The named sets of the world, as the kernel gets them and as the host's tables hold them.

use std::collections::HashMap;

use anyhow::Result;
use foobar_common::abi::Membership;
use foobar_common::generation::Roots;
use foobar_common::prefixes::{Allocator, Prefixes, build};
use foobar_user::datapath::sets::{Entry, Set};
use ipnet::IpNet;

use super::everything::{Life, SETS};

/// Words of the host's prefix table.
const WORDS: u32 = 1 << 18;

/// The sets with their lives by a clock.
pub fn sets(now_ns: u64) -> Vec<Set> {
    let expires_ns = |life| match life {
        Life::Forever => None,
        Life::Long => Some(now_ns + 86_400_000_000_000),
        Life::Over => Some(1),
    };
    let entries = |named: &super::everything::Named| {
        let entry = |(text, life): &(&str, Life)| Entry {
            prefix: text.parse().expect("a prefix of the world"),
            expires_ns: expires_ns(*life),
        };
        named.entries.iter().map(entry).collect()
    };
    SETS.iter().map(|named| Set { name: named.name.to_owned(), entries: entries(named) }).collect()
}

/// The sets in the host's tables.
#[derive(Clone, Debug)]
pub struct Members {
    /// Words of the prefix table.
    pub words: Vec<u64>,
    /// Its roots.
    pub roots: Roots,
    /// What is known of each class.
    pub memberships: Vec<Membership>,
    /// The sets of each class, by their bits.
    pub bits: Vec<u64>,
}

/// A class: bits of the sets that hold, and of those whose time is over.
type Class = (u64, u64);

/// Numbers classes.
#[derive(Default)]
struct Classes(Vec<Class>);

impl Classes {
    fn number(&mut self, (living, over): Class) -> u32 {
        let class = (living, over & !living);
        let known = self.0.iter().position(|other| *other == class);
        known.unwrap_or_else(|| {
            self.0.push(class);
            self.0.len() - 1
        }) as u32
    }
}

impl Members {
    /// Of the world.
    pub fn new() -> Result<Self> {
        let mut classes = Classes(vec![(0, 0)]);
        let mut own: HashMap<IpNet, Class> = HashMap::new();
        for (bit, named) in SETS.iter().enumerate() {
            for (text, life) in named.entries {
                let class = own.entry(text.parse()?).or_default();
                *if *life == Life::Over { &mut class.1 } else { &mut class.0 } |= 1 << bit;
            }
        }
        let prefixes: Prefixes = own.into_iter().map(|(prefix, class)| (prefix, classes.number(class))).collect();
        let mut words = vec![0; WORDS as usize];
        let built = build(&mut words[..], &mut Allocator::new(0..WORDS), &prefixes, |wider, narrower| {
            let (a, b) = (classes.0[wider as usize], classes.0[narrower as usize]);
            classes.number((a.0 | b.0, a.1 | b.1))
        })?;
        let mut memberships = Vec::new();
        while let Some((living, over)) = classes.0.get(memberships.len()).copied() {
            let after = if over == 0 { 0 } else { classes.number((living, 0)) };
            memberships.push(Membership { expires_ns: u64::from(over != 0), after, _pad: 0 });
        }
        let bits = classes.0.iter().map(|(living, over)| living | over).collect();
        Ok(Self { words, roots: Roots { v4: built.v4, v6: built.v6 }, memberships, bits })
    }
}
