//! The log of a data folder that nothing runs on, read by `pg_waldump` from one timeline to the next.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::time::{Instant, timeout_at};

use super::super::control::position;
use super::super::leader::helper;
use super::super::rewind::Here;
use super::changes::Reader;
use super::record::Record;

/// Size of a file of the log, as initdb makes it; in bytes.
const SEGMENT: u64 = 16 << 20;

/// A stretch of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    timeline: u32,
    begin: u64,
    /// Where the next timeline begins; `None`: it goes on to the end of the log.
    end: Option<u64>,
}

/// The stretches that the log of a timeline consists of, by its history.
pub(super) fn history(data: &Path, timeline: u32) -> Result<Vec<Span>> {
    if timeline == 1 {
        return Ok(spans("", 1));
    }
    let path = data.join(format!("pg_wal/{timeline:08X}.history"));
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(spans(&text, timeline))
}

fn spans(history: &str, timeline: u32) -> Vec<Span> {
    let mut begin = 0;
    let mut spans = Vec::new();
    for line in history.lines() {
        let mut words = line.split_whitespace();
        let (Some(timeline), Some(end)) =
            (words.next().and_then(|word| word.parse().ok()), words.next().and_then(position))
        else {
            continue;
        };
        spans.push(Span { timeline, begin, end: Some(end) });
        begin = end;
    }
    spans.push(Span { timeline, begin, end: None });
    spans
}

/// The part of the log from this position on.
pub(super) fn since(spans: &[Span], begin: u64) -> Vec<Span> {
    let later = spans.iter().filter(|span| span.end.is_none_or(|end| end > begin));
    later.map(|span| Span { begin: span.begin.max(begin), ..*span }).collect()
}

/// The part of the log before this position, as far as the data folder has it.
pub(super) fn before(spans: &[Span], end: u64, data: &Path) -> Vec<Span> {
    let names = fs::read_dir(data.join("pg_wal")).into_iter().flatten().flatten();
    let segments: Vec<(u32, u64)> = names.filter_map(|entry| segment(entry.file_name().to_str()?)).collect();
    let of = |span: &Span| {
        let kept = segments.iter().filter(|(timeline, _)| *timeline == span.timeline).map(|(_, begin)| *begin).min()?;
        let end = span.end.map_or(end, |other| other.min(end));
        let begin = span.begin.max(kept);
        (begin < end).then_some(Span { begin, end: Some(end), ..*span })
    };
    spans.iter().filter_map(of).collect()
}

/// Timeline and beginning of a file of the log, by its name: three numbers of eight hexadecimal digits.
fn segment(name: &str) -> Option<(u32, u64)> {
    let number = |at: usize| u32::from_str_radix(name.get(at..at + 8)?, 16).ok();
    let (timeline, high, low) = (number(0)?, number(8)?, number(16)?);
    (name.len() == 24).then_some((timeline, (u64::from(high) << 32) + u64::from(low) * SEGMENT))
}

/// Has the reader take in a stretch, until the deadline; `keep` gets the lines.
pub(super) async fn read(
    span: Span,
    here: &Here<'_>,
    deadline: Instant,
    reader: &mut Reader,
    mut keep: impl FnMut(&Record, &str),
) -> Result<()> {
    let lsn = |at: u64| format!("{:X}/{:X}", at >> 32, at & 0xffff_ffff);
    let mut dump = helper("pg_waldump", here.account, here.around)?;
    dump.arg("--path").arg(here.data.join("pg_wal"));
    dump.args(["--timeline", &span.timeline.to_string(), "--start", &lsn(span.begin)]);
    dump.args(span.end.map(|end| format!("--end={}", lsn(end))));
    let mut child = dump.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().context("cannot run pg_waldump")?;
    let mut output = BufReader::new(child.stdout.take().context("pg_waldump has no output")?);
    let mut line = Vec::new();
    loop {
        line.clear();
        match timeout_at(deadline, output.read_until(b'\n', &mut line)).await {
            Ok(Ok(0)) => break,
            Ok(read) => read.context("cannot read what pg_waldump tells")?,
            Err(_) => {
                reader.cut();
                return Ok(());
            }
        };
        let text = String::from_utf8_lossy(&line);
        if let Some(record) = Record::read(text.trim_end()) {
            reader.take(&record);
            keep(&record, &text);
        }
    }
    let status = child.wait().await.context("cannot await pg_waldump")?;
    // The end of the log is no record, which is an error of it; before that it is one of ours.
    let is_end = span.end.is_none() && status.code().is_some();
    if !status.success() && !is_end {
        reader.cut();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_read_from_timeline_to_timeline() {
        let all = spans("1\t0/3000060\tno recovery target specified\n\n2\t1/4000000\tafter\n", 5);
        let span = |timeline, begin, end| Span { timeline, begin, end };
        let (first, second) = (0x300_0060, 0x1_0400_0000);
        assert_eq!(all, [span(1, 0, Some(first)), span(2, first, Some(second)), span(5, second, None)]);
        assert_eq!(since(&all, 0x400_0000), [span(2, 0x400_0000, Some(second)), span(5, second, None)]);
        assert_eq!(since(&all, second), [span(5, second, None)]);
        assert_eq!(spans("", 1), [span(1, 0, None)]);
    }

    #[test]
    fn what_is_left_of_the_log_is_known_by_its_files() {
        let data = tempfile::tempdir().expect("a folder");
        let folder = data.path().join("pg_wal");
        fs::create_dir(&folder).expect("a folder");
        for name in
            ["000000010000000000000002", "000000010000000000000003", "000000020000000000000003", "00000002.history"]
        {
            fs::write(folder.join(name), "").expect("a file");
        }
        let all = spans("1\t0/3000060\tafter\n", 2);
        let span = |timeline, begin, end| Span { timeline, begin, end: Some(end) };
        let wanted = [span(1, 0x200_0000, 0x300_0060), span(2, 0x300_0060, 0x380_0000)];
        assert_eq!(before(&all, 0x380_0000, data.path()), wanted);
        assert_eq!(before(&all, 0x210_0000, data.path()), [span(1, 0x200_0000, 0x210_0000)]);
    }
}
