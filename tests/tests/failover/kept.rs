//! What a server keeps beside its data: rows that only it had, and data of before.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use foobar_tests::eventually;
use foobar_tests::failover::Failover;
use serde_json::{Value, json};

use crate::PATIENCE;

/// The files with rows.
pub(crate) fn files(failover: &Failover, server: &str) -> Result<Vec<PathBuf>> {
    beside(failover, server, |name| name.starts_with("diverged-") && name.ends_with(".jsonl"))
}

/// The data folders of before.
pub(crate) fn aside(failover: &Failover, server: &str) -> Result<Vec<PathBuf>> {
    beside(failover, server, |name| name.starts_with("data.before-"))
}

fn beside(failover: &Failover, server: &str, is_one: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(failover.postgres_folder(server))?.filter_map(Result::ok);
    Ok(entries.filter(|entry| is_one(&entry.file_name().to_string_lossy())).map(|entry| entry.path()).collect())
}

/// The summary of a file, and its rows.
pub(crate) fn read(path: &Path) -> Result<(Value, Vec<Value>)> {
    let text = fs::read_to_string(path)?;
    let mut lines = text.lines().map(serde_json::from_str);
    let summary = lines.next().context("a summary")??;
    Ok((summary, lines.collect::<Result<_, _>>()?))
}

/// Fails unless all of these rows of writers are in the files of a server, where nothing is missing.
pub(crate) fn has_rows(failover: &Failover, server: &str, wanted: &[(i64, i64)]) -> Result<()> {
    let mut kept = BTreeSet::new();
    for path in files(failover, server)? {
        let (summary, rows) = read(&path)?;
        ensure!(summary["missing"] == json!([]), "{summary}");
        let keys = rows.iter().map(|row| (row["row"]["writer"].as_i64(), row["row"]["number"].as_i64()));
        kept.extend(keys.filter_map(|(writer, number)| Some((writer?, number?))));
    }
    let lacking = wanted.iter().filter(|key| !kept.contains(key)).count();
    ensure!(lacking == 0, "{lacking} of {} rows are not among the {} that are kept", wanted.len(), kept.len());
    Ok(())
}

/// Fails unless a server has kept its data of before, once, and a file that says that something is missing, both of which it tells.
/// Returns the file's summary.
pub(crate) fn aside_and_told(failover: &Failover, server: &str) -> Result<Value> {
    let (aside, files) = (aside(failover, server)?, files(failover, server)?);
    ensure!(aside.len() == 1 && files.len() == 1, "kept: {aside:?}, {files:?}");
    ensure!(aside[0].join("PG_VERSION").exists(), "{} is no data folder", aside[0].display());
    let (summary, _) = read(&files[0])?;
    ensure!(summary["missing"] != json!([]), "{summary}");
    eventually(PATIENCE, "both are told", || {
        let told = failover.cluster().ask(server, &["db", "status"])?;
        Ok(aside.iter().chain(&files).all(|path| told.contains(&path.display().to_string())))
    })?;
    Ok(summary)
}
