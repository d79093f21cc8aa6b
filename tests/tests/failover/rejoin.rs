//! What only the old leader had when it comes back: kept row by row, told until somebody has seen to it, and on no server any more.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use foobar_tests::eventually::{eventually, pause};
use foobar_tests::failover::Failover;
use foobar_tests::obtained;
use foobar_tests::process::Process;
use serde_json::{Value, json};

use crate::{PATIENCE, kept};

/// Time in which a server that waits for room would have tried several times.
const A_WHILE: Duration = Duration::from_secs(5);
const METRIC: &str = "foobar_database_diverged_transactions";

#[test]
fn what_only_the_old_leader_had_is_kept_row_by_row() -> Result<()> {
    let mut failover = Failover::start("degrade_after = \"60s\"")?;
    failover.sql(
        "db1",
        "create type mood as enum ('fine', 'odd'); \
         create table notes (id int primary key, gone int, text text, mood mood, tree json); \
         alter table notes drop column gone; \
         insert into notes values (1, 'stays'), (2, 'is changed'), (3, 'goes'), (4, 'is changed and goes')",
    )?;
    let places = failover.sql("db1", "select ctid from notes where id > 1 order by id")?;
    let places: Vec<&str> = places.lines().collect();
    // One that begins before they part, and before a checkpoint, and is committed after.
    let wait = "do $$ begin while not exists (select from pg_class where relname = 'go') loop perform pg_sleep(0.02); end loop; end $$";
    let begin = ["set role guestbook", "begin", "insert into notes values (7, 'began before')"];
    let early = [&["set synchronous_commit = local"], &begin[..], &[wait, "commit"]].concat();
    let mut early = Process::spawn("psql", &mut failover.session("db1", &early))?;
    let waits = "select count(*) from pg_stat_activity where backend_xid is not null and query like 'do %'";
    eventually(PATIENCE, "it waits", || Ok(failover.psql("db1", waits)?.trim() == "1"))?;
    failover.psql("db1", "checkpoint")?;
    failover.sql("db1", "insert into notes values (0, 'the replica has this')")?;

    failover.hold_replication("db1", "db2")?;
    let alone = |statements: &str| failover.sql("db1", &format!("set synchronous_commit = local; {statements}"));
    // Longer than what fits into a row of a page, with what JSON and the file must not trip over.
    alone(
        "insert into notes select 5, string_agg(md5(i::text), '\\n' || chr(10) || chr(9) || '\"'), 'odd', E'{\"a\":\\n[1, 2]}' \
         from generate_series(1, 3000) i",
    )?;
    alone("update notes set text = 'was changed' where id = 2")?;
    alone("update notes set text = 'was changed again' where id = 2")?;
    alone("delete from notes where id = 3")?;
    alone("update notes set text = 'was changed' where id = 4")?;
    alone("delete from notes where id = 4")?;
    alone("insert into notes values (8, 'comes and goes'); delete from notes where id = 8")?;
    alone("begin; insert into notes values (9, 'never was'); rollback")?;
    alone(
        "begin; savepoint s; insert into notes values (10, 'never was'); rollback to s; insert into notes values (11, 'was'); commit",
    )?;
    failover.psql(
        "db1",
        "set synchronous_commit = local; copy notes (id, text) from program 'printf \"12\\tcopied\\n\"'",
    )?;
    alone("create table go ()")?;
    ensure!(early.wait(PATIENCE)?.success(), "it is not committed");
    let long = failover.sql("db1", "select md5(text) from notes where id = 5")?;
    // What is set for clients does not keep rows from being saved.
    failover.psql("db1", "alter system set statement_timeout = '1ms'")?;

    failover.kill_server("db1")?;
    eventually(PATIENCE, "another server leads", || Ok(failover.leader_elsewhere("db1")))?;
    failover.release_replication("db1")?;
    failover.start_agent("db1")?;
    failover.settled("db2").with_context(|| failover.told())?;

    let path = obtained(PATIENCE, "rows are kept", || Ok(kept::files(&failover, "db1")?.pop()))?;
    let (summary, mut rows) = kept::read(&path)?;
    let digest = rows.iter_mut().find(|row| row["row"]["id"] == 5).map(|row| {
        let text = row["row"]["text"].take();
        md5(&failover, text.as_str().unwrap_or_default())
    });
    ensure!(digest.context("the long row")?? == long, "the long row is another");
    for row in &mut rows {
        let xid = row.as_object_mut().and_then(|row| row.remove("transaction"));
        ensure!(xid.as_ref().is_some_and(Value::is_u64), "{row} is of no transaction");
    }
    let insert = |id: u32, text: Value, mood: Value, tree: Value| {
        let row = json!({ "id": id, "text": text, "mood": mood, "tree": tree });
        json!({ "change": "insert", "database": "guestbook", "table": "public.notes", "row": row })
    };
    let none = || Value::Null;
    let update = |was: &str, row: Value| json!({ "change": "update", "database": "guestbook", "table": "public.notes", "was": was, "row": row });
    let delete =
        |was: &str| json!({ "change": "delete", "database": "guestbook", "table": "public.notes", "was": was });
    let mut expected = vec![
        insert(5, none(), json!("odd"), json!({ "a": [1, 2] })),
        insert(7, json!("began before"), none(), none()),
        insert(11, json!("was"), none(), none()),
        insert(12, json!("copied"), none(), none()),
        update(places[0], json!({ "id": 2, "text": "was changed again", "mood": null, "tree": null })),
        delete(places[1]),
        delete(places[2]),
    ];
    for list in [&mut rows, &mut expected] {
        list.sort_by_key(Value::to_string);
    }
    ensure!(rows == expected, "kept: {rows:#?}");
    let counts = ["inserted", "updated", "deleted"].map(|what| summary[what].as_u64());
    ensure!(counts == [Some(4), Some(1), Some(2)] && summary["missing"] == json!([]), "{summary}");
    told_until_removed(&failover, &path, summary["transactions"].as_u64().context("a number")?)?;

    let all = "select string_agg(id || ' ' || text, ', ' order by id) from notes";
    let same = "0 the replica has this, 1 stays, 2 is changed, 3 goes, 4 is changed and goes";
    for server in ["db2", "db1"] {
        eventually(PATIENCE, "only what both had is there", || Ok(failover.sql(server, all)?.trim() == same))?;
    }
    Ok(())
}

