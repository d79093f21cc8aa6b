//! Named sets: their files read whole or not at all, and which of them overlap.

mod file;
mod overlap;

use std::path::Path;

use ipnet::IpNet;

pub use file::{BAD_LINES_MAX, BadLine, FileError, read_file};
pub(super) use overlap::overlaps;

use super::Set;

/// Most prefixes of one set.
pub const PREFIXES_MAX: usize = 1_000_000;
/// Most prefixes of all sets of one server.
pub const SERVER_PREFIXES_MAX: usize = 2_000_000;
/// Most sets of a site.
pub const SETS_MAX: usize = 64;

/// Everything that a set holds: the site file's prefixes, then its own file's.
///
/// # Errors
/// Its file cannot be read or has bad lines.
pub fn read(set: &Set) -> Result<Vec<IpNet>, FileError> {
    let inline = set.prefixes.iter().map(|prefix| prefix.value);
    join(inline.collect(), set.file.as_ref().map(|file| file.value.as_path()))
}

/// Prefixes, and those of a file, where there is one.
///
/// # Errors
/// The file cannot be read or has bad lines, or both together are too many.
pub fn join(mut prefixes: Vec<IpNet>, file: Option<&Path>) -> Result<Vec<IpNet>, FileError> {
    if let Some(file) = file {
        let more = read_file(file)?;
        if prefixes.is_empty() {
            prefixes = more;
        } else {
            prefixes.extend(more);
        }
        if prefixes.len() > PREFIXES_MAX {
            return Err(FileError::TooMany { file: file.to_owned() });
        }
    }
    Ok(prefixes)
}
