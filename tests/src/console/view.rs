//! The live view: what the site did in the last second and since it started, from its own metrics.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::Result;

use crate::bed::{Bed, Shares};
use crate::host::servers;
use crate::metrics::Samples;

/// Draws the site's state again and again.
#[derive(Debug)]
pub(super) struct View {
    start: Instant,
    last: Option<(Instant, f64)>,
}

/// The site's state at one moment.
#[derive(Debug)]
pub(super) struct Snapshot {
    seconds: f64,
    /// Requests a second at the edge since the snapshot before.
    rate: f64,
    flows: f64,
    shares: Shares,
    drops: BTreeMap<String, f64>,
    /// Good and failed pages of the bed's own load.
    pages: (u64, u64),
}

impl View {
    pub(super) fn new() -> Self {
        Self { start: Instant::now(), last: None }
    }

    /// Reads the site's metrics.
    pub(super) fn look(&mut self, bed: &Bed, pages: (u64, u64)) -> Result<Snapshot> {
        let mut all = Samples::default();
        for host in servers() {
            all.extend(bed.metrics(host.name)?);
        }
        let (now, requests) = (Instant::now(), all.sum("foobar_edge_requests_total", &[]));
        let rate = self.last.map_or(0.0, |(then, before)| (requests - before) / (now - then).as_secs_f64().max(1e-3));
        self.last = Some((now, requests));
        Ok(Snapshot {
            seconds: self.start.elapsed().as_secs_f64(),
            rate,
            flows: all.sum("foobar_flows", &[("table", "established")]),
            shares: shares(&all),
            drops: all.by("foobar_verdict_packets_total", &[("verdict", "drop")], "reason"),
            pages,
        })
    }
}

impl Snapshot {
    /// As a block of lines.
    pub(super) fn block(&self) -> Vec<String> {
        let mut lines = vec![self.line(), String::new()];
        for (service, backends) in &self.shares {
            let total: u64 = backends.values().sum();
            let shares = backends.iter().map(|(backend, count)| {
                let share = *count as f64 / total.max(1) as f64;
                let bar = "█".repeat((share * BAR_WIDTH as f64).round() as usize);
                format!("{backend:>6} {bar:·<BAR_WIDTH$} {count:>7} {:>5.1} %", share * 100.0)
            });
            lines.push(format!("  {service:<9}{}", shares.collect::<Vec<_>>().join("  ")));
        }
        lines.push(format!("  drops    {}", self.drops()));
        lines
    }

    /// As one line.
    pub(super) fn line(&self) -> String {
        format!(
            "{:>5.0} s  {:>7.1} requests/s at the edge  {} pages  {} errors  {:.0} L4 flows",
            self.seconds, self.rate, self.pages.0, self.pages.1, self.flows
        )
    }

    /// Drops by reason, in words.
    pub(super) fn drops(&self) -> String {
        let drops = self.drops.iter().filter(|(_, count)| **count > 0.0);
        let drops: Vec<String> = drops.map(|(reason, count)| format!("{reason} {count:.0}")).collect();
        if drops.is_empty() { "none".to_owned() } else { drops.join("   ") }
    }
}

fn shares(samples: &Samples) -> Shares {
    let mut shares = Shares::new();
    for sample in samples.find("foobar_backend_connections_total", &[]) {
        if let (Some(service), Some(backend)) = (sample.labels.get("service"), sample.labels.get("backend")) {
            *shares.entry(service.clone()).or_default().entry(backend.clone()).or_default() += sample.value as u64;
        }
    }
    shares
}

const BAR_WIDTH: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_names_services_backends_and_drops() {
        let page = "foobar_backend_connections_total{service=\"www\",backend=\"web1\"} 3\n\
                    foobar_backend_connections_total{service=\"www\",backend=\"web2\"} 1\n";
        let snapshot = Snapshot {
            seconds: 1.0,
            rate: 2.0,
            flows: 0.0,
            shares: shares(&Samples::parse(page)),
            drops: BTreeMap::from([("default-deny".to_owned(), 2.0), ("malformed".to_owned(), 0.0)]),
            pages: (4, 0),
        };
        let block = snapshot.block().join("\n");
        assert!(block.contains("75.0 %") && block.contains("25.0 %"), "{block}");
        assert!(block.ends_with("default-deny 2"), "{block}");
    }
}
