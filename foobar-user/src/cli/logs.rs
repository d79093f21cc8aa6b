//! `foobar logs`: the end of a process's output, and what comes.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use foobar_user::agent::logs_folder;

/// Time between two looks at a log that is followed.
const LOOK: Duration = Duration::from_millis(100);
/// Bytes that are read at a time.
const CHUNK: usize = 64 << 10;

#[derive(Debug, Args)]
pub(super) struct LogsArguments {
    /// The server.
    #[arg(long)]
    server: String,
    /// Folder of what survives a reboot, as `foobar agent` was given it.
    #[arg(long, default_value = "/var/lib/foobar")]
    state_dir: PathBuf,
    /// The process.
    name: String,
    /// Show what comes, too, until this is interrupted.
    #[arg(short, long)]
    follow: bool,
    /// Lines of what is there; older output may be in a file beside it.
    #[arg(short = 'n', long, default_value_t = 100)]
    lines: usize,
}

/// Reads the log itself: also without an agent.
pub(super) fn logs(arguments: &LogsArguments) -> Result<()> {
    let folder = logs_folder(&arguments.state_dir, &arguments.server);
    let path = folder.join(format!("{}.log", arguments.name));
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => bail!(no_log(&folder, arguments)),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let mut at = start_of_last(&mut file, arguments.lines)?;
    loop {
        at += copy_from(&mut file, at)?;
        if !arguments.follow {
            return Ok(());
        }
        sleep(LOOK);
        if file.metadata()?.len() < at {
            // Turned over: it goes on at the start.
            at = 0;
        }
    }
}

fn no_log(folder: &Path, arguments: &LogsArguments) -> String {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().to_string_lossy().strip_suffix(".log").map(str::to_owned))
        .collect();
    names.sort_unstable();
    let known =
        if names.is_empty() { "there is none at all".to_owned() } else { format!("there are {}", names.join(", ")) };
    format!("no output of a process `{}` is in {}; {known}: is this the --state-dir?", arguments.name, folder.display())
}

/// Where the last lines begin.
fn start_of_last(file: &mut File, lines: usize) -> Result<u64> {
    let mut end = file.metadata()?.len();
    let length = end;
    let mut wanted = lines;
    let mut chunk = vec![0; CHUNK];
    while end > 0 && wanted > 0 {
        let start = end.saturating_sub(CHUNK as u64);
        let part = &mut chunk[..usize::try_from(end - start)?];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(part)?;
        for (index, byte) in part.iter().enumerate().rev() {
            let place = start + index as u64;
            // The line break at the very end ends the last line, and begins none.
            if *byte == b'\n' && place + 1 != length {
                wanted -= 1;
                if wanted == 0 {
                    return Ok(place + 1);
                }
            }
        }
        end = start;
    }
    Ok(if lines == 0 { length } else { 0 })
}

/// Prints what is there from a place on; returns how much that was.
fn copy_from(file: &mut File, at: u64) -> Result<u64> {
    file.seek(SeekFrom::Start(at))?;
    let mut out = io::stdout().lock();
    let copied = io::copy(file, &mut out).and_then(|copied| out.flush().map(|()| copied));
    match copied {
        // Who read it has enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        copied => copied.context("cannot show the log"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_lines_are_found_from_the_end() {
        let mut file = tempfile::tempfile().unwrap();
        let start = |file: &mut File, lines| start_of_last(file, lines).unwrap();
        assert_eq!(start(&mut file, 3), 0);
        file.write_all(b"one\ntwo\nthree\n").unwrap();
        assert_eq!([0, 1, 2, 3, 9].map(|lines| start(&mut file, lines)), [14, 8, 4, 0, 0]);
        file.write_all(b"four").unwrap();
        assert_eq!([1, 2].map(|lines| start(&mut file, lines)), [14, 8]);
        file.write_all(&vec![b'x'; 3 * CHUNK]).unwrap();
        assert_eq!(start(&mut file, 1), 14, "a line longer than a chunk");
    }
}
