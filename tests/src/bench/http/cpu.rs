//! CPU time: of the whole machine, of everything that the site runs, of the balancer.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::bed::Bed;

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
        let stat = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
        Ok(Self {
            machine_us: machine(&stat).context("/proc/stat has no line of all processors")?,
            site_us: group(site)?,
            balancer_us: group(&balancer)?,
        })
    }
}

/// Busy time in the first line of `/proc/stat`, whose unit is 10 ms.
fn machine(stat: &str) -> Option<f64> {
    let mut fields = stat.lines().next()?.strip_prefix("cpu ")?.split_ascii_whitespace();
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    let (user, nice, system) = (ticks()?, ticks()?, ticks()?);
    let (_idle, _waiting) = (ticks()?, ticks()?);
    let (interrupts, soft_interrupts) = (ticks()?, ticks()?);
    Some((user + nice + system + interrupts + soft_interrupts) * TICK_US)
}

fn group(path: &Path) -> Result<f64> {
    let path = path.join("cpu.stat");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let usage = text.lines().find_map(|line| line.strip_prefix("usage_usec ")?.parse().ok());
    usage.with_context(|| format!("{} tells no usage", path.display()))
}

/// `USER_HZ` is 100 on every architecture that we build for.
const TICK_US: f64 = 1e4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_waiting_and_stolen_time_do_not_count() {
        let stat = "cpu  100 20 30 4000 500 6 7 800 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n";
        assert_eq!(machine(stat), Some(163.0 * 1e4));
        assert_eq!(machine("intr 1"), None);
    }
}
