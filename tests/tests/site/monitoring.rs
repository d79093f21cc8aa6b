//! The bed's Prometheus scrapes every agent, and its series answer the questions that matter.

use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use foobar_tests::host::{VIP, servers};
use foobar_tests::{Bed, eventually};
use foobar_user::metrics::dashboard_queries;

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

/// Prometheus takes every query of the dashboard, and all but those about what has not happened here have an answer.
pub(crate) fn dashboard_answers(bed: &Bed) -> Result<()> {
    let prometheus = bed.prometheus()?;
    let dashboard = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/grafana/foobar.json");
    let text = fs::read_to_string(&dashboard).with_context(|| format!("cannot read {}", dashboard.display()))?;
    let queries = dashboard_queries(&text)?;
    ensure!(queries.len() >= 20, "{} queries", queries.len());
    for query in &queries {
        let quiet = QUIET.iter().any(|metric| query.contains(metric));
        eventually(DEADLINE, query, || {
            knock(bed)?;
            Ok(!prometheus.query(query)?.is_empty() || quiet)
        })?;
    }
    Ok(())
}

/// Queries ask about the last minute: something has to be dropped in it.
fn knock(bed: &Bed) -> Result<()> {
    let socket = bed.in_namespace("client", || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))??;
    socket.send_to(b"closed", (VIP, CLOSED_PORT)).context("cannot knock at a closed port")?;
    Ok(())
}

/// Nothing of the site is there.
const CLOSED_PORT: u16 = 9;

/// Metrics that a healthy site does not have.
const QUIET: &[&str] = &["foobar_edge_upstream_errors_total", "foobar_process_restarts_total"];

const DEADLINE: Duration = Duration::from_secs(40);
