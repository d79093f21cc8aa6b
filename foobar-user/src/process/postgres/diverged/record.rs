//! A record of PostgreSQL's log, as `pg_waldump` of version 15 prints it: what it says of transactions and of tables' rows.

use super::super::control::position;

/// Number of a transaction, or of one within another.
pub(super) type Xid = u32;

/// Where a version of a row is in its table: the page, and the number on it from 1.
pub(super) type Place = (u32, u16);

/// The file of a table, by PostgreSQL's numbers; database 0 are the tables that all databases share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Relation {
    pub(super) tablespace: u32,
    pub(super) database: u32,
    pub(super) file: u32,
}

/// What a transaction did to a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Touch {
    /// It put a row there.
    Inserted(Place),
    /// It put rows on this page (`COPY`); where on it is not told.
    Filled(u32),
    /// It put another version of a row in place of an old one.
    Updated { old: Place, new: Place },
    /// It took a row away.
    Deleted(Place),
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Says {
    /// A transaction has ended, with those within it.
    Ended { committed: bool, within: Vec<Xid> },
    /// It touched a table.
    Touched(Relation, Touch),
    /// No transaction of this number or a later one had begun.
    Next(Xid),
    /// Nothing of rows.
    Other,
}

/// A record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// The transaction that it is about; 0: none.
    pub(super) xid: Xid,
    /// Where it begins in the log; in bytes.
    pub(super) at: u64,
    pub(super) says: Says,
}

impl Record {
    /// Reads a line; `None`: it is no record.
    pub(super) fn read(line: &str) -> Option<Self> {
        let manager = line.strip_prefix("rmgr: ")?.split_whitespace().next()?;
        let xid = number(after(line, ", tx:")?)?;
        let at = position(word(after(line, ", lsn: ")?))?;
        let what = after(line, ", desc: ")?;
        let (xid, says) = match manager {
            "Transaction" => ended(xid, what).unwrap_or((xid, Says::Other)),
            "Heap" | "Heap2" => {
                (xid, touched(what).map_or(Says::Other, |(relation, touch)| Says::Touched(relation, touch)))
            }
            "XLOG" | "Standby" => (xid, next(what).map_or(Says::Other, Says::Next)),
            _ => (xid, Says::Other),
        };
        Some(Self { xid, at, says })
    }
}

/// `COMMIT 2026-…; subxacts: 8 9`; of one that was prepared, `COMMIT_PREPARED 7: 2026-…`.
fn ended(xid: Xid, what: &str) -> Option<(Xid, Says)> {
    let (verb, rest) = what.split_once(' ')?;
    let committed = verb.starts_with("COMMIT");
    if !committed && !verb.starts_with("ABORT") {
        return None;
    }
    let xid = if verb.ends_with("_PREPARED") { number(rest)? } else { xid };
    let within = after(rest, "; subxacts:").map_or("", |list| list.split(';').next().unwrap_or_default());
    Some((xid, Says::Ended { committed, within: within.split_whitespace().filter_map(number).collect() }))
}

/// `UPDATE off 1 xmax 9 flags 0x00 ; new off 2 xmax 0, blkref #0: rel 1663/5/16385 blk 1, blkref #1: rel 1663/5/16385 blk 0`.
fn touched(what: &str) -> Option<(Relation, Touch)> {
    let verb = what.split([' ', '+']).next()?;
    let block = |index: u32| block(after(what, &format!("blkref #{index}: rel "))?);
    let (relation, page) = block(0)?;
    let offset = |mark: &str| number(after(what, mark)?);
    let touch = match verb {
        "INSERT" => Touch::Inserted((page, offset(" off ")?)),
        "MULTI_INSERT" => Touch::Filled(page),
        "DELETE" => Touch::Deleted((page, offset(" off ")?)),
        "UPDATE" | "HOT_UPDATE" => {
            // The second block is the old one, where it is another.
            let old = block(1).map_or(page, |(_, old)| old);
            Touch::Updated { old: (old, offset(" off ")?), new: (page, offset("; new off ")?) }
        }
        _ => return None,
    };
    Some((relation, touch))
}

/// `1663/5/16385 blk 0`; what bears another word than `blk` is a map beside the table.
fn block(text: &str) -> Option<(Relation, u32)> {
    let mut words = text.split([' ', ',']);
    let mut numbers = words.next()?.split('/').map(|part| part.parse().ok());
    let relation = Relation { tablespace: numbers.next()??, database: numbers.next()??, file: numbers.next()?? };
    if words.next()? != "blk" {
        return None;
    }
    Some((relation, words.next()?.parse().ok()?))
}

/// `CHECKPOINT_ONLINE redo …; xid 0:745; oid …` or `RUNNING_XACTS nextXid 745 …`.
fn next(what: &str) -> Option<Xid> {
    if what.starts_with("CHECKPOINT") {
        return number(after(what, "; xid ")?.split_once(':')?.1);
    }
    number(what.strip_prefix("RUNNING_XACTS nextXid ")?)
}

fn after<'l>(text: &'l str, mark: &str) -> Option<&'l str> {
    text.split_once(mark).map(|(_, rest)| rest)
}

fn word(text: &str) -> &str {
    text.split([' ', ',']).next().unwrap_or_default()
}

