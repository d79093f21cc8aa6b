//! What transactions that were committed after the histories parted have done to tables' rows.

use std::collections::{BTreeMap, BTreeSet};

use super::record::{Place, Record, Relation, Says, Touch, Xid};

/// Touches that are remembered; what comes later is not looked for.
const TOUCHES_MAX: usize = 500_000;

/// A touch of a transaction.
#[derive(Clone, Copy, Debug)]
struct Touched {
    at: u64,
    xid: Xid,
    relation: Relation,
    touch: Touch,
}

/// Reads the log, record by record, from before the histories parted.
#[derive(Debug)]
pub(super) struct Reader {
    /// Where they parted.
    parted: u64,
    /// What was done by transactions whose end was not read.
    open: BTreeMap<Xid, Vec<Touched>>,
    /// What was done by those that were committed after that.
    done: Vec<Touched>,
    /// Those, and the ones within them, with the ones that they are within.
    committed: BTreeMap<Xid, Xid>,
    /// The first transaction that had not begun where reading did.
    next: Option<Xid>,
    /// Where the last record begins that was read.
    last: u64,
    held: usize,
    cut: bool,
}

impl Reader {
    pub(super) const fn new(parted: u64) -> Self {
        Self {
            parted,
            open: BTreeMap::new(),
            done: Vec::new(),
            committed: BTreeMap::new(),
            next: None,
            last: 0,
            held: 0,
            cut: false,
        }
    }

    /// Takes in a record.
    pub(super) fn take(&mut self, record: &Record) {
        self.last = record.at;
        match &record.says {
            Says::Ended { committed, within } => self.end(record, *committed, within),
            Says::Touched(..) if self.held >= TOUCHES_MAX => self.cut = true,
            Says::Touched(relation, touch) => {
                self.held += 1;
                let touched = Touched { at: record.at, xid: record.xid, relation: *relation, touch: *touch };
                self.open.entry(record.xid).or_default().push(touched);
            }
            Says::Next(xid) => self.next = self.next.or(Some(*xid)),
            Says::Other => {}
        }
    }

    fn end(&mut self, record: &Record, committed: bool, within: &[Xid]) {
        let counts = committed && record.at >= self.parted && record.xid != 0;
        for xid in std::iter::once(&record.xid).chain(within) {
            let touches = self.open.remove(xid).unwrap_or_default();
            if counts {
                self.committed.insert(*xid, record.xid);
                self.done.extend(touches);
            } else {
                self.held -= touches.len();
            }
        }
    }

    /// What could not be read is missing.
    pub(super) const fn cut(&mut self) {
        self.cut = true;
    }

    /// The log has a record there: if reading has not come to it, what could not be read is missing.
    pub(super) const fn must_reach(&mut self, record: u64) {
        self.cut |= self.last < record;
    }

    /// Whether some of them began before reading did.
    pub(super) fn began_early(&self) -> bool {
        self.next.is_none_or(|next| self.committed.keys().any(|xid| precedes(*xid, next)))
    }

    /// Adds what was read of the log before this one.
    pub(super) fn add_earlier(&mut self, mut earlier: Self) {
        for xid in self.committed.keys() {
            self.done.extend(earlier.open.remove(xid).unwrap_or_default());
        }
        self.next = earlier.next;
        self.cut |= earlier.cut;
    }

    /// What has come of it.
    pub(super) fn finish(mut self) -> Changes {
        let mut tables: BTreeMap<Relation, Table> = BTreeMap::new();
        self.cut |= !self.committed.is_empty() && self.began_early();
        self.done.sort_by_key(|touched| touched.at);
        for touched in self.done {
            let table = tables.entry(touched.relation).or_default();
            let xid = self.committed.get(&touched.xid).copied().unwrap_or(touched.xid);
            table.transactions.insert(xid);
            table.touch(touched.touch, xid);
        }
        Changes { committed: self.committed, tables, cut: self.cut }
    }
}

/// Numbers of transactions begin anew after the last one.
const fn precedes(xid: Xid, other: Xid) -> bool {
    xid.wrapping_sub(other).cast_signed() < 0
}

/// What they have done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// The transactions, and the ones within them, with the ones that they are within.
    pub(super) committed: BTreeMap<Xid, Xid>,
    /// Every table that they touched, catalogs among them.
    pub(super) tables: BTreeMap<Relation, Table>,
    /// Whether something may be missing.
    pub(super) cut: bool,
}

/// What they have done to a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Table {
    /// Who touched it.
    pub(super) transactions: BTreeSet<Xid>,
    /// Pages that they put versions of rows on.
    pub(super) pages: BTreeSet<u32>,
    /// The versions that were there at the end and are known by their places, with the row of before that each replaces, if any.
    pub(super) versions: BTreeMap<Place, Option<Place>>,
    /// Rows of before that are gone, with who took them away.
    pub(super) deleted: BTreeMap<Place, Xid>,
}

