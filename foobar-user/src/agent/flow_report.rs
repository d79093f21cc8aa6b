//! Flows as they are, for `foobar flows`.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};
use foobar_common::abi::{FLOW_BACKEND_FIN, FLOW_CLIENT_FIN, FLOW_RESET, FlowTable};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::control::{FlowQuery, Reply};
use super::server::{Server, lock};
use crate::datapath::clock;
use crate::datapath::flows::{FlowTables, Known};
use crate::datapath::load::Place;

/// What a walk through the flow tables has found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowsReport {
    /// Flows that were asked for.
    pub flows: u64,
    /// Those that were ended.
    pub ended: u64,
    /// How many of each kind, the most first.
    pub counts: Vec<FlowCount>,
    /// Clients with the most flows.
    pub top: Vec<ClientCount>,
    /// Some of the flows.
    pub list: Vec<FlowEntry>,
}

/// How many flows of one kind there are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FlowCount {
    /// Their service; `-`: it is no longer in force.
    pub service: String,
    /// Their backend's server.
    pub backend: String,
    /// Their state.
    pub state: String,
    /// How many.
    pub flows: u64,
}

/// How many flows a client has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientCount {
    /// Its address.
    pub client: IpAddr,
    /// How many.
    pub flows: u64,
}

/// One flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowEntry {
    /// The client.
    pub client: SocketAddr,
    /// The VIP that it asked for.
    pub vip: SocketAddr,
    /// Its service; `-`: it is no longer in force.
    pub service: String,
    /// Its backend's server.
    pub backend: String,
    /// The backend's endpoint.
    pub endpoint: Option<SocketAddr>,
    /// From where the backend sees it; `None`: from the client's own address and port.
    pub source: Option<SocketAddr>,
    /// `half-open`, `established`, `closing`, `closed`, `reset` or `udp`.
    pub state: String,
    /// Milliseconds since its entry was last written: up to a second more than since its last packet.
    pub idle_ms: u64,
}

impl Server {
    /// Answers by itself when the walk is over.
    pub(super) fn flows(&self, query: FlowQuery, reply: oneshot::Sender<Result<Reply>>) {
        let places = lock(&self.datapath).places();
        let ready = self.checked(&query, &places).and_then(|()| Ok((lock(&self.datapath).flow_tables()?, places)));
        tokio::task::spawn_blocking(move || {
            let report = ready.and_then(|(tables, places)| report(tables, &places, &query));
            // Who asked may have gone away.
            drop(reply.send(report.and_then(|report| Reply::value(&report))));
        });
    }

    /// A misspelt name finds nothing, and that would look like an answer.
    fn checked(&self, query: &FlowQuery, places: &BTreeMap<u32, Place>) -> Result<()> {
        let services = &self.loaded.plan.services;
        if let Some(name) = &query.service {
            let known = services.iter().any(|service| service.name == *name)
                || places.values().any(|place| place.service == *name);
            ensure!(known, "{} has no service `{name}`: `foobar services` lists them", self.name());
        }
        if let Some(name) = &query.backend {
            // Who has left the site file may still have flows.
            let known = services.iter().flat_map(|service| &service.backends).any(|backend| backend.server == *name)
                || places.values().any(|place| place.server == *name);
            ensure!(known, "{} has no backend `{name}`: `foobar services` lists them", self.name());
        }
        Ok(())
    }
}

fn report(mut tables: FlowTables, places: &BTreeMap<u32, Place>, query: &FlowQuery) -> Result<FlowsReport> {
    let now_ns = clock::now_ns()?;
    let mut report = FlowsReport::default();
    let mut counts: BTreeMap<(&str, &str, &str), u64> = BTreeMap::new();
    let mut clients: BTreeMap<IpAddr, u64> = BTreeMap::new();
    let ended = tables.walk(|known| {
        let place = places.get(&known.backend);
        if !wanted(query, known, place) {
            return false;
        }
        report.flows += 1;
        let (service, backend) = place.map_or(("-", "-"), |place| (&place.service, &place.server));
        *counts.entry((service, backend, state(known))).or_default() += 1;
        *clients.entry(known.client.ip()).or_default() += 1;
        if report.list.len() < query.limit {
            report.list.push(entry(known, place, now_ns));
        }
        query.end
    });
    report.ended = ended.context("cannot walk through the flow tables")?;
    report.counts = counts
        .into_iter()
        .map(|((service, backend, state), flows)| FlowCount {
            service: service.to_owned(),
            backend: backend.to_owned(),
            state: state.to_owned(),
            flows,
        })
        .collect();
    report.counts.sort_by_key(|count| std::cmp::Reverse(count.flows));
    report.top = clients.into_iter().map(|(client, flows)| ClientCount { client, flows }).collect();
    report.top.sort_by_key(|count| std::cmp::Reverse(count.flows));
    report.top.truncate(query.limit);
    Ok(report)
}

fn wanted(query: &FlowQuery, known: &Known, place: Option<&Place>) -> bool {
    let of = |asked: &Option<String>, name: Option<&String>| asked.is_none() || asked.as_ref() == name;
    of(&query.service, place.map(|place| &place.service))
        && of(&query.backend, place.map(|place| &place.server))
        && query.client.is_none_or(|prefix| prefix.contains(&known.client.ip()))
        && query.client_port.is_none_or(|port| port == known.client.port())
}

fn entry(known: &Known, place: Option<&Place>, now_ns: u64) -> FlowEntry {
    let name = |name: fn(&Place) -> &String| place.map_or_else(|| "-".to_owned(), |place| name(place).clone());
    FlowEntry {
        client: known.client,
        vip: known.vip,
        service: name(|place| &place.service),
        backend: name(|place| &place.server),
        endpoint: place.map(|place| place.endpoint),
        source: known.source,
        state: state(known).to_owned(),
        idle_ms: now_ns.saturating_sub(known.last_seen_ns) / 1_000_000,
    }
}

const fn state(known: &Known) -> &'static str {
    let fins = known.state & (FLOW_CLIENT_FIN | FLOW_BACKEND_FIN);
    match known.table {
        FlowTable::Datagrams => "udp",
        _ if known.state & FLOW_RESET != 0 => "reset",
        FlowTable::HalfOpen => "half-open",
        FlowTable::Established if fins == FLOW_CLIENT_FIN | FLOW_BACKEND_FIN => "closed",
        FlowTable::Established if fins != 0 => "closing",
        FlowTable::Established => "established",
    }
}
