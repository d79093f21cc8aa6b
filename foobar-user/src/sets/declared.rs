//! What the site says of a set: prefixes in the site file itself, and those of the file that it names.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::IpNet;

use super::prefix;

/// A set as the site has it; both lists are sorted. Cloning shares them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Declared {
    inline: Arc<[IpNet]>,
    file: Option<(PathBuf, Arc<[IpNet]>)>,
}

impl Declared {
    /// Joins what the site file holds and what the named file holds.
    #[must_use]
    pub fn new(inline: &[IpNet], file: Option<(PathBuf, Arc<[IpNet]>)>) -> Self {
        Self { inline: sorted(inline.to_vec()), file }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inline.len() + self.file.as_ref().map_or(0, |(_, prefixes)| prefixes.len())
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Prefixes that stand in the site file.
    #[must_use]
    pub fn inline(&self) -> &[IpNet] {
        &self.inline
    }

    /// The named file with its prefixes.
    #[must_use]
    pub fn file(&self) -> Option<(&Path, &[IpNet])> {
        self.file.as_ref().map(|(path, prefixes)| (path.as_path(), &**prefixes))
    }

    /// Whether this very prefix is declared.
    #[must_use]
    pub fn holds(&self, prefix: &IpNet) -> bool {
        self.is_inline(prefix) || self.in_file(prefix).is_some()
    }

    /// Whether this very prefix stands in the site file.
    #[must_use]
    pub fn is_inline(&self, prefix: &IpNet) -> bool {
        self.inline.binary_search(prefix).is_ok()
    }

    /// The named file, when this very prefix stands there.
    #[must_use]
    pub fn in_file(&self, prefix: &IpNet) -> Option<&Path> {
        self.file().filter(|(_, prefixes)| prefixes.binary_search(prefix).is_ok()).map(|(path, _)| path)
    }

    /// Every prefix once.
    pub fn iter(&self) -> impl Iterator<Item = IpNet> + '_ {
        let file = self.file().map_or(&[][..], |(_, prefixes)| prefixes);
        self.inline.iter().chain(file.iter().filter(|prefix| !self.is_inline(prefix))).copied()
    }
}

/// In order, each once.
pub(crate) fn sorted(mut prefixes: Vec<IpNet>) -> Arc<[IpNet]> {
    prefixes.sort_unstable();
    prefixes.dedup();
    prefixes.into()
}

/// The line of a file that holds a prefix; looked for only to tell an operator.
pub(super) fn line_of(path: &Path, wanted: &IpNet) -> Option<usize> {
    let lines = BufReader::new(File::open(path).ok()?).lines().map_while(Result::ok);
    let holds = |line: &String| {
        let text = line.split('#').next().unwrap_or_default().trim();
        prefix::parse(text).is_ok_and(|prefix| prefix == *wanted)
    };
    lines.enumerate().find(|(_, line)| holds(line)).map(|(index, _)| index + 1)
}
