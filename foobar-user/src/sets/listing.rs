//! What is in a set, for `foobar set list`: each entry with where it comes from and how long it still lives.

use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Additions, Declared, Now};

/// Where an entry comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// `foobar set add`.
    RunTime,
    /// The site file.
    Inline,
    /// The file that the site file names.
    File,
}

impl Source {
    /// In words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RunTime => "run time",
            Self::Inline => "site file",
            Self::File => "file",
        }
    }
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Addresses.
    pub prefix: IpNet,
    /// Where it comes from.
    pub source: Source,
    /// Time left, in milliseconds; `None`: it stays.
    pub left_ms: Option<u64>,
}

/// How much is in a set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Its name.
    pub set: String,
    /// Entries of the run time.
    pub run_time: usize,
    /// Those of them that will expire.
    pub expiring: usize,
    /// Prefixes in the site file.
    pub inline: usize,
    /// Prefixes in the named file.
    pub in_file: usize,
    /// The named file.
    pub file: Option<PathBuf>,
}

impl Summary {
    /// Counts a set.
    #[must_use]
    pub fn of(name: &str, declared: &Declared, additions: &Additions) -> Self {
        Self {
            set: name.to_owned(),
            run_time: additions.len(),
            expiring: additions.iter().filter(|(_, until)| until.is_some()).count(),
            inline: declared.inline().len(),
            in_file: declared.file().map_or(0, |(_, prefixes)| prefixes.len()),
            file: declared.file().map(|(path, _)| path.to_owned()),
        }
    }

    /// Entries of all sources.
    #[must_use]
    pub const fn entries(&self) -> usize {
        self.run_time + self.inline + self.in_file
    }
}

/// A set at one time; sharing what the site declares, so that a million entries are not copied.
#[derive(Clone, Debug)]
pub struct Listing {
    name: String,
    declared: Declared,
    additions: Additions,
}

impl Listing {
    pub(super) fn new(name: &str, declared: Declared, additions: Additions) -> Self {
        Self { name: name.to_owned(), declared, additions }
    }

    /// How much is in it.
    #[must_use]
    pub fn summary(&self) -> Summary {
        Summary::of(&self.name, &self.declared, &self.additions)
    }

    /// Every entry: first what can be deleted, then the site's.
    pub fn rows(&self, now: Now) -> impl Iterator<Item = Row> + '_ {
        let left = move |until: Now| until.monotonic_ns.saturating_sub(now.monotonic_ns) / 1_000_000;
        let added = self.additions.iter().map(move |(prefix, until)| Row {
            prefix,
            source: Source::RunTime,
            left_ms: until.map(left),
        });
        let of = |source| move |prefix: &IpNet| Row { prefix: *prefix, source, left_ms: None };
        let file = self.declared.file().map_or(&[][..], |(_, prefixes)| prefixes);
        added.chain(self.declared.inline().iter().map(of(Source::Inline))).chain(file.iter().map(of(Source::File)))
    }
}

impl Row {
    /// Time left.
    #[must_use]
    pub fn left(&self) -> Option<Duration> {
        self.left_ms.map(Duration::from_millis)
    }
}
