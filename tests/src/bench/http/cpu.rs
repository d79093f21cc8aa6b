//! CPU time: of the whole machine, of everything that the site runs, of the balancer.

use anyhow::{Context, Result};

use crate::bed::Bed;
use crate::bench::cpu;

/// CPU time until now, in microseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    /// Of all processors, idle, waiting and stolen time excluded.
    pub(super) machine_us: f64,
    /// Of the run's processes, the load generator included, with the kernel's work in their name.
    pub(super) site_us: f64,
    /// Of the balancer's processes.
    pub(super) balancer_us: f64,
}

impl Usage {
    /// Looks.
    pub(super) fn of(bed: &Bed) -> Result<Self> {
        let balancer = bed.network().cgroup("lb1");
        let site = balancer.parent().context("the balancer's cgroup is in that of the run")?;
        Ok(Self {
            machine_us: cpu::machine_us()?,
            site_us: cpu::group_us(site)?,
            balancer_us: cpu::group_us(&balancer)?,
        })
    }
}
