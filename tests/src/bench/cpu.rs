//! CPU time until now: of the whole machine, and of a cgroup.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// Of all processors, microseconds; idle, waiting and stolen time excluded.
pub(super) fn machine_us() -> Result<f64> {
    let stat = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
    machine(&stat).context("/proc/stat has no line of all processors")
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

/// Of the processes in a cgroup and below until now, microseconds, with the kernel's work in their name.
pub(super) fn group_us(path: &Path) -> Result<f64> {
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
