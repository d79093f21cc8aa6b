//! What the metrics of a server are made of: a snapshot of each subsystem at the time of a scrape.

use std::sync::Arc;
use std::time::Duration;

use super::ServerFolders;
use super::database::Database;
use super::flows::Told;
use super::server::{Shared, lock};
use foobar_common::abi;

use crate::database::DatabaseReport;
use crate::datapath::flows::TABLES;
use crate::datapath::links::Mode;
use crate::datapath::{self, Datapath};
use crate::flood;
use crate::health::{DatabaseRole, Health, Status};
use crate::metrics::certificates::Watched;
use crate::metrics::datapath::{
    BackendCount, FlowTable, Interface, RuleCount, ServiceCount, TunnelCount, VerdictCount, XdpMode,
};
use crate::metrics::{self, Reloads, Sources, postgres};
use crate::plan::{Plan, ProcessKind};
use crate::process::{self, Supervisor};

/// Those who are asked at a scrape; they outlive every plan.
#[derive(Clone)]
pub(super) struct Asked {
    pub(super) datapath: Shared<Datapath>,
    pub(super) flows: Arc<Told>,
    pub(super) flood: Arc<flood::Told>,
    pub(super) health: Shared<Health>,
    pub(super) supervisor: Arc<Supervisor>,
    pub(super) database: Shared<Database>,
    pub(super) reloads: Shared<Reloads>,
}

/// Sources for a plan.
pub(super) fn of(plan: &Plan, folders: &ServerFolders, asked: Asked) -> Sources {
    let processes = folders.processes();
    let is = |kind: fn(&ProcessKind) -> bool| plan.processes.iter().any(|process| kind(&process.kind));
    let postgres = plan.processes.iter().find_map(|process| match &process.kind {
        ProcessKind::Postgres(plan) => {
            Some(postgres::Target { socket_dir: process::postgres::socket_folder(&processes), port: plan.port })
        }
        _ => None,
    });
    let Asked { datapath, flows, flood, health, supervisor, database, reloads } = asked;
    Sources {
        datapath: Some(Arc::new(move || read_datapath(&lock(&datapath), &flows, &flood))),
        health: Some(Arc::new(move || Ok(read_health(&lock(&health))))),
        processes: Some(Arc::new(move || Ok(read_processes(&supervisor)))),
        database: plan.fence.is_some().then(|| {
            Arc::new(move || Ok(read_database(&lock(&database).report().unwrap_or_default()))) as metrics::Source<_>
        }),
        reloads: Some(Arc::new(move || Ok(*lock(&reloads)))),
        certificates: certificates(plan),
        state_dir: Some(folders.state().to_owned()),
        nginx: is(|kind| matches!(kind, ProcessKind::Nginx(_))).then(|| process::nginx::status_address(&processes)),
        postgres,
        edge: (!plan.edge.is_empty()).then(|| folders.edge_metrics()),
    }
}

fn certificates(plan: &Plan) -> Vec<Watched> {
    let mut watched: Vec<Watched> = plan
        .edge
        .iter()
        .map(|service| Watched { name: service.name.clone(), path: service.certificate.clone() })
        .collect();
    let own = plan.edge.iter().find_map(|service| service.upstream_tls.clone()).or_else(|| {
        plan.processes.iter().find_map(|process| match &process.kind {
            ProcessKind::Nginx(nginx) => Some(nginx.tls.clone()),
            _ => None,
        })
    });
    if let Some(tls) = own {
        watched.push(Watched { name: "ca".to_owned(), path: tls.ca });
        watched.push(Watched { name: plan.server.clone(), path: tls.certificate });
    }
    watched
}

