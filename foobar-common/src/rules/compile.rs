//! The rule compiler: rules become rule sets for each dimension of a packet, in the layout that the kernel reads.
//!
//! The longest matching prefix of an address names the set of all rules with a prefix that covers it, or with none; so does
//! each protocol with its port or type, each source port, each combination of TCP flags, each interface. The lowest bit
//! that the sets of a packet share is the first rule that matches it, whatever the number of rules.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::mem::offset_of;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use zerocopy::{FromZeros as _, IntoBytes as _};

use super::entry::entry;
use super::pool::{Pool, Standing, insert, unite};
use super::spans::{intervals, ports, spans};
use super::{Limited, Places, Rule};
use crate::abi::{MAX_CLASSES, MAX_RULES};
use crate::generation::{
    Generation, Head, Interface, KIND_TCP, KIND_UDP, KINDS, MAX_INTERFACES, MAX_PASSING, MAX_SETS, MAX_WORDS,
    RULE_LIMIT, Roots, RuleEntry, RuleSet, SOURCE_PORTS, Tunnels, USES_DESTINATION_SETS, USES_INTERFACES,
    USES_OPEN_LIMITS, USES_PASSING, USES_SOURCE_SETS, USES_TUNNELS,
};
use crate::prefixes::{Allocator, OutOfMemory, Prefixes, build};

/// All addresses of a family.
const ALL: [IpNet; 2] = [
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0)),
];

/// What rules refer to, and what they belong to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Surroundings<'a> {
    /// Number of the generation.
    pub number: u32,
    /// Stages that the server needs beside its rules: `USES_BALANCER`, `USES_REVERSE_PATH`.
    pub uses: u32,
    /// Counter slot of each rule; empty: rule `n` counts in slot `n`.
    pub counters: &'a [u32],
    /// Interfaces by name.
    pub interfaces: &'a [(String, u32)],
    /// Named sets; a set's place is its bit in `classes`.
    pub sets: &'a [String],
    /// Which sets each membership class is in; class 0 is in none.
    pub classes: &'a [u64],
    /// Where the sets' prefix tables are.
    pub members: Roots,
    /// What the server knows of tunnels.
    pub tunnels: Tunnels,
}

/// A compiled generation, and what is needed to add membership classes to it.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// The generation as the kernel reads it.
    pub generation: Box<Generation>,
    pool: Pool,
    /// Words of prefix tables in use: the first ones, for nothing is freed while rules are compiled.
    words: usize,
    /// Rules that name each set as a source, and as a destination.
    named: Vec<(RuleSet, RuleSet)>,
}

/// A part of a generation.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// Where in the generation it begins, in bytes: a multiple of eight.
    pub offset: usize,
    /// What stands there.
    pub bytes: &'a [u8],
}

/// Why rules cannot be compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CompileError {
    /// More than [`MAX_RULES`].
    Rules(usize),
    /// More than [`MAX_PASSING`] rules that limit or shadow.
    Passing(usize),
    /// More than [`MAX_INTERFACES`] interfaces named.
    Interfaces(usize),
    /// More different combinations than [`MAX_SETS`].
    Combinations,
    /// Prefixes of rules need more than [`MAX_WORDS`] words.
    Prefixes,
    /// More combinations of memberships than [`MAX_CLASSES`].
    Classes(usize),
    /// A rule names an interface that is not there.
    NoInterface(String),
    /// A rule names a set that is not there.
    NoSet(String),
}

impl fmt::Display for CompileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rules(rules) => write!(f, "{rules} rules, but a server holds {MAX_RULES} at the most"),
            Self::Passing(rules) => {
                write!(f, "{rules} rules limit or shadow, but {MAX_PASSING} of a server may at the most")
            }
            Self::Interfaces(count) => {
                write!(f, "rules name {count} interfaces, but {MAX_INTERFACES} is the most that a server's rules may")
            }
            Self::Combinations => {
                write!(f, "the rules fall into more than {MAX_SETS} combinations: fewer would do the same")
            }
            Self::Prefixes => write!(f, "too many prefixes in rules: put them into a named set, which holds a million"),
            Self::Classes(count) => {
                write!(
                    f,
                    "members of the sets fall into {count} combinations of sets and times, but {MAX_CLASSES} is the most"
                )
            }
            Self::NoInterface(name) => write!(f, "a rule names the interface `{name}`, which is not there"),
            Self::NoSet(name) => write!(f, "a rule names the set `{name}`, which is not there"),
        }
    }
}

impl std::error::Error for CompileError {}

