//! The files about a parting: named by where it was, the first line of the rows' file a summary.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::super::replica::{ASIDE, seconds};
use super::super::rewind::Parted;
use super::changes::Changes;
use super::record::{Place, Relation, Xid};
use super::rows::{Found, Row};

/// What the names of all such files begin with.
const PREFIX: &str = "diverged-";
/// What a summary can have at most; in bytes.
const SUMMARY_MAX: u64 = 1 << 20;

/// Where a parting is kept.
#[derive(Debug)]
pub(super) struct Kept {
    /// Log records.
    pub(super) records: PathBuf,
    /// Rows.
    pub(super) rows: PathBuf,
}

impl Kept {
    pub(super) fn of(parted: &Parted, folder: &Path) -> Self {
        let name = format!("{PREFIX}{}-{}", parted.timeline, parted.position.replace('/', "-"));
        Self { records: folder.join(format!("{name}.txt")), rows: folder.join(format!("{name}.jsonl")) }
    }

    /// Whether nothing is missing in what is kept. Whoever has seen to the rows may have removed them.
    pub(super) fn is_whole(&self) -> bool {
        !self.rows.exists() || summary(&self.rows).is_some_and(|summary| summary.is_whole())
    }
}

/// The first line of the rows' file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Summary {
    /// When it was saved, in seconds of Unix time.
    pub(super) saved_at: u64,
    /// Whose history it is not a part of.
    pub(super) leader: String,
    /// Where in the log they parted.
    pub(super) position: String,
    /// The timeline of that.
    pub(super) timeline: u32,
    /// Transactions that changed rows of the site's tables, or may have.
    pub(super) transactions: usize,
    /// Other ones: of catalogs, statistics, roles.
    pub(super) others: usize,
    pub(super) inserted: usize,
    pub(super) updated: usize,
    pub(super) deleted: usize,
    /// What is not in the file, and why.
    pub(super) missing: Vec<String>,
}

impl Summary {
    /// Whether nothing is missing.
    pub(super) const fn is_whole(&self) -> bool {
        self.missing.is_empty()
    }

    /// Whether somebody has to see to it.
    pub(super) const fn tells(&self) -> bool {
        self.transactions > 0 || !self.is_whole()
    }
}

/// The summary, and the whole text with it.
pub(super) fn told(parted: &Parted, leader: &str, changes: &Changes, found: &Found) -> (Summary, String) {
    let mut summary = Summary {
        saved_at: seconds(),
        leader: leader.to_owned(),
        position: parted.position.clone(),
        timeline: parted.timeline,
        missing: found.faults.clone(),
        ..Summary::default()
    };
    if changes.cut {
        summary.missing.push("the log was not read whole".to_owned());
    }
    // Where tables could not be named, each may be the site's.
    let is_theirs = |relation: &Relation| {
        found.names.contains_key(relation) || (!summary.missing.is_empty() && relation.database != 0)
    };
    let theirs = changes.tables.iter().filter(|(relation, _)| is_theirs(relation));
    let transactions: BTreeSet<Xid> = theirs.flat_map(|(_, table)| table.transactions.iter().copied()).collect();
    let all: BTreeSet<Xid> = changes.committed.values().copied().collect();
    (summary.transactions, summary.others) = (transactions.len(), all.len() - transactions.len());
    let mut lines = String::new();
    for row in &found.rows {
        present(row, changes, found, &mut summary, &mut lines);
    }
    for (relation, table) in &changes.tables {
        let Some(name) = found.names.get(relation) else { continue };
        for (place, xid) in &table.deleted {
            summary.deleted += 1;
            // Writing to a string does not fail.
            let _ =
                writeln!(lines, "{{\"change\":\"delete\",{name},\"was\":\"{}\",\"transaction\":{xid}}}", at(*place));
        }
    }
    let first = serde_json::to_string(&summary).unwrap_or_default();
    (summary, format!("{first}\n{lines}"))
}

/// A row that is there.
fn present(row: &Row, changes: &Changes, found: &Found, summary: &mut Summary, lines: &mut String) {
    let Some(name) = found.names.get(&row.relation) else { return };
    let before = changes.tables.get(&row.relation).and_then(|table| table.versions.get(&row.place)).copied().flatten();
    let (change, was) = match before {
        Some(place) => {
            summary.updated += 1;
            ("update", format!("\"was\":\"{}\",", at(place)))
        }
        None => {
            summary.inserted += 1;
            ("insert", String::new())
        }
    };
    let xid = changes.committed.get(&row.xid).unwrap_or(&row.xid);
    let _ = writeln!(lines, "{{\"change\":\"{change}\",{name},{was}\"transaction\":{xid},\"row\":{}}}", row.json);
}

fn at((page, number): Place) -> String {
    format!("({page},{number})")
}

/// What is kept of all partings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diverged {
    /// Transactions that the data no longer has; at least one for each parting that is not known whole.
    pub transactions: u64,
    /// The files with their rows, and data folders of before.
    pub files: Vec<PathBuf>,
}

impl Diverged {
    /// Looks into the folder.
    pub(in super::super) fn look(folder: &Path) -> Self {
        let mut all = Self::default();
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = entry.file_name();
            let begins = |what| name.to_string_lossy().starts_with(what);
            if begins(ASIDE) {
                all.files.push(path);
            } else if begins(PREFIX)
                && path.extension().is_some_and(|end| end == "jsonl")
                && let Some(summary) = summary(&path)
            {
                all.transactions += summary.transactions.max(usize::from(!summary.is_whole())) as u64;
                all.files.push(path);
            }
        }
        all.files.sort();
        all
    }
}

fn summary(path: &Path) -> Option<Summary> {
    let mut line = String::new();
    let file = std::io::Read::take(File::open(path).ok()?, SUMMARY_MAX);
    BufReader::new(file).read_line(&mut line).ok()?;
    serde_json::from_str(&line).ok()
}
