//! `limits` of processes: enough for what the kind needs, and, where this machine is the server, something it can keep.

use nix::ifaddrs::getifaddrs;

use crate::process::missing_controllers;
use crate::site::model::{Process, Server, Site, SiteProcess};
use crate::site::section::Collector;

/// Kind, the least memory in MiB, the fewest processes and threads with which it works.
const LEAST: [(&str, u64, u32); 3] = [("nginx", 16, 8), ("postgres", 128, 32), ("prometheus", 128, 32)];

pub(super) fn check(site: &Site, faults: &Collector) {
    for process in &site.processes {
        let kind = match process.kind {
            SiteProcess::Nginx { .. } => "nginx",
            SiteProcess::Postgres => "postgres",
            SiteProcess::Prometheus { .. } => "prometheus",
            SiteProcess::Command { .. } => continue,
        };
        let limits = &process.limits;
        for (name, mebibytes, processes) in LEAST.iter().filter(|(name, ..)| *name == kind) {
            if limits.memory_bytes.is_some_and(|bytes| bytes < mebibytes << 20) {
                let message = format!("{name} does not work in so little memory; give it {mebibytes}MiB or more");
                faults.error(limits.span, message);
            }
            if limits.processes.is_some_and(|given| given < *processes) {
                let message = format!("{name} needs {processes} processes and threads or more");
                faults.error(limits.span, message);
            }
        }
    }
}

/// Warns of limits that cannot be kept, where this machine is one of the servers: of others nothing is known here.
pub(super) fn check_machine<'a>(site: &Site, servers: impl IntoIterator<Item = &'a &'a Server>, faults: &Collector) {
    let limited: Vec<&Process> = site.processes.iter().filter(|process| !process.limits.is_none()).collect();
    if limited.is_empty() {
        return;
    }
    let here = |server: &&&Server| {
        let own = getifaddrs().into_iter().flatten().filter_map(|interface| interface.address);
        own.filter_map(|address| {
            let v4 = address.as_sockaddr_in().map(|v4| v4.ip().into());
            v4.or_else(|| address.as_sockaddr_in6().map(|v6| v6.ip().into()))
        })
        .any(|address: std::net::IpAddr| server.addresses().any(|own| own == address))
    };
    for server in servers.into_iter().filter(here) {
        for process in limited.iter().filter(|process| process.runs_on(server)) {
            let missing = missing_controllers(&process.limits);
            if !missing.is_empty() {
                let message = format!(
                    "this machine is `{}`, and its cgroups lack {}: this limit of `{}` would not be kept; see cgroup_disable= on the kernel's command line",
                    server.name.value,
                    missing.join(", "),
                    process.name.value
                );
                faults.warning(process.limits.span, message);
            }
        }
    }
}