/// Compiles rules in the order in which they apply.
///
/// # Errors
/// What does not fit.
pub fn compile(rules: &[Rule], surroundings: &Surroundings<'_>) -> Result<Compiled, CompileError> {
    if rules.len() > MAX_RULES {
        return Err(CompileError::Rules(rules.len()));
    }
    let mut generation = Generation::new_box_zeroed().unwrap_or_else(|_| unreachable!("six megabytes"));
    let standings = enter(rules, surroundings.counters, &mut generation)?;
    generation.head = Head {
        number: surroundings.number,
        uses: surroundings.uses | uses(rules) | if surroundings.tunnels.peer_count == 0 { 0 } else { USES_TUNNELS },
        members: surroundings.members,
        ..Head::default()
    };
    generation.tunnels = surroundings.tunnels;
    let mut compiler = Compiler {
        rules,
        standings,
        generation,
        pool: Pool::default(),
        allocator: Allocator::new(0..MAX_WORDS as u32),
    };
    // The empty set is the first.
    compiler.set(RuleSet::default())?;
    compiler.kinds()?;
    compiler.source_ports()?;
    compiler.flags()?;
    compiler.interfaces(surroundings.interfaces)?;
    compiler.generation.head.sources = compiler.prefixes(|rule| &rule.sources)?;
    compiler.generation.head.destinations = compiler.prefixes(|rule| &rule.destinations)?;
    let named = compiler.named(surroundings.sets)?;
    let words = compiler.allocator.words_in_use() as usize;
    let mut compiled = Compiled { generation: compiler.generation, pool: compiler.pool, words, named };
    for (class, sets) in surroundings.classes.iter().enumerate() {
        compiled.add_class(class, *sets)?;
    }
    Ok(compiled)
}

impl Compiled {
    /// How many rule sets there are.
    #[must_use]
    pub fn sets(&self) -> usize {
        self.pool.len()
    }

    /// All that a packet can lead to: the tables up to their last entry in use. Five of the six megabytes are not, mostly.
    #[must_use]
    pub fn parts(&self) -> [Part<'_>; 3] {
        const SETS: usize = offset_of!(Generation, sets);
        let Generation { sets, words, .. } = &*self.generation;
        [
            Part { offset: 0, bytes: &self.generation.as_bytes()[..SETS] },
            Part { offset: SETS, bytes: sets[..self.sets()].as_bytes() },
            Part { offset: offset_of!(Generation, words), bytes: words[..self.words].as_bytes() },
        ]
    }

    /// Gives a membership class its rule sets: those of the named sets it is in, by their bits.
    ///
    /// # Errors
    /// Too many classes or combinations.
    pub fn add_class(&mut self, class: usize, sets: u64) -> Result<(), CompileError> {
        if class >= MAX_CLASSES {
            return Err(CompileError::Classes(class + 1));
        }
        let (mut source, mut destination) = (RuleSet::default(), RuleSet::default());
        for (bit, (by_source, by_destination)) in self.named.iter().enumerate() {
            if sets >> bit & 1 != 0 {
                unite(&mut source, by_source);
                unite(&mut destination, by_destination);
            }
        }
        self.generation.source_classes[class] = self.pool.index(&mut self.generation.sets, source)?;
        self.generation.destination_classes[class] = self.pool.index(&mut self.generation.sets, destination)?;
        Ok(())
    }
}

/// Enters the rules with what they do, and tells where each stands in rule sets.
fn enter(rules: &[Rule], counters: &[u32], generation: &mut Generation) -> Result<Vec<Standing>, CompileError> {
    let (mut standings, mut passing) = (Vec::with_capacity(rules.len()), 0);
    for (index, rule) in rules.iter().enumerate() {
        let counter = counters.get(index).map_or(index as u32, |counter| *counter);
        let passing_before = 1_u64.checked_shl(passing as u32).map_or(u64::MAX, |bit| bit - 1);
        let entry = RuleEntry { passing_before, ..entry(rule, counter) };
        standings.push(if entry.shadow != 0 || entry.action == RULE_LIMIT {
            if let Some(place) = generation.passing.get_mut(passing) {
                *place = index as u16;
            }
            passing += 1;
            Standing::Passes(passing - 1)
        } else {
            Standing::Ends(index)
        });
        generation.rules[index] = entry;
    }
    if passing > MAX_PASSING { Err(CompileError::Passing(passing)) } else { Ok(standings) }
}

/// Dimensions beside source, destination and protocol that rules name.
fn uses(rules: &[Rule]) -> u32 {
    let one = |bit: u32, named: fn(&Rule) -> bool| if rules.iter().any(named) { bit } else { 0 };
    one(USES_INTERFACES, |rule| !rule.interfaces.is_empty())
        | one(USES_PASSING, |rule| !rule.action.ends())
        | one(USES_SOURCE_SETS, |rule| !rule.sources.sets.is_empty())
        | one(USES_DESTINATION_SETS, |rule| !rule.destinations.sets.is_empty())
        | one(USES_OPEN_LIMITS, |rule| rule.action.limit().is_some_and(|limit| matches!(limit.what, Limited::Open(_))))
}

/// A generation on its way.
struct Compiler<'r> {
    rules: &'r [Rule],
    standings: Vec<Standing>,
    generation: Box<Generation>,
    pool: Pool,
    /// Of the words of the prefix tables.
    allocator: Allocator,
}

