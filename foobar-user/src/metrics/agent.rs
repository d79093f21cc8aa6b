//! Metrics of the agent itself: its version, its reloads, and which sources of metrics answered.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::{encode, names};

/// Reloads of the site file since the agent's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reloads {
    /// Reloads that were put in force.
    pub applied: u64,
    /// Reloads that were refused, which changed nothing.
    pub refused: u64,
    /// The last one was applied, or there was none.
    pub last_successful: bool,
}

impl Default for Reloads {
    fn default() -> Self {
        Self { applied: 0, refused: 0, last_successful: true }
    }
}

impl Collector for Reloads {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let counts = [(["applied"], self.applied), (["refused"], self.refused)];
        encode::counter(&mut encoder, &names::RELOADS, counts)?;
        let last = [([], u64::from(self.last_successful))];
        encode::gauge(&mut encoder, &names::RELOAD_LAST_SUCCESSFUL, last)
    }
}

/// The version, and the sources of one scrape with whether each answered.
#[derive(Clone, Debug, Default)]
pub(super) struct Scrape {
    pub(super) sources: Vec<(&'static str, bool)>,
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        encode::info(&mut encoder, &names::BUILD, [env!("CARGO_PKG_VERSION")])?;
        let sources = self.sources.iter().map(|(source, up)| ([*source], u64::from(*up)));
        encode::gauge(&mut encoder, &names::SOURCE_UP, sources)
    }
}
