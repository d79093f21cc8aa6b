//! Metrics of the machine, and of this network namespace, from `/proc`.

use std::fmt;
use std::path::Path;

use anyhow::Context;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::{encode, names};

/// Interfaces beyond this many are left out: a host of containers must not make a series for each.
const INTERFACES_MAX: usize = 64;

/// One reading of the host.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Host {
    /// CPU.
    pub cpu: Cpu,
    /// Memory.
    pub memory: Memory,
    /// Load average over one minute.
    pub load1: f64,
    /// Interfaces of this network namespace, without loopback.
    pub interfaces: Vec<Interface>,
    /// The file system of the agent's state.
    pub filesystem: Filesystem,
}

/// `/proc/stat`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cpu {
    /// Clock ticks by mode, in the order of [`MODES`].
    pub ticks: [u64; MODES.len()],
    /// Ticks a second.
    pub ticks_per_second: f64,
    /// Online CPUs.
    pub cpus: u64,
    /// Boot time in seconds since 1970.
    pub boot_time: u64,
}

/// Modes of CPU time, as `/proc/stat` orders them.
pub const MODES: [&str; 8] = ["user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal"];

/// `/proc/meminfo`, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// All of it.
    pub total: u64,
    /// What programs could still get.
    pub available: u64,
    /// Used by nothing.
    pub free: u64,
    /// Pages of files.
    pub cached: u64,
}

/// A line of `/proc/net/dev`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Bytes, packets and drops of receiving.
    pub receive: [u64; 3],
    /// Bytes, packets and drops of sending.
    pub transmit: [u64; 3],
}

/// Sizes of a file system, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filesystem {
    /// All of it.
    pub total: u64,
    /// What programs that are not root could still get.
    pub available: u64,
}

impl Host {
    /// Reads `/proc` and the file system that holds `state_dir`.
    ///
    /// # Errors
    /// When a file cannot be read or does not look as `proc(5)` says.
    pub fn read(state_dir: &Path) -> anyhow::Result<Self> {
        let mut cpu = parse_stat(&proc("stat")?).context("/proc/stat has no line `cpu`")?;
        let ticks = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
        cpu.ticks_per_second = ticks as f64;
        let loadavg = proc("loadavg")?;
        let load1 = loadavg.split_whitespace().next().and_then(|field| field.parse().ok());
        Ok(Self {
            cpu,
            memory: parse_meminfo(&proc("meminfo")?).context("/proc/meminfo has no MemTotal")?,
            load1: load1.context("/proc/loadavg is empty")?,
            interfaces: parse_net_dev(&proc("self/net/dev")?),
            filesystem: filesystem(state_dir)?,
        })
    }
}

fn proc(file: &str) -> anyhow::Result<String> {
    std::fs::read_to_string(Path::new("/proc").join(file)).with_context(|| format!("cannot read /proc/{file}"))
}

fn filesystem(path: &Path) -> anyhow::Result<Filesystem> {
    let stat = nix::sys::statvfs::statvfs(path)
        .with_context(|| format!("cannot ask for the size of the file system of {}", path.display()))?;
    let fragment = stat.fragment_size();
    Ok(Filesystem { total: stat.blocks() * fragment, available: stat.blocks_available() * fragment })
}

fn parse_stat(text: &str) -> Option<Cpu> {
    let mut cpu = Cpu::default();
    let mut found = false;
    for line in text.lines() {
        let mut fields = line.split_whitespace();
        match fields.next() {
            Some("cpu") => {
                found = true;
                // Old kernels lack the last modes: they stay 0.
                for (ticks, field) in cpu.ticks.iter_mut().zip(fields) {
                    *ticks = field.parse().ok()?;
                }
            }
            Some("btime") => cpu.boot_time = fields.next()?.parse().ok()?,
            Some(name) if name.starts_with("cpu") => cpu.cpus += 1,
            _ => {}
        }
    }
    found.then_some(cpu)
}

fn parse_meminfo(text: &str) -> Option<Memory> {
    let bytes = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    };
    Some(Memory {
        total: bytes("MemTotal")?,
        available: bytes("MemAvailable")?,
        free: bytes("MemFree")?,
        cached: bytes("Cached")?,
    })
}

