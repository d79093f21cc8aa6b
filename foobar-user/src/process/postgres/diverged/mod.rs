//! What was committed here alone, after this server's history and its leader's parted: saved for people before it is rewound away.
//!
//! Two files tell of each parting: its rows as JSON, a line for each, and its log records. What is not saved whole is not rewound away:
//! the data is kept as it is then, and the leader copied anew.

mod changes;
mod dump;
mod file;
mod record;
mod rows;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};

use self::changes::{Changes, Reader};
pub use self::file::Diverged;
use self::file::{Kept, Summary};
use self::rows::Found;
use super::super::board::ProcessState;
use super::super::files;
use super::control::{Control, position};
use super::grip::STANDBY_SIGNAL;
use super::rewind::{Here, Parted};

/// Time that reading the log may take, and the same for its rows.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of log records that are kept as text.
const TEXT_MAX: usize = 16 << 20;

/// Saves it.
///
/// # Errors
/// It is not saved whole: it must not be rewound away.
pub(super) async fn save(parted: &Parted, leader: &str, here: &Here<'_>) -> Result<()> {
    let kept = Kept::of(parted, here.folder);
    if kept.records.exists() {
        info!("what was committed here alone is kept in {} already", kept.records.display());
        ensure!(kept.is_whole(), "not all that was committed here alone is in {}", kept.rows.display());
        return Ok(());
    }
    around(here, "saving what was committed here alone");
    let (changes, text) = read(parted, here).await.unwrap_or_else(|error| {
        warn!("what was committed here alone cannot be read: {error:#}");
        (Changes { cut: true, ..Changes::default() }, String::new())
    });
    if changes.committed.is_empty() && !changes.cut {
        info!("no transaction was committed here after the histories parted at {}", parted.position);
        return Ok(());
    }
    let found = find(&changes, here).await;
    let (summary, lines) = file::told(parted, leader, &changes, &found);
    keep(&kept, &summary, &lines, &text).context("what was committed here alone cannot be kept")?;
    tell(&kept, &summary);
    ensure!(summary.is_whole(), "not all that was committed here alone is saved: {}", summary.missing.join("; "));
    Ok(())
}

fn around(here: &Here<'_>, message: &str) {
    here.around.reporter.state(ProcessState::Starting, Some(message.to_owned()));
}

/// Reads the log from the last checkpoint that both have had, and further back for transactions that are older.
async fn read(parted: &Parted, here: &Here<'_>) -> Result<(Changes, String)> {
    let at = position(&parted.position).context("pg_rewind names no position")?;
    let from = parted.checkpoint.as_deref().and_then(position).unwrap_or(at);
    let control = Control::read(here.data).await?;
    let spans = dump::history(here.data, control.timeline().unwrap_or(parted.timeline))?;
    let deadline = Instant::now() + PATIENCE;
    let (mut reader, mut text) = (Reader::new(at), String::new());
    for span in dump::since(&spans, from) {
        let keep = |record: &record::Record, line: &str| {
            if record.at >= at && text.len() + line.len() <= TEXT_MAX {
                text.push_str(line);
            }
        };
        dump::read(span, here, deadline, &mut reader, keep).await?;
    }
    reader.must_reach(control.checkpoint().context("the control file names no checkpoint")?);
    if reader.began_early() {
        // Nothing that ended before that is of interest.
        let mut earlier = Reader::new(u64::MAX);
        for span in dump::before(&spans, from, here.data) {
            dump::read(span, here, deadline, &mut earlier, |_, _| {}).await?;
        }
        reader.add_earlier(earlier);
    }
    Ok((reader.finish(), text))
}

/// The rows, as far as they can be had.
async fn find(changes: &Changes, here: &Here<'_>) -> Found {
    let none = |why: String| Found { faults: vec![why], ..Found::default() };
    if here.data.join(STANDBY_SIGNAL).exists() {
        return none("this server was a replica, and PostgreSQL opens a replica's data only as one".to_owned());
    }
    let found = timeout_at(Instant::now() + PATIENCE, rows::find(changes, here)).await;
    if let Err(error) = rows::discard(here.folder) {
        warn!("{error:#}");
    }
    match found {
        Ok(found) => found.unwrap_or_else(|error| none(format!("{error:#}"))),
        Err(_) => none(format!("it took more than {} s", PATIENCE.as_secs())),
    }
}

