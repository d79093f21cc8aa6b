//! What writers were told, and what must follow from it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// A row that was acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Writer and number.
    pub key: (i64, i64),
    /// Address of the server that took it.
    pub server: String,
    /// Timeline in which it did.
    pub timeline: u32,
    /// When it was sent, in microseconds of the boot-time clock.
    pub began: i64,
    /// When it was acknowledged.
    pub ended: i64,
}

/// The log of a run.
#[derive(Clone, Debug, Default)]
pub struct Acknowledged {
    /// Every row, in the order of acknowledgements.
    pub rows: Vec<Row>,
    /// Rows that a reader has seen on a leader, acknowledged or not.
    pub seen: BTreeSet<(i64, i64)>,
    /// Tries that failed: when, and why.
    pub faults: Vec<(i64, String)>,
}

impl Acknowledged {
    /// Reads a log; a last line that is not whole is left out.
    ///
    /// # Errors
    /// It is no such log.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
        let mut log = Self::default();
        for line in whole.lines() {
            let mut words = line.splitn(7, ' ');
            let mut word = || words.next().with_context(|| format!("`{line}` is cut off"));
            match word()? {
                "row" => log.rows.push(Row {
                    key: (word()?.parse()?, word()?.parse()?),
                    server: word()?.to_owned(),
                    timeline: u32::from_str_radix(word()?, 16)?,
                    began: word()?.parse()?,
                    ended: word()?.parse()?,
                }),
                "seen" => {
                    log.seen.insert((word()?.parse()?, word()?.parse()?));
                }
                "fault" => {
                    let (_, _) = (word()?, word()?);
                    let at = word()?.parse()?;
                    let why: Vec<&str> = words.collect();
                    log.faults.push((at, why.join(" ")));
                }
                other => bail!("`{other}` is no kind of line"),
            }
        }
        Ok(log)
    }

    /// Rows that are not there.
    #[must_use]
    pub fn lost(&self, present: &BTreeSet<(i64, i64)>) -> Vec<(i64, i64)> {
        self.rows.iter().map(|row| row.key).filter(|key| !present.contains(key)).collect()
    }

    /// Rows that a reader has seen and that are not there: it has seen what never was.
    #[must_use]
    pub fn unexplained(&self, present: &BTreeSet<(i64, i64)>) -> Vec<(i64, i64)> {
        self.seen.difference(present).copied().collect()
    }

    /// Rows that were sent to a server after another one, that leads later, had acknowledged a row, and that were acknowledged all
    /// the same: two servers could be written at once. Each promotion begins a timeline, and timelines grow.
    #[must_use]
    pub fn overlaps(&self) -> Vec<&Row> {
        let mut firsts: BTreeMap<u32, i64> = BTreeMap::new();
        for row in &self.rows {
            let first = firsts.entry(row.timeline).or_insert(row.ended);
            *first = (*first).min(row.ended);
        }
        let late = |row: &&Row| firsts.range(row.timeline + 1..).any(|(_, first)| row.began > *first);
        self.rows.iter().filter(late).collect()
    }

    /// The longest time without an acknowledgement, in milliseconds.
    #[must_use]
    pub fn longest_outage_ms(&self) -> i64 {
        let mut ends: Vec<i64> = self.rows.iter().map(|row| row.ended).collect();
        ends.sort_unstable();
        ends.windows(2).map(|pair| (pair[1] - pair[0]) / 1000).max().unwrap_or(0)
    }

    /// When another server than `old` first acknowledged a row after `at`.
    #[must_use]
    pub fn first_elsewhere(&self, at: i64, old: &str) -> Option<i64> {
        self.rows.iter().filter(|row| row.server != old && row.ended > at).map(|row| row.ended).min()
    }

    /// Milliseconds from `at` to then.
    #[must_use]
    pub fn recovered_ms(&self, at: i64, old: &str) -> Option<i64> {
        Some((self.first_elsewhere(at, old)? - at) / 1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(number: i64, timeline: u32, began: i64, ended: i64) -> Row {
        Row { key: (0, number), server: format!("db{timeline}"), timeline, began, ended }
    }

    #[test]
    fn a_row_that_the_old_leader_takes_after_the_new_one_has_is_an_overlap() {
        let clean = vec![row(1, 1, 0, 10), row(2, 1, 11, 30), row(3, 2, 12, 25), row(4, 2, 31, 40)];
        assert!(Acknowledged { rows: clean.clone(), ..Acknowledged::default() }.overlaps().is_empty());
        let late = row(5, 1, 26, 50);
        let rows = [clean, vec![late.clone()]].concat();
        assert_eq!(Acknowledged { rows, ..Acknowledged::default() }.overlaps(), [&late]);
    }

    #[test]
    fn what_is_not_there_is_lost() {
        let log = Acknowledged { rows: vec![row(1, 1, 0, 10), row(2, 1, 11, 30)], ..Acknowledged::default() };
        assert_eq!(log.lost(&[(0, 1)].into()), [(0, 2)]);
        let log = Acknowledged { seen: [(0, 1), (0, 3)].into(), ..log };
        assert_eq!(log.unexplained(&[(0, 1)].into()), [(0, 3)]);
    }
}
