//! Rows as the data folder has them: asked of PostgreSQL itself, by their pages and by the transactions that wrote them.
//!
//! Types of the site's own are written as text, by their output functions: a cast of theirs would run the site's code as superuser.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use super::super::super::files;
use super::super::cluster;
use super::super::rewind::Here;
use super::super::single::session;
use super::changes::{Changes, Table};
use super::record::{Place, Relation, Xid};

/// Rows that are saved of a database.
const ROWS_MAX: usize = 100_000;
/// Bytes that are saved of a database's rows.
const BYTES_MAX: usize = 64 << 20;
/// Folder, beside the data, that PostgreSQL saves into.
const SAVING: &str = "saving";
/// What JSON has none of.
const SEPARATOR: char = '\u{2}';

/// What was found in a database.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The names of tables and of their databases, catalogs not among them, as members of a JSON object.
    pub(super) names: BTreeMap<Relation, String>,
    /// Rows.
    pub(super) rows: Vec<Row>,
    /// What is missing, and why.
    pub(super) faults: Vec<String>,
    /// Tables that were looked at, catalogs among them.
    pub(super) looked_at: usize,
}

/// A row that one of the transactions wrote.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) relation: Relation,
    pub(super) place: Place,
    pub(super) xid: Xid,
    /// Its columns, as JSON.
    pub(super) json: String,
}

/// Before anything else: nothing that the site's roles have made is found by an unqualified name.
const SETTINGS: [&str; 5] = [
    "set search_path = pg_catalog, pg_temp",
    "set enable_seqscan = off",
    "set synchronous_commit = off",
    "create temp table touched (space oid, file oid, pages bigint[])",
    "create temp table saved (what text, space oid, file oid, one text, two text, three text)",
];

/// Puts into `saved` every row of the touched tables that a transaction of `$1` wrote and that is there, table by table. A row has at
/// most 291 neighbours on its page. At the end, how many tables were looked at.
const SAVE: &str = r"do $save$
declare touched record; version record; relation regclass; named text; listed text; amount bigint := 0; size bigint := 0;
  looked_at bigint := 0;
  xids bigint[] := (select committed.xids from pg_temp.committed); cut boolean := false;