/// The number that a text begins with.
fn number<N: std::str::FromStr>(text: &str) -> Option<N> {
    let text = text.trim_start();
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).map_or(text, |end| &text[..end]);
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: Relation = Relation { tablespace: 1663, database: 16384, file: 16389 };

    fn record(manager: &str, xid: Xid, what: &str) -> Record {
        let line = format!(
            "rmgr: {manager:<11} len (rec/tot):     54/   150, tx: {xid:>10}, lsn: 1/030000D8, prev 1/030000A0, desc: {what}"
        );
        Record::read(&line).expect("a record")
    }

    fn touch(manager: &str, what: &str) -> Option<Touch> {
        match record(manager, 745, what).says {
            Says::Touched(relation, touch) => {
                assert_eq!(relation, TABLE);
                Some(touch)
            }
            _ => None,
        }
    }

    #[test]
    fn what_happens_to_rows_is_read() {
        let at = record("Heap", 745, "INSERT+INIT off 1 flags 0x00, blkref #0: rel 1663/16384/16389 blk 0");
        assert_eq!((at.xid, at.at), (745, 0x1_0300_00d8));
        for (manager, what, expected) in [
            ("Heap", "INSERT off 12 flags 0x08, blkref #0: rel 1663/16384/16389 blk 7 FPW", Touch::Inserted((7, 12))),
            ("Heap2", "MULTI_INSERT 3 tuples flags 0x02, blkref #0: rel 1663/16384/16389 blk 7", Touch::Filled(7)),
            ("Heap2", "MULTI_INSERT+INIT 3 tuples flags 0x00, blkref #0: rel 1663/16384/16389 blk 9", Touch::Filled(9)),
            (
                "Heap",
                "DELETE off 2 flags 0x00 KEYS_UPDATED , blkref #0: rel 1663/16384/16389 blk 0",
                Touch::Deleted((0, 2)),
            ),
            (
                "Heap",
                "HOT_UPDATE off 1 xmax 745 flags 0x20 ; new off 4 xmax 0, blkref #0: rel 1663/16384/16389 blk 3",
                Touch::Updated { old: (3, 1), new: (3, 4) },
            ),
            (
                "Heap",
                "UPDATE off 1 xmax 745 flags 0x00 ; new off 2 xmax 0, blkref #0: rel 1663/16384/16389 blk 8, \
                 blkref #1: rel 1663/16384/16389 blk 3",
                Touch::Updated { old: (3, 1), new: (8, 2) },
            ),
        ] {
            assert_eq!(touch(manager, what), Some(expected), "{what}");
        }
        for (manager, what) in [
            ("Heap", "LOCK off 1: xid 745: flags 0x00 LOCK_ONLY EXCL_LOCK , blkref #0: rel 1663/16384/16389 blk 0"),
            ("Heap2", "PRUNE latestRemovedXid 744 nredirected 0 ndead 1, blkref #0: rel 1663/16384/16389 blk 0"),
            ("Heap2", "VISIBLE cutoff xid 0 flags 0x01, blkref #0: rel 1663/16384/16389 fork vm blk 0"),
            ("Btree", "INSERT_LEAF off 3, blkref #0: rel 1663/16384/16389 blk 1"),
        ] {
            assert_eq!(touch(manager, what), None, "{what}");
        }
    }

    #[test]
    fn ends_of_transactions_are_read() {
        let ended = |xid, what| {
            let record = record("Transaction", xid, what);
            (record.xid, record.says)
        };
        let commit = |within: &[Xid]| Says::Ended { committed: true, within: within.to_vec() };
        assert_eq!(ended(745, "COMMIT 2026-11-28 23:18:04.123456 UTC"), (745, commit(&[])));
        let many = "COMMIT 2026-11-28 23:18:04.123456 UTC; subxacts: 746 747; inval msgs: catcache 80 relcache 16389";
        assert_eq!(ended(745, many), (745, commit(&[746, 747])));
        assert_eq!(ended(0, "COMMIT_PREPARED 744: 2026-11-28 23:18:04.123456 UTC"), (744, commit(&[])));
        let abort = Says::Ended { committed: false, within: Vec::new() };
        assert_eq!(ended(748, "ABORT 2026-11-28 23:18:04.123456 UTC"), (748, abort));
        assert_eq!(ended(745, "ASSIGNMENT xtop 745: subxacts: 746").1, Says::Other);
    }

    #[test]
    fn what_had_not_begun_is_read() {
        let checkpoint = "CHECKPOINT_ONLINE redo 0/2000028; tli 1; prev tli 1; fpw true; xid 0:739; oid 16392; multi 1; offset 0; \
                          oldest xid 716 in DB 1; oldest multi 1 in DB 1; oldest/newest commit timestamp xid: 0/0; \
                          oldest running xid 739; online";
        assert_eq!(record("XLOG", 0, checkpoint).says, Says::Next(739));
        let running = "RUNNING_XACTS nextXid 750 latestCompletedXid 748 oldestRunningXid 749; 1 xacts: 749";
        assert_eq!(record("Standby", 0, running).says, Says::Next(750));
        assert_eq!(Record::read("pg_waldump: error: invalid record length"), None);
    }
}
