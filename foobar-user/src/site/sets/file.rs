//! A set's file: one prefix or address a line, `#` begins a comment; read as a stream, all bad lines told up to a bound.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use ipnet::IpNet;

use super::PREFIXES_MAX;
use crate::site::text;

/// So many bad lines are told; the others are counted.
pub const BAD_LINES_MAX: usize = 20;
/// Longest line, in bytes: prefixes are short, and a binary file is found out at once.
const LINE_MAX: usize = 512;
/// Largest file, so that a mistaken path ends.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// A line that is no prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadLine {
    /// Its number, from 1.
    pub line: usize,
    /// What is wrong with it, and what to do.
    pub why: String,
}

/// Why a set's file was refused.
#[derive(Debug)]
pub enum FileError {
    /// It cannot be read.
    Io {
        /// Its path.
        file: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It is a folder or a device, or far too large.
    NoSetFile {
        /// Its path.
        file: PathBuf,
        /// What it is instead.
        why: String,
    },
    /// Lines of it are no prefixes.
    Lines {
        /// Its path.
        file: PathBuf,
        /// The first of them.
        first: Vec<BadLine>,
        /// How many more there are.
        more: usize,
    },
    /// It holds more prefixes than a set may.
    TooMany {
        /// Its path.
        file: PathBuf,
    },
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { file, error } if error.kind() == io::ErrorKind::NotFound => {
                write!(f, "{} is not on this machine; put it there, an empty file for an empty set", file.display())
            }
            Self::Io { file, error } => write!(f, "cannot read {}: {error}", file.display()),
            Self::NoSetFile { file, why } => write!(f, "{} {why}; name a file of prefixes, one a line", file.display()),
            Self::TooMany { file } => {
                write!(
                    f,
                    "with {} the set holds more than {PREFIXES_MAX} prefixes; split it in two sets",
                    file.display()
                )
            }
            Self::Lines { file, first, more } => {
                write!(f, "{} has lines that are no prefixes, and none of it is taken:", file.display())?;
                for bad in first {
                    write!(f, "\n  {}:{}: {}", file.display(), bad.line, bad.why)?;
                }
                if *more > 0 {
                    write!(f, "\n  and {more} more")?;
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for FileError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { error, .. } => Some(error),
            _ => None,
        }
    }
}

/// The prefixes of a set's file, in its order; duplicates are kept.
///
/// # Errors
/// The file cannot be read, or a line of it is bad: then nothing of it is taken.
pub fn read_file(path: &Path) -> Result<Vec<IpNet>, FileError> {
    let failed = |error| FileError::Io { file: path.to_owned(), error };
    let no_set_file = |why: String| FileError::NoSetFile { file: path.to_owned(), why };
    // Asked before it is opened: opening a pipe would wait for its writer.
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() {
        return Err(no_set_file("is no file".to_owned()));
    }
    if metadata.len() > FILE_BYTES_MAX {
        return Err(no_set_file(format!("is larger than {FILE_BYTES_MAX} bytes")));
    }
    let mut reader = BufReader::with_capacity(1 << 16, File::open(path).map_err(failed)?).take(FILE_BYTES_MAX);
    let mut prefixes = Vec::new();
    let (mut first, mut more) = (Vec::new(), 0);
    let mut bytes = Vec::with_capacity(LINE_MAX);
    let mut number = 0;
    while next_line(&mut reader, &mut bytes).map_err(failed)? {
        number += 1;
        match line(&bytes) {
            Ok(None) => {}
            Ok(Some(_)) if prefixes.len() == PREFIXES_MAX => return Err(FileError::TooMany { file: path.to_owned() }),
            Ok(Some(prefix)) => prefixes.push(prefix),
            Err(why) if first.len() < BAD_LINES_MAX => first.push(BadLine { line: number, why }),
            Err(_) => more += 1,
        }
    }
    if first.is_empty() { Ok(prefixes) } else { Err(FileError::Lines { file: path.to_owned(), first, more }) }
}

/// Reads the next line without its end, at most one byte more than a line may have; false at the end of the file.
fn next_line(reader: &mut impl BufRead, bytes: &mut Vec<u8>) -> io::Result<bool> {
    bytes.clear();
    if reader.by_ref().take(LINE_MAX as u64 + 1).read_until(b'\n', bytes)? == 0 {
        return Ok(false);
    }
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    } else if bytes.len() > LINE_MAX {
        reader.skip_until(b'\n')?;
    }
    Ok(true)
}

/// A line's prefix; `None`: it is empty or a comment.
fn line(bytes: &[u8]) -> Result<Option<IpNet>, String> {
    if bytes.len() > LINE_MAX {
        return Err(format!("the line is longer than {LINE_MAX} bytes; write one prefix a line"));
    }
    let content = bytes.split(|byte| *byte == b'#').next().unwrap_or_default().trim_ascii();
    if content.is_empty() {
        return Ok(None);
    }
    let content = std::str::from_utf8(content).map_err(|_| "this is not UTF-8; is this the right file?".to_owned())?;
    text::prefix(content).map(Some)
}