begin
  for touched in select * from pg_temp.touched loop
    looked_at := looked_at + 1;
    begin
      named := null;
      relation := pg_filenode_relation(touched.space, touched.file);
      if relation is null then
        raise 'it is no longer there: dropped, emptied or rewritten since';
      elsif relation = 'pg_largeobject'::regclass then
        raise 'large objects are no rows';
      end if;
      select format('%I.%I', space.nspname, class.relname),
        (select coalesce(string_agg(case when atttypid < 16384 then format('t.%I', attname)
            else format('case when t.%1$I is not null then format(''%%s'', t.%1$I) end as %1$I', attname) end, ', ' order by attnum), '')
          from pg_attribute where attrelid = class.oid and attnum > 0 and not attisdropped)
        into named, listed
        from pg_class class join pg_namespace space on space.oid = class.relnamespace
        where class.oid = relation and class.relkind = 'r' and space.nspname !~ '^pg_' and space.nspname <> 'information_schema';
      continue when named is null;
      insert into pg_temp.saved values ('table', touched.space, touched.file, to_json(named));
      continue when cut;
      for version in execute format('select t.ctid::text as place, t.xmin::text as xid,
          translate((select row_to_json(r) from (select %s) r)::text, E''\n\r\t'', ''   '') as line from only %s t
          where t.ctid = any (array(select format(''(%%s,%%s)'', page, number)::tid
              from unnest($1) page, generate_series(1, 291) number))
            and t.xmin::text::bigint = any ($2)', listed, named) using touched.pages, xids loop
        cut := amount >= ROWS_MAX or size + length(version.line) > BYTES_MAX;
        exit when cut;
        insert into pg_temp.saved values ('row', touched.space, touched.file, version.place, version.xid, version.line);
        amount := amount + 1;
        size := size + length(version.line);
      end loop;
    exception when others then
      insert into pg_temp.saved values ('fault', touched.space, touched.file,
        to_json(coalesce(named, 'the table of file ' || touched.file) || ': ' || sqlerrm));
    end;
  end loop;
  if cut then
    insert into pg_temp.saved values ('fault', 0, 0, to_json('rows are more than ROWS_MAX, or BYTES_MAX bytes: there are others'::text));
  end if;
  insert into pg_temp.saved values ('done', 0, 0, looked_at);
end $save$";

/// Finds the rows that transactions wrote, in every database that they touched.
pub(super) async fn find(changes: &Changes, here: &Here<'_>) -> Result<Found> {
    discard(here.folder)?;
    let place = &here.folder.join(SAVING);
    files::owned_folder(place, 0o700, here.account)?;
    let names = databases(place, here).await?;
    let mut all = Found::default();
    let touched: BTreeSet<u32> = changes.tables.keys().map(|relation| relation.database).collect();
    // Tables that all databases share are catalogs.
    for database in touched.into_iter().filter(|database| *database != 0) {
        match names.get(&database) {
            Some(name) => ask(database, name, changes, place, here, &mut all).await?,
            None => all.faults.push(format!("database {database} is no longer there, or cannot be named")),
        }
    }
    Ok(all)
}

/// Removes what a search has left, also one that was cut off.
pub(super) fn discard(folder: &Path) -> Result<()> {
    cluster::discard(&folder.join(SAVING))
}

/// Numbers and names of the databases.
async fn databases(place: &Path, here: &Here<'_>) -> Result<BTreeMap<u32, String>> {
    let path = place.join("databases");
    let copy = copied("select oid, datname from pg_catalog.pg_database where datname !~ '^-|[[:cntrl:]]'", &path);
    let told = session(here, "template1", &[&copy]).await?;
    let row = |line: &str| {
        let (number, name) = line.split_once(SEPARATOR)?;
        Some((number.parse().ok()?, name.to_owned()))
    };
    Ok(written(&path, &told)?.lines().filter_map(row).collect())
}

async fn ask(
    database: u32,
    name: &str,
    changes: &Changes,
    place: &Path,
    here: &Here<'_>,
    all: &mut Found,
) -> Result<()> {
    let path = place.join(database.to_string());
    let copy = copied("select * from pg_temp.saved", &path);
    let table = |(relation, table): (&Relation, &Table)| {
        let pages: Vec<String> = table.pages.iter().map(u32::to_string).collect();
        format!("({}, {}, '{{{}}}')", relation.tablespace, relation.file, pages.join(","))
    };
    let touched = changes.tables.iter().filter(|(relation, _)| relation.database == database);
    let tables: Vec<String> = touched.map(table).collect();
    let wanted = all.looked_at + tables.len();
    let tables = format!("insert into pg_temp.touched values {}", tables.join(", "));
    let xids: Vec<String> = changes.committed.keys().map(Xid::to_string).collect();
    let xids = format!("create temp table committed as select '{{{}}}'::bigint[] as xids", xids.join(","));
    let save = SAVE.replace("ROWS_MAX", &ROWS_MAX.to_string()).replace("BYTES_MAX", &BYTES_MAX.to_string());
    let statements: Vec<&str> = SETTINGS.into_iter().chain([&*tables, &*xids, &*save, &*copy]).collect();
    let told = session(here, name, &statements).await?;
    for line in written(&path, &told)?.lines() {
        take(line, database, name, all).with_context(|| format!("cannot understand what was saved of {name}"))?;
    }
    ensure!(all.looked_at == wanted, "PostgreSQL does not save the rows of {name}: {told}");
    Ok(())
}

/// Has it written to a file, in UTF-8, a line for each row, with nothing in quotes.
fn copied(what: &str, path: &Path) -> String {
    format!(
        "copy ({what}) to '{}' with (format csv, delimiter E'\\x02', quote E'\\x01', encoding 'UTF8')",
        path.display().to_string().replace('\'', "''")
    )
}

fn written(path: &Path, told: &str) -> Result<String> {
    if !path.exists() {
        bail!("PostgreSQL does not save rows: {told}");
    }
    files::read_own(path)
}

fn take(line: &str, database: u32, name: &str, all: &mut Found) -> Result<()> {
    let mut fields = line.split(SEPARATOR);
    let mut field = || fields.next().context("a line is cut off");
    let (what, tablespace, file) = (field()?, field()?.parse()?, field()?.parse()?);
    let relation = Relation { tablespace, database, file };
    match what {
        "table" => {
            let named = format!("\"database\":{},\"table\":{}", serde_json::to_string(name)?, field()?);
            all.names.insert(relation, named);
        }
        "row" => {
            let place = self::place(field()?).context("no place")?;
            let (xid, json) = (field()?.parse()?, field()?.to_owned());
            all.rows.push(Row { relation, place, xid, json });
        }
        "fault" => all.faults.push(serde_json::from_str(field()?)?),
        "done" => all.looked_at += field()?.parse::<usize>()?,
        other => bail!("{other:?} is nothing that is saved"),
    }
    Ok(())
}

/// `(7,12)`.
fn place(text: &str) -> Option<Place> {
    let (page, number) = text.strip_prefix('(')?.strip_suffix(')')?.split_once(',')?;
    Some((page.parse().ok()?, number.parse().ok()?))
}
