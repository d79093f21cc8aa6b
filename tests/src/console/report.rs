//! What a run ends with: one JSON object, or a few lines.

use serde::Serialize;

use super::screen::Screen;
use crate::bed::Shares;
use crate::wrk::Figures;

/// The outcome of a run.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Report {
    /// Good pages, those of wrk included.
    pub(super) pages: u64,
    /// Failed ones.
    pub(super) errors: u64,
    /// wrk through TLS.
    pub(super) https: Option<Figures>,
    /// wrk through the plain L4 path.
    pub(super) l4: Option<Figures>,
    /// New connections by service and backend.
    pub(super) shares: Shares,
    /// What Prometheus sees.
    pub(super) prometheus: Targets,
    /// What still exists after everything was removed, or went wrong while it was.
    pub(super) left_behind: Vec<String>,
}

/// Targets of Prometheus.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Targets {
    pub(super) targets: usize,
    pub(super) up: usize,
}

impl Report {
    /// Whether the run was without a fault.
    pub(super) fn is_clean(&self) -> bool {
        self.errors == 0 && self.left_behind.is_empty()
    }

    /// Writes the figures of wrk.
    pub(super) fn tell_figures(&self, screen: &Screen) {
        let rows = [("TLS, https://www.foobar.com/small.txt", self.https), ("plain L4, :8080/small.txt", self.l4)];
        for (path, figures) in rows {
            if let Some(figures) = figures {
                let Figures { rps, p50_ms, p99_ms, .. } = figures;
                screen
                    .line(&format!("  {path:<38} {rps:>9.0} requests/s   p50 {p50_ms:>7.2} ms   p99 {p99_ms:>7.2} ms"));
            }
        }
    }

    /// Writes the last lines of a run.
    pub(super) fn tell(&self, screen: &Screen) {
        for (service, backends) in &self.shares {
            let counts: Vec<String> = backends.iter().map(|(backend, count)| format!("{backend} {count}")).collect();
            screen.line(&format!("  {service:<10} connections: {}", counts.join("   ")));
        }
        let (up, targets) = (self.prometheus.up, self.prometheus.targets);
        screen
            .line(&format!("  {} pages, {} errors; Prometheus: {up} of {targets} targets up", self.pages, self.errors));
        for left in &self.left_behind {
            screen.line(&format!("✗ left behind: {left}"));
        }
        if self.left_behind.is_empty() {
            screen.line("✓ nothing left behind");
        }
    }
}
