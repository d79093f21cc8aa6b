//! The firewall beside its peers: look-ups by `BPF_PROG_TEST_RUN`, floods on a wire, new connections through it.
//!
//! All packets of a part are alike for everybody: the same sources in the same order, all of which the tables hold, or none.
//! What is compared is measured in turn; absolute figures hold for one machine and minute.

mod addresses;
mod cable;
mod connections;
mod floods;
mod frame;
mod generator;
mod guards;
mod lookups;
mod napi;
mod nft;
mod ours;
mod priority;
mod programs;
mod turns;
mod xdpfilter;

use std::time::Duration;

use anyhow::Result;

use super::part::Part;
use super::row::Row;
use crate::progress::Progress;

/// Measures all parts, or one.
pub(super) fn run(progress: &dyn Progress, part: Option<Part>, rounds: u32, time: Duration) -> Result<Vec<Row>> {
    let wanted = |other| part.is_none_or(|part| part == other);
    let mut rows = Vec::new();
    if wanted(Part::Lookups) {
        rows.extend(lookups::run(progress)?);
    }
    if wanted(Part::Floods) {
        rows.extend(floods::run(progress, rounds, time / 10)?);
    }
    if wanted(Part::Connections) {
        rows.extend(connections::run(progress, rounds, time)?);
    }
    Ok(rows)
}
