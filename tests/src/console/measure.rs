//! The figures of `--bench`: wrk in the client's namespace, through TLS and through the plain L4 path.

use std::time::Duration;

use anyhow::Result;

use super::report::Report;
use crate::bed::Bed;
use crate::host::VIP;
use crate::progress::{Progress, step};
use crate::wrk;

/// Measures both paths for `time` each and adds the figures to `report`.
pub(super) fn both(bed: &Bed, progress: &dyn Progress, time: Duration, report: &mut Report) -> Result<()> {
    let measure = |what: &str, url: String| {
        step(progress, &format!("wrk, {what}"), || wrk::measure(bed, "client", &url, CONNECTIONS, time))
    };
    let https = measure("TLS", format!("https://{VIP}/small.txt"))?;
    let l4 = measure("plain L4", format!("http://{VIP}:8080/small.txt"))?;
    for figures in [https, l4] {
        report.pages += figures.requests;
        report.errors += figures.errors;
    }
    (report.https, report.l4) = (Some(https), Some(l4));
    Ok(())
}

const CONNECTIONS: u32 = 32;
