//! The bed's Prometheus scrapes every agent, and its series answer the questions that matter.

use std::time::Duration;

use anyhow::{Result, ensure};
use foobar_tests::host::servers;
use foobar_tests::{Bed, eventually};

/// Every server is a target, and up; the edge's requests are there to be asked for.
pub(crate) fn targets_up(bed: &Bed) -> Result<()> {
    let prometheus = bed.prometheus()?;
    eventually(DEADLINE, "every target is up", || {
        let targets = prometheus.targets()?;
        ensure!(targets.down.is_empty(), "down: {}", targets.down.join(", "));
        ensure!(targets.all.len() == servers().count(), "targets: {:?}", targets.all);
        Ok(true)
    })?;
    for query in ["sum(foobar_edge_requests_total) > 0", "foobar_build_info", "foobar_backend_up{service=\"www\"} == 1"]
    {
        eventually(DEADLINE, query, || Ok(!prometheus.query(query)?.is_empty()))?;
    }
    Ok(())
}

const DEADLINE: Duration = Duration::from_secs(40);