#[test]
fn where_not_all_can_be_saved_the_data_is_kept_aside() -> Result<()> {
    let mut failover = Failover::start("degrade_after = \"60s\"")?;
    failover.hold_replication("db1", "db2")?;
    failover.sql("db1", "set synchronous_commit = local; insert into acknowledged values (0, 1)")?;
    // Without its language nothing looks at the tables.
    failover.psql("db1", "set synchronous_commit = local; drop extension plpgsql")?;
    // No further copy is made, until an operator has looked at those.
    let before: Vec<PathBuf> =
        (1..=3).map(|number| failover.postgres_folder("db1").join(format!("data.before-{number}"))).collect();
    before.iter().try_for_each(fs::create_dir)?;
    failover.kill_server("db1")?;
    eventually(PATIENCE, "another server leads", || Ok(failover.leader_elsewhere("db1")))?;
    failover.release_replication("db1")?;
    failover.start_agent("db1")?;

    eventually(PATIENCE, "it waits for room", || {
        Ok(failover.cluster().ask("db1", &["process", "list"])?.contains("kept 3 times already"))
    })
    .with_context(|| failover.told())?;
    let checkpoints = || failover.psql("db2", "select checkpoints_req from pg_stat_bgwriter");
    let count = checkpoints()?;
    pause(A_WHILE, || false);
    ensure!(checkpoints()? == count, "the leader writes one checkpoint after the other");
    before.iter().try_for_each(fs::remove_dir)?;
    failover.settled("db2")?;

    let summary = kept::aside_and_told(&failover, "db1")?;
    ensure!(summary["transactions"].as_u64() > Some(0), "{summary}");
    Ok(())
}

fn md5(failover: &Failover, text: &str) -> Result<String> {
    failover.psql("db2", &format!("select md5('{}')", text.replace('\'', "''")))
}

/// By status, metric and note, on every server.
fn told_until_removed(failover: &Failover, path: &PathBuf, transactions: u64) -> Result<()> {
    ensure!(transactions >= 9, "{transactions} transactions");
    let told = |count: u64| {
        let (status, metrics) = (failover.status("db1")?, failover.cluster().metrics("db1")?);
        let files = status["diverged_files"].as_array().map_or(0, Vec::len) as u64;
        let samples: Vec<f64> = metrics.find(METRIC, &[]).map(|sample| sample.value).collect();
        #[expect(clippy::cast_precision_loss, reason = "a few transactions")]
        let wanted = [count as f64];
        Ok(status["diverged_transactions"] == count && files == count.min(1) && samples == wanted)
    };
    eventually(PATIENCE, "it is told", || told(transactions))?;
    let noted = || Ok(failover.cluster().ask("db2", &["db", "status"])?.contains("were committed here alone are kept"));
    eventually(PATIENCE, "the other server tells it too", noted)?;
    ensure!(failover.cluster().ask("db1", &["db", "status"])?.contains(&path.display().to_string()), "no path");
    fs::remove_file(path)?;
    eventually(PATIENCE, "nothing is told any more", || told(0))
}
