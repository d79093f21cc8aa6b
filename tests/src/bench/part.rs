//! Parts of the benches that have some.

use clap::ValueEnum;

use super::Bench;

/// A part of a bench.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Part {
    /// Firewall: nanoseconds a packet, by BPF_PROG_TEST_RUN
    Lookups,
    /// Firewall: packets a second that one processor drops
    Floods,
    /// Firewall: new TCP connections a second
    Connections,
    /// Balancer: requests a second through it and its peers, by wrk
    Wire,
    /// Balancer: nanoseconds a packet, by BPF_PROG_TEST_RUN
    Packets,
}

impl Part {
    /// The bench that has it.
    pub(super) const fn bench(self) -> Bench {
        match self {
            Self::Lookups | Self::Floods | Self::Connections => Bench::Firewall,
            Self::Wire | Self::Packets => Bench::Balancer,
        }
    }
}
