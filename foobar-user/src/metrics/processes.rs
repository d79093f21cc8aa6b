//! Metrics of the processes that this server supervises.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::{encode, names};

/// State of every supervised process.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Processes {
    /// One entry for each process of the plan.
    pub processes: Vec<Process>,
}

/// State and use of one process with all its children.
#[derive(Clone, Debug, PartialEq)]
pub struct Process {
    /// Its name in the site file.
    pub name: String,
    /// It runs.
    pub up: bool,
    /// Times that it was started again after it died, since the agent's start.
    pub restarts: u64,
    /// CPU time in seconds, over all its incarnations: it never shrinks.
    pub cpu_seconds: f64,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// It does not run because somebody wants that.
    pub stopped: bool,
    /// Periods of 100 ms in which its CPU quota held it up.
    pub throttled_periods: u64,
    /// Time for which its CPU quota held it up, in seconds over all CPUs.
    pub throttled_seconds: f64,
    /// Processes of it that were killed because its memory was used up.
    pub oom_kills: u64,
}

impl Collector for Processes {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        let processes = &self.processes;
        let up = processes.iter().map(|p| ([p.name.as_str()], u64::from(p.up)));
        encode::gauge(encoder, &names::PROCESS_UP, up)?;
        let restarts = processes.iter().map(|p| ([p.name.as_str()], p.restarts));
        encode::counter(encoder, &names::PROCESS_RESTARTS, restarts)?;
        let cpu = processes.iter().map(|p| ([p.name.as_str()], p.cpu_seconds));
        encode::counter(encoder, &names::PROCESS_CPU, cpu)?;
        let memory = processes.iter().map(|p| ([p.name.as_str()], p.memory_bytes));
        encode::gauge(encoder, &names::PROCESS_MEMORY, memory)?;
        let stopped = processes.iter().map(|p| ([p.name.as_str()], u64::from(p.stopped)));
        encode::gauge(encoder, &names::PROCESS_STOPPED, stopped)?;
        let periods = processes.iter().map(|p| ([p.name.as_str()], p.throttled_periods));
        encode::counter(encoder, &names::PROCESS_THROTTLED_PERIODS, periods)?;
        let throttled = processes.iter().map(|p| ([p.name.as_str()], p.throttled_seconds));
        encode::counter(encoder, &names::PROCESS_THROTTLED, throttled)?;
        let kills = processes.iter().map(|p| ([p.name.as_str()], p.oom_kills));
        encode::counter(encoder, &names::PROCESS_OOM_KILLS, kills)
    }
}