impl Compiler<'_> {
    fn set(&mut self, set: RuleSet) -> Result<u16, CompileError> {
        self.pool.index(&mut self.generation.sets, set)
    }

    /// The set of the rules for which `holds` is true.
    fn set_of(&self, holds: impl Fn(&Rule) -> bool) -> RuleSet {
        let mut set = RuleSet::default();
        for (_, standing) in self.rules.iter().zip(&self.standings).filter(|(rule, _)| holds(rule)) {
            insert(&mut set, *standing);
        }
        set
    }

    /// Protocols with ports and types.
    fn kinds(&mut self) -> Result<(), CompileError> {
        let spans: Vec<Vec<(u32, u32)>> = self.rules.iter().map(|rule| spans(&rule.protocol)).collect();
        for (first, end, set) in intervals(&spans, &self.standings, KINDS) {
            let set = self.set(set)?;
            self.generation.kinds[first as usize..end as usize].fill(set);
        }
        Ok(())
    }

    /// Source ports of TCP and UDP.
    fn source_ports(&mut self) -> Result<(), CompileError> {
        let spans: Vec<Vec<(u32, u32)>> = self
            .rules
            .iter()
            .map(|rule| [ports(KIND_TCP, &rule.source_ports), ports(KIND_UDP, &rule.source_ports)].concat())
            .collect();
        for (first, end, set) in intervals(&spans, &self.standings, SOURCE_PORTS) {
            let set = self.set(set)?;
            self.generation.source_ports[first as usize..end as usize].fill(set);
        }
        Ok(())
    }

    fn flags(&mut self) -> Result<(), CompileError> {
        for flags in 0..64 {
            let set = self.set_of(|rule| rule.flags.is_none_or(|wanted| wanted.holds(flags)));
            self.generation.flags[usize::from(flags)] = self.set(set)?;
        }
        Ok(())
    }

    fn interfaces(&mut self, known: &[(String, u32)]) -> Result<(), CompileError> {
        let elsewhere = self.set_of(|rule| rule.interfaces.is_empty());
        self.generation.head.elsewhere = u32::from(self.set(elsewhere)?);
        let named: BTreeSet<&String> = self.rules.iter().flat_map(|rule| &rule.interfaces).collect();
        if named.len() > MAX_INTERFACES {
            return Err(CompileError::Interfaces(named.len()));
        }
        // No interface has the index of an unused place.
        self.generation.interfaces.fill(Interface { index: u32::MAX, set: 0 });
        for (place, name) in named.into_iter().enumerate() {
            let index = known.iter().find(|(known, _)| known == name).map(|(_, index)| *index);
            let index = index.ok_or_else(|| CompileError::NoInterface(name.clone()))?;
            let set = self.set_of(|rule| rule.interfaces.is_empty() || rule.interfaces.contains(name));
            let set = u32::from(self.set(set)?);
            self.generation.interfaces[place] = Interface { index, set };
        }
        Ok(())
    }

    /// Addresses in one dimension.
    fn prefixes(&mut self, dimension: fn(&Rule) -> &Places) -> Result<Roots, CompileError> {
        let any = self.set_of(|rule| dimension(rule).is_any());
        let mut own: BTreeMap<IpNet, RuleSet> = BTreeMap::new();
        for (rule, standing) in self.rules.iter().zip(&self.standings) {
            for prefix in &dimension(rule).prefixes {
                insert(own.entry(prefix.trunc()).or_default(), *standing);
            }
        }
        let mut prefixes = Prefixes::new();
        for all in ALL {
            unite(own.entry(all).or_default(), &any);
        }
        for (prefix, set) in own {
            prefixes.insert(prefix, u32::from(self.set(set)?));
        }
        self.build(&prefixes)
    }

    /// The prefix table of these rule sets; a prefix has the rules of those that hold it, too.
    fn build(&mut self, prefixes: &Prefixes) -> Result<Roots, CompileError> {
        let (generation, pool) = (&mut *self.generation, &mut self.pool);
        let Generation { sets, words, .. } = generation;
        let mut full = None;
        let roots = build(&mut words[..], &mut self.allocator, prefixes, |inherited, own| {
            let mut set = sets[inherited as usize];
            unite(&mut set, &sets[own as usize]);
            pool.index(sets, set).map_or_else(
                |error| {
                    full = Some(error);
                    0
                },
                u32::from,
            )
        });
        match (roots, full) {
            (_, Some(error)) => Err(error),
            (Err(OutOfMemory { .. }), None) => Err(CompileError::Prefixes),
            (Ok(roots), None) => Ok(Roots { v4: roots.v4, v6: roots.v6 }),
        }
    }

    /// Rules by the sets that they name.
    fn named(&self, sets: &[String]) -> Result<Vec<(RuleSet, RuleSet)>, CompileError> {
        let all = self.rules.iter().flat_map(|rule| rule.sources.sets.iter().chain(&rule.destinations.sets));
        if let Some(unknown) = all.into_iter().find(|name| !sets.contains(name)) {
            return Err(CompileError::NoSet(unknown.clone()));
        }
        let by = |name| {
            let source = self.set_of(|rule| rule.sources.sets.contains(name));
            (source, self.set_of(|rule| rule.destinations.sets.contains(name)))
        };
        Ok(sets.iter().map(by).collect())
    }
}