fn read_datapath(
    datapath: &Datapath,
    flows: &Told,
    flood: &flood::Told,
) -> anyhow::Result<metrics::datapath::Datapath> {
    let counters = datapath.counters()?;
    let verdicts = counters.verdicts.into_iter().map(|(reason, count)| VerdictCount {
        verdict: reason.verdict(),
        reason: reason.label(),
        packets: count.packets,
        bytes: count.bytes,
    });
    let rules =
        counters.rules.into_iter().map(|(rule, count)| RuleCount { rule, packets: count.packets, bytes: count.bytes });
    let services = counters.services.into_iter().map(|(service, traffic)| ServiceCount {
        service,
        connections: traffic.connections,
        packets: traffic.packets,
        bytes: traffic.bytes,
    });
    let backends = counters.backends.into_iter().map(|(service, backend, load)| BackendCount {
        service,
        backend,
        flows: load.flows,
        connect_failures: load.connect_failures,
        connections: load.traffic.connections,
        packets: load.traffic.packets,
        bytes: load.traffic.bytes,
    });
    let tunnels = ["sent", "received"].into_iter().zip(counters.tunnels);
    let tunnel = |(way, count): (_, abi::Counter)| TunnelCount { way, packets: count.packets, bytes: count.bytes };
    Ok(metrics::datapath::Datapath {
        verdicts: verdicts.collect(),
        rules: rules.collect(),
        services: services.collect(),
        backends: backends.collect(),
        tunnels: tunnels.map(tunnel).collect(),
        flows: flow_tables(flows),
        interfaces: datapath.modes().iter().map(|(name, mode)| interface(name, *mode)).collect(),
        generation: u64::from(datapath.generation()),
        answering_syns: flood.answering(),
        floods: flood.floods(),
        fence_seconds: datapath.fence()?.map(|fence| fence.seconds()),
        events_lost: counters.events_lost,
    })
}

fn flow_tables(flows: &Told) -> Vec<FlowTable> {
    let (used, removed, sizes, replies) = (flows.used(), flows.removed(), flows.sizes(), flows.replies());
    let tables = TABLES.into_iter().enumerate();
    let told = tables.map(|(index, table)| FlowTable {
        table: match table {
            abi::FlowTable::Established => "established",
            abi::FlowTable::HalfOpen => "half_open",
            abi::FlowTable::Datagrams => "datagrams",
        },
        used: used[index],
        limit: sizes[index],
        removed: removed[index],
        replies: replies[index],
        // A flow has one entry at the most.
        replies_limit: sizes[index],
    });
    told.collect()
}

fn interface(name: &str, mode: datapath::links::Mode) -> Interface {
    let mode = match mode {
        Mode::Native => XdpMode::Native,
        Mode::Generic => XdpMode::Generic,
    };
    Interface { name: name.to_owned(), mode }
}

fn read_health(health: &Health) -> metrics::health::Health {
    let state = health.snapshot();
    let backends = state.services.iter().flat_map(|service| {
        let members = service.members();
        service.backends.iter().map(move |backend| metrics::health::BackendHealth {
            service: service.name.clone(),
            backend: backend.server.clone(),
            up: backend.status == Status::Up,
            member: members.iter().any(|member| member.address == backend.address),
            ejected: backend.ejection.is_out(),
            ejections: backend.ejection.count(),
            lag: match backend.role {
                Some(DatabaseRole::Replica { lag_bytes, lag_seconds }) => Some((lag_seconds, lag_bytes, backend.late)),
                Some(DatabaseRole::Primary) | None => None,
            },
            success: backend.checks.success,
            failure: backend.checks.failure,
            timeout: backend.checks.timeout,
        })
    });
    metrics::health::Health { backends: backends.collect() }
}

fn read_database(report: &DatabaseReport) -> metrics::database::Database {
    let seconds = |ms: u64| Duration::from_millis(ms).as_secs_f64();
    metrics::database::Database {
        epoch: report.epoch,
        leads: report.lease_left_ms.is_some_and(|left| left > 0),
        in_sync: report.members.iter().filter(|member| member.in_sync).count() as u64,
        store_age_seconds: report.store_age_ms.map(seconds),
        diverged_transactions: report.diverged_transactions,
        promotions: report.promotions,
        promotion_seconds: report.promotion_ms.map(seconds),
    }
}

fn read_processes(supervisor: &Supervisor) -> metrics::processes::Processes {
    let processes = supervisor.usage().into_iter().map(|usage| metrics::processes::Process {
        name: usage.name,
        up: usage.up,
        restarts: usage.restarts,
        cpu_seconds: usage.cpu_seconds,
        memory_bytes: usage.memory_bytes,
        stopped: usage.stopped,
        throttled_periods: usage.throttled_periods,
        throttled_seconds: usage.throttled_seconds,
        oom_kills: usage.oom_kills,
    });
    metrics::processes::Processes { processes: processes.collect() }
}
