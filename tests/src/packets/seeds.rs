//! Seeds of the fuzz target `packet` (`foobar-common/fuzz`): the frames of each named case, one after the other.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::case::Case;
use super::tables;

/// Writes a file for each case; how many.
pub fn write(folder: &Path) -> Result<usize> {
    let cases = tables::all();
    for (number, case) in cases.iter().enumerate() {
        let path = folder.join(format!("case-{number:03}"));
        fs::write(&path, input(case)).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(cases.len())
}

/// As the target reads it: two bytes of length, then the frame.
fn input(case: &Case) -> Vec<u8> {
    let frames = case.steps.iter().map(|step| &step.frame);
    frames.flat_map(|frame| (frame.len() as u16).to_be_bytes().into_iter().chain(frame.iter().copied())).collect()
}