/// Writes both files, durably. Log records are last: once they are there, nothing is saved again.
fn keep(kept: &Kept, summary: &Summary, lines: &str, text: &str) -> Result<()> {
    if summary.tells() {
        write(&kept.rows, lines)?;
    }
    write(&kept.records, text)
}

fn write(path: &Path, text: &str) -> Result<()> {
    files::write_if_changed(path, text, 0o600, None)?;
    files::sync_folder(path.parent().context("a file is in a folder")?)
}

fn tell(kept: &Kept, summary: &Summary) {
    let Summary { leader, position, timeline, .. } = summary;
    let records = kept.records.display();
    if !summary.tells() {
        info!(
            "{} transactions were committed here after the histories parted at {position} of timeline {timeline}, none of which changed a \
             table's rows: {leader} lacks them, and they are kept as log records in {records}",
            summary.others
        );
        return;
    }
    let missing = if summary.is_whole() { String::new() } else { format!("; missing: {}", summary.missing.join("; ")) };
    warn!(
        "{} transactions were committed here after the histories parted at {position} of timeline {timeline}, which {leader} lacks: {} rows \
         inserted, {} updated and {} deleted are kept in {}, log records in {records}{missing}",
        summary.transactions,
        summary.inserted,
        summary.updated,
        summary.deleted,
        kept.rows.display(),
    );
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn parted() -> Parted {
        Parted { position: "0/3000060".to_owned(), timeline: 1, checkpoint: None }
    }

    fn summary(transactions: usize, missing: &[&str]) -> (Summary, String) {
        let missing = missing.iter().map(|what| (*what).to_owned()).collect();
        let summary = Summary { transactions, missing, ..Summary::default() };
        let line = serde_json::to_string(&summary).expect("a line");
        (summary, line + "\n")
    }

    #[test]
    fn nothing_counts_as_kept_before_its_rows_are() {
        let folder = tempfile::tempdir().expect("a folder");
        let kept = Kept::of(&parted(), folder.path());
        let (summary, lines) = summary(1, &[]);
        fs::create_dir(&kept.rows).expect("what is in the way");
        assert!(keep(&kept, &summary, &lines, "records").is_err() && !kept.records.exists());
        fs::remove_dir(&kept.rows).expect("no longer");
        keep(&kept, &summary, &lines, "records").expect("it is kept");
        assert!(kept.records.exists() && kept.is_whole());
        let told = Diverged::look(folder.path());
        assert_eq!((told.transactions, told.files), (1, vec![kept.rows.clone()]));
        fs::remove_file(&kept.rows).expect("somebody has seen to it");
        assert!(kept.is_whole());
    }

    #[test]
    fn what_is_not_whole_is_told_with_the_data_of_before() {
        let folder = tempfile::tempdir().expect("a folder");
        let kept = Kept::of(&parted(), folder.path());
        let (summary, lines) = summary(0, &["rows"]);
        keep(&kept, &summary, &lines, "").expect("it is kept");
        assert!(!kept.is_whole());
        let aside = folder.path().join("data.before-1");
        fs::create_dir(&aside).expect("a folder");
        let told = Diverged::look(folder.path());
        assert_eq!((told.transactions, told.files), (1, vec![aside, kept.rows]));
    }

    #[test]
    fn what_changed_no_row_is_kept_as_log_records_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let kept = Kept::of(&parted(), folder.path());
        let (summary, lines) = summary(0, &[]);
        keep(&kept, &summary, &lines, "records").expect("it is kept");
        assert!(kept.records.exists() && !kept.rows.exists() && kept.is_whole());
        assert_eq!(Diverged::look(folder.path()), Diverged::default());
    }
}
