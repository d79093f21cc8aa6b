//! What was committed here alone, after this server's history and its leader's parted: saved for people before it is rewound away.
//!
//! Two files tell of each parting: its log records, and its rows as JSON, a line for each. Whatever cannot be saved is told, and keeps
//! nobody from coming back.

mod changes;
mod dump;
mod file;
mod record;
mod rows;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};

use self::changes::{Changes, Reader};
pub use self::file::Diverged;
use self::file::Kept;
use self::rows::Found;
use super::super::board::ProcessState;
use super::super::files;
use super::control::{Control, position};
use super::rewind::{Here, Parted};

/// Time that reading the log may take, and the same for its rows.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of log records that are kept as text.
const TEXT_MAX: usize = 16 << 20;

/// Whether the data are as they were, or have to be recovered once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    InOrder,
    Interrupted,
}

/// Saves it.
pub(super) async fn save(parted: &Parted, leader: &str, here: &Here<'_>) -> Left {
    let kept = Kept::of(parted, here.folder);
    if kept.records.exists() {
        info!("what was committed here alone is kept in {} already", kept.records.display());
        return Left::InOrder;
    }
    around(here, "saving what was committed here alone");
    let (changes, text) = match read(parted, here).await {
        Ok(read) => read,
        Err(error) => {
            warn!("what is rewound away cannot be saved: {error:#}");
            return Left::InOrder;
        }
    };
    if changes.committed.is_empty() {
        info!("no transaction was committed here after the histories parted at {}", parted.position);
        return Left::InOrder;
    }
    let (found, left) = find(&changes, here).await;
    if let Err(error) = keep(&kept, parted, leader, &changes, &found, &text) {
        warn!("what is rewound away cannot be kept: {error:#}");
    }
    left
}

fn around(here: &Here<'_>, message: &str) {
    here.around.reporter.state(ProcessState::Starting, Some(message.to_owned()));
}

/// Reads the log from the last checkpoint that both have had, and further back for transactions that are older.
async fn read(parted: &Parted, here: &Here<'_>) -> Result<(Changes, String)> {
    let at = position(&parted.position).context("pg_rewind names no position")?;
    let from = parted.checkpoint.as_deref().and_then(position).unwrap_or(at);
    let timeline = Control::read(here.data).await?.timeline().unwrap_or(parted.timeline);
    let spans = dump::history(here.data, timeline)?;
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
async fn find(changes: &Changes, here: &Here<'_>) -> (Found, Left) {
    let none = |why: String| Found { faults: vec![why], ..Found::default() };
    if here.data.join(super::grip::STANDBY_SIGNAL).exists() {
        // PostgreSQL opens a replica's data only as one; who has committed all of this keeps its rows.
        return (none("this server was a replica: see the log records".to_owned()), Left::InOrder);
    }
    let found = timeout_at(Instant::now() + PATIENCE, rows::find(changes, here)).await;
    if let Err(error) = rows::discard(here.folder) {
        warn!("{error:#}");
    }
    match found {
        Ok(Ok(found)) => (found, Left::InOrder),
        Ok(Err(error)) => (none(format!("{error:#}")), Left::Interrupted),
        Err(_) => (none(format!("it took more than {} s", PATIENCE.as_secs())), Left::Interrupted),
    }
}

fn keep(kept: &Kept, parted: &Parted, leader: &str, changes: &Changes, found: &Found, text: &str) -> Result<()> {
    files::write_if_changed(&kept.records, text, 0o600, None)?;
    let (summary, lines) = file::told(parted, leader, changes, found);
    if summary.transactions == 0 {
        info!(
            "{} transactions were committed here after the histories parted at {} of timeline {}, none of which changed a table's rows: \
             they are rewound away, and kept as log records in {}",
            summary.others,
            parted.position,
            parted.timeline,
            kept.records.display()
        );
        return Ok(());
    }
    files::write_if_changed(&kept.rows, &lines, 0o600, None)?;
    warn!(
        "{} transactions were committed here after the histories parted at {} of timeline {}, which nobody was told: they are rewound \
         away. {} rows inserted, {} updated and {} deleted are kept in {}, log records in {}{}",
        summary.transactions,
        parted.position,
        parted.timeline,
        summary.inserted,
        summary.updated,
        summary.deleted,
        kept.rows.display(),
        kept.records.display(),
        if summary.missing.is_empty() { String::new() } else { format!("; missing: {}", summary.missing.join("; ")) }
    );
    files::sync_folder(kept.rows.parent().unwrap_or(Path::new("/")))
}
