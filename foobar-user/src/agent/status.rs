//! What a server is doing, for `foobar status`.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::control::Applied;
use crate::datapath::Datapath;
use crate::datapath::links::Mode;
use crate::health::{HealthState, Status as Verdict};
use crate::metrics::Reloads;
use crate::plan::Plan;
use crate::process::{ProcessState, ProcessStatus};
use crate::sets::ttl;

/// One server, as it is now.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// Its name.
    pub server: String,
    /// Its role.
    pub role: String,
    /// The site's public name.
    pub domain: String,
    /// The agent's process.
    pub pid: u32,
    /// Every process runs that nobody has stopped, and every service has a member.
    pub ready: bool,
    /// Number of the generation of rules in force.
    pub generation: u32,
    /// Whether an earlier agent's maps were adopted.
    pub adopted: bool,
    /// Number of rules in force.
    pub rules: usize,
    /// How the firewall is attached to each interface.
    pub interfaces: BTreeMap<String, Mode>,
    /// Services with their backends.
    pub services: Vec<ServiceStatus>,
    /// Supervised processes.
    pub processes: Vec<serde_json::Value>,
    /// Reloads that were applied and refused.
    pub reloads: [u64; 2],
    /// Why the last reload was refused; `None` after a good one.
    pub last_refusal: Option<String>,
    /// The change that waits for its confirmation.
    pub waiting: Option<Applied>,
    /// Why what is in force is not the site file.
    pub notice: Option<String>,
    /// Whether SYNs are answered with cookies, because of a flood.
    pub answering_syns: bool,
}

/// One service.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Its name.
    pub name: String,
    /// Its VIPs.
    pub vips: Vec<SocketAddr>,
    /// Its backends.
    pub backends: Vec<BackendStatus>,
}

/// One backend address of a service.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BackendStatus {
    /// Its server.
    pub server: String,
    /// Its endpoint.
    pub address: SocketAddr,
    /// `up`, `down`, or `unknown` before the first check.
    pub health: String,
    /// Whether it is given connections.
    pub member: bool,
    /// Connections given to it, over all its addresses.
    pub connections: u64,
    /// Why its last check failed.
    pub failure: Option<String>,
}

/// What a status is made of beside the packet path.
pub(super) struct Facts<'a> {
    pub(super) plan: &'a Plan,
    pub(super) health: &'a HealthState,
    pub(super) processes: Vec<ProcessStatus>,
    pub(super) reloads: Reloads,
    pub(super) last_refusal: Option<String>,
    pub(super) waiting: Option<Applied>,
    pub(super) notice: Option<String>,
    pub(super) answering: bool,
}

impl Facts<'_> {
    pub(super) fn report(self, datapath: &Datapath) -> Status {
        let plan = self.plan;
        let services = services(plan, datapath, self.health);
        let fine = |state| matches!(state, ProcessState::Running | ProcessState::Stopped);
        let running = self.processes.iter().all(|process| fine(process.state));
        let served = services.iter().all(|service| service.backends.iter().any(|backend| backend.member));
        Status {
            server: plan.server.clone(),
            role: plan.role.as_str().to_owned(),
            domain: plan.domain.clone(),
            pid: std::process::id(),
            ready: running && served,
            generation: datapath.generation(),
            adopted: datapath.adopted(),
            rules: plan.rules.len(),
            interfaces: datapath.modes().clone(),
            services,
            processes: self.processes.into_iter().filter_map(|process| serde_json::to_value(process).ok()).collect(),
            reloads: [self.reloads.applied, self.reloads.refused],
            last_refusal: self.last_refusal,
            waiting: self.waiting,
            notice: self.notice,
            answering_syns: self.answering,
        }
    }
}

fn services(plan: &Plan, datapath: &Datapath, health: &HealthState) -> Vec<ServiceStatus> {
    let counters = datapath.counters().unwrap_or_default();
    let connections = |service: &str, server: &str| {
        let found = counters.backends.iter().find(|(name, backend, _)| name == service && backend == server);
        found.map_or(0, |(.., load)| load.traffic.connections)
    };
    plan.services
        .iter()
        .filter_map(|planned| {
            let state = health.services.iter().find(|service| service.name == planned.name)?;
            let members = state.members();
            let backends = state.backends.iter().map(|backend| BackendStatus {
                server: backend.server.clone(),
                address: backend.address,
                health: match backend.status {
                    Verdict::Up => "up",
                    Verdict::Down => "down",
                    Verdict::Unknown => "unknown",
                }
                .to_owned(),
                member: members.iter().any(|member| member.address == backend.address),
                connections: connections(&planned.name, &backend.server),
                failure: backend.failure.clone(),
            });
            Some(ServiceStatus { name: planned.name.clone(), vips: planned.vips.clone(), backends: backends.collect() })
        })
        .collect()
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.ready { "ready" } else { "not ready" };
        writeln!(f, "{} ({} of {}) is {word}", self.server, self.role, self.domain)?;
        let modes: Vec<String> = self.interfaces.iter().map(|(name, mode)| format!("{name} {mode}")).collect();
        writeln!(
            f,
            "agent {}, generation {}{}, {} rules, {}",
            self.pid,
            self.generation,
            if self.adopted { " (adopted)" } else { "" },
            self.rules,
            modes.join(", ")
        )?;
        if let Some(waiting) = &self.waiting {
            let left = ttl::format(waiting.left().unwrap_or_default());
            writeln!(
                f,
                "\nwaiting for confirmation, {left} left: `foobar confirm` keeps generation {}, else it is taken back",
                waiting.generation
            )?;
        }
        if let Some(notice) = &self.notice {
            writeln!(f, "\n{notice}")?;
        }
        if self.answering_syns {
            writeln!(f, "\na SYN flood: SYNs are answered with cookies")?;
        }
        for service in &self.services {
            let vips: Vec<String> = service.vips.iter().map(ToString::to_string).collect();
            writeln!(f, "\nservice {} at {}", service.name, vips.join(", "))?;
            for backend in &service.backends {
                let member = if backend.member { "member" } else { "-" };
                let (address, failure) = (backend.address.to_string(), backend.failure.as_deref().unwrap_or(""));
                writeln!(
                    f,
                    "  {:<12} {address:<24} {:<8} {member:<7} {:>9} connections  {failure}",
                    backend.server, backend.health, backend.connections
                )?;
            }
        }
        for (index, process) in self.processes.iter().enumerate() {
            if index == 0 {
                writeln!(f)?;
            }
            let text = |key: &str| process[key].as_str().unwrap_or("").to_owned();
            let (name, state) = (text("name"), text("state"));
            let pid = process["pid"].as_i64().map_or_else(|| "-".to_owned(), |pid| pid.to_string());
            let restarts = process["restarts"].as_u64().unwrap_or(0);
            let message = text("message");
            writeln!(f, "process {name:<12} {state:<10} pid {pid:<8} {restarts} restarts  {message}")?;
        }
        if let Some(refusal) = &self.last_refusal {
            writeln!(f, "\nthe last reload was refused:\n{refusal}")?;
        }
        Ok(())
    }
}