fn parse_net_dev(text: &str) -> Vec<Interface> {
    let interface = |line: &str| {
        let (name, counters) = line.split_once(':')?;
        let field: Vec<u64> = counters.split_whitespace().map_while(|field| field.parse().ok()).collect();
        let [receive, transmit] = [0, 8].map(|at| Some([*field.get(at)?, *field.get(at + 1)?, *field.get(at + 3)?]));
        let name = name.trim();
        (name != "lo").then_some(Interface { name: name.to_owned(), receive: receive?, transmit: transmit? })
    };
    text.lines().filter_map(interface).take(INTERFACES_MAX).collect()
}

impl Collector for Host {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        let seconds = |ticks: u64| ticks as f64 / self.cpu.ticks_per_second;
        let modes = MODES.iter().zip(self.cpu.ticks).map(|(mode, ticks)| ([*mode], seconds(ticks)));
        encode::counter(encoder, &names::HOST_CPU, modes)?;
        encode::gauge(encoder, &names::HOST_CPUS, [([], self.cpu.cpus)])?;
        encode::gauge(encoder, &names::HOST_BOOT_TIME, [([], self.cpu.boot_time)])?;
        encode::gauge(encoder, &names::HOST_LOAD1, [([], self.load1)])?;
        let Memory { total, available, free, cached } = self.memory;
        let memory = [("total", total), ("available", available), ("free", free), ("cached", cached)];
        encode::gauge(encoder, &names::HOST_MEMORY, memory.map(|(state, bytes)| ([state], bytes)))?;
        let filesystem = [("total", self.filesystem.total), ("available", self.filesystem.available)];
        encode::gauge(encoder, &names::HOST_FILESYSTEM, filesystem.map(|(state, bytes)| ([state], bytes)))?;
        let receive = [names::HOST_RECEIVE_BYTES, names::HOST_RECEIVE_PACKETS, names::HOST_RECEIVE_DROPS];
        for (at, family) in receive.iter().enumerate() {
            let samples = self.interfaces.iter().map(|i| ([i.name.as_str()], i.receive[at]));
            encode::counter(encoder, family, samples)?;
        }
        let transmit = [names::HOST_TRANSMIT_BYTES, names::HOST_TRANSMIT_PACKETS, names::HOST_TRANSMIT_DROPS];
        for (at, family) in transmit.iter().enumerate() {
            let samples = self.interfaces.iter().map(|i| ([i.name.as_str()], i.transmit[at]));
            encode::counter(encoder, family, samples)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_gives_modes_cpus_and_boot_time() {
        let text =
            "cpu  10 20 30 40 50 60 70 80 90 100\ncpu0 1 2 3 4 5 6 7 8 9 10\ncpu1 1 2 3\nintr 5\nbtime 1700000000\n";
        let cpu = parse_stat(text).unwrap();
        assert_eq!(cpu.ticks, [10, 20, 30, 40, 50, 60, 70, 80]);
        assert_eq!((cpu.cpus, cpu.boot_time), (2, 1_700_000_000));
        assert_eq!(parse_stat("intr 5\n"), None);
        assert_eq!(parse_stat("cpu x\n"), None);
    }

    #[test]
    fn meminfo_is_in_bytes_and_cached_is_not_swap_cached() {
        let text = "MemTotal: 24000 kB\nMemFree:  100 kB\nMemAvailable: 200 kB\nSwapCached: 7 kB\nCached: 300 kB\n";
        let expected = Memory { total: 24_576_000, available: 204_800, free: 102_400, cached: 307_200 };
        assert_eq!(parse_meminfo(text), Some(expected));
        assert_eq!(parse_meminfo("MemTotal: 1 kB\n"), None);
    }

    #[test]
    fn net_dev_skips_loopback_and_glued_names_parse() {
        let text = "Inter-|   Receive                                                |  Transmit\n \
                    face |bytes    packets errs drop fifo frame compressed multicast|bytes\n    \
                    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  \
                    eth0:100 2 0 3 0 0 0 0 400 5 0 6 0 0 0 0\n";
        let eth0 = Interface { name: "eth0".to_owned(), receive: [100, 2, 3], transmit: [400, 5, 6] };
        assert_eq!(parse_net_dev(text), [eth0]);
    }

    #[test]
    fn this_machine_can_be_read() {
        let host = Host::read(Path::new("/tmp")).unwrap();
        assert!(host.cpu.cpus > 0 && host.cpu.boot_time > 0 && host.cpu.ticks.iter().sum::<u64>() > 0);
        assert!(host.memory.total > host.memory.free);
        assert!(host.filesystem.total > 0);
    }
}