impl Table {
    fn touch(&mut self, touch: Touch, xid: Xid) {
        match touch {
            Touch::Filled(page) => {
                self.pages.insert(page);
            }
            Touch::Inserted(place) => {
                self.pages.insert(place.0);
                self.versions.insert(place, None);
            }
            Touch::Updated { old, new } => {
                let before = self.versions.remove(&old).unwrap_or(Some(old));
                self.pages.insert(new.0);
                self.versions.insert(new, before);
            }
            Touch::Deleted(place) => {
                // What they had put there themselves, nobody else ever had.
                if let Some(before) = self.versions.remove(&place).unwrap_or(Some(place)) {
                    self.deleted.insert(before, xid);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: Relation = Relation { tablespace: 1663, database: 5, file: 16385 };

    fn read(records: &[(Xid, u64, Says)]) -> Reader {
        let mut reader = Reader::new(100);
        for (xid, at, says) in records {
            reader.take(&Record { xid: *xid, at: *at, says: says.clone() });
        }
        reader
    }

    fn commit(within: &[Xid]) -> Says {
        Says::Ended { committed: true, within: within.to_vec() }
    }

    fn did(touch: Touch) -> Says {
        Says::Touched(TABLE, touch)
    }

    #[test]
    fn only_what_was_committed_after_the_parting_counts() {
        let changes = read(&[
            (0, 50, Says::Next(7)),
            (7, 60, did(Touch::Inserted((0, 1)))),
            (7, 70, commit(&[])),
            (8, 80, did(Touch::Inserted((0, 2)))),
            (9, 110, did(Touch::Inserted((0, 3)))),
            (10, 115, did(Touch::Deleted((0, 9)))),
            (9, 120, Says::Ended { committed: false, within: Vec::new() }),
            (8, 130, commit(&[])),
        ]);
        assert!(!changes.began_early());
        let changes = changes.finish();
        assert_eq!(changes.committed, [(8, 8)].into());
        assert_eq!(changes.tables[&TABLE].versions, [((0, 2), None)].into());
        assert!(changes.tables[&TABLE].deleted.is_empty() && !changes.cut);
    }

    #[test]
    fn a_row_is_followed_to_its_last_version() {
        let table = read(&[
            (0, 90, Says::Next(7)),
            // Of before, changed twice; of before, changed and taken away; new, changed and taken away; new, and changed.
            (7, 101, did(Touch::Updated { old: (0, 1), new: (0, 4) })),
            (8, 102, did(Touch::Updated { old: (0, 4), new: (1, 1) })),
            (7, 103, did(Touch::Updated { old: (0, 2), new: (0, 5) })),
            (8, 104, did(Touch::Deleted((0, 5)))),
            (7, 105, did(Touch::Inserted((0, 6)))),
            (7, 106, did(Touch::Updated { old: (0, 6), new: (0, 7) })),
            (8, 107, did(Touch::Deleted((0, 7)))),
            (7, 108, did(Touch::Inserted((0, 8)))),
            (7, 109, did(Touch::Updated { old: (0, 8), new: (0, 9) })),
            // A place that is free again is another row's.
            (8, 110, did(Touch::Inserted((0, 2)))),
            (7, 120, commit(&[])),
            (8, 121, commit(&[])),
        ]);
        let table = &table.finish().tables[&TABLE];
        assert_eq!(table.versions, [((1, 1), Some((0, 1))), ((0, 9), None), ((0, 2), None)].into());
        assert_eq!(table.deleted, [((0, 2), 8)].into());
        assert_eq!(table.pages, [0, 1].into());
    }

    #[test]
    fn transactions_within_others_end_with_them() {
        let reader = read(&[
            (0, 90, Says::Next(7)),
            (8, 101, did(Touch::Inserted((0, 1)))),
            (9, 102, did(Touch::Inserted((0, 2)))),
            (9, 103, Says::Ended { committed: false, within: Vec::new() }),
            (7, 104, commit(&[8])),
        ]);
        let changes = reader.finish();
        assert_eq!(changes.committed, [(7, 7), (8, 7)].into());
        assert_eq!(changes.tables[&TABLE].versions, [((0, 1), None)].into());
        assert_eq!(changes.tables[&TABLE].transactions, [7].into());
    }

    #[test]
    fn what_ends_early_is_not_whole() {
        let records = [(0, 90, Says::Next(7)), (0, 110, Says::Other)];
        for (end, cut) in [(110, false), (111, true)] {
            let mut reader = read(&records);
            reader.must_reach(end);
            assert_eq!(reader.finish().cut, cut);
        }
    }

    #[test]
    fn what_began_earlier_is_looked_for_earlier() {
        let mut reader = read(&[(0, 90, Says::Next(9)), (7, 101, did(Touch::Inserted((0, 2)))), (7, 102, commit(&[]))]);
        assert!(reader.began_early());
        assert!(read(&[(0, 90, Says::Next(9)), (7, 102, commit(&[]))]).finish().cut);
        let earlier = read(&[
            (0, 10, Says::Next(7)),
            (7, 20, did(Touch::Inserted((0, 1)))),
            (8, 30, did(Touch::Inserted((0, 9)))),
            (8, 40, commit(&[])),
        ]);
        reader.add_earlier(earlier);
        let changes = reader.finish();
        assert!(!changes.cut);
        assert_eq!(changes.tables[&TABLE].versions, [((0, 1), None), ((0, 2), None)].into());
    }
}
