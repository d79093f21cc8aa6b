//! Services of a plan on their way into the state maps.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};
use foobar_common::abi::{
    BACKEND_ABSENT, BACKEND_KEPT, BACKEND_MEMBER, Backend, ENDPOINT_REPLIES, FORWARD_DIRECT, FORWARD_NAT,
    FORWARD_TUNNEL, MAX_MEMBERS, SERVICE_HASH, SERVICE_LEAST, SERVICE_LOCAL, SERVICE_REPLIES, SERVICE_WIRE, Service,
};
use foobar_common::parse::{TCP, UDP};

use super::load::Place;
use super::ring::{self, Share};
use super::slots::{Slots, backend_name, service_name};
use super::state::{Socket, State};
use crate::health::Member;
use crate::plan::{BackendPlan, Balance, Schedule, Scope, ServicePlan, Transport};

/// One service in one address family.
#[derive(Clone, Debug)]
pub(super) struct Planned {
    pub(super) name: String,
    pub(super) slot: u32,
    pub(super) vips: Vec<Socket>,
    flags: u32,
    scope: Scope,
    balance: Balance,
    /// Addresses from which its backends see its flows.
    sources: Vec<IpAddr>,
    pub(super) backends: Vec<PlannedBackend>,
}

/// One backend of it.
#[derive(Clone, Debug)]
pub(super) struct PlannedBackend {
    pub(super) server: String,
    pub(super) endpoint: SocketAddr,
    pub(super) slot: u32,
    weight: u32,
}

/// Every pair of service and family that has a VIP, with its VIPs and backends.
fn families(services: &[ServicePlan]) -> impl Iterator<Item = (&ServicePlan, bool, Vec<SocketAddr>)> {
    services.iter().flat_map(|service| {
        [true, false].into_iter().filter_map(move |ipv4| {
            let vips: Vec<_> = service.vips.iter().copied().filter(|vip| vip.is_ipv4() == ipv4).collect();
            (!vips.is_empty()).then_some((service, ipv4, vips))
        })
    })
}

/// The backends of a service in one family.
fn endpoints(service: &ServicePlan, ipv4: bool) -> impl Iterator<Item = (&BackendPlan, SocketAddr)> {
    service.backends.iter().flat_map(move |backend| {
        let addresses = backend.addresses.iter().copied().filter(move |address| address.is_ipv4() == ipv4);
        addresses.map(move |address| (backend, address))
    })
}

/// Names of all slots that services need: services, and backends.
pub(super) fn names(services: &[ServicePlan]) -> (Vec<String>, Vec<String>) {
    let slots = families(services).map(|(service, ipv4, _)| service_name(&service.name, ipv4)).collect();
    let backends = families(services)
        .flat_map(|(service, ipv4, _)| {
            endpoints(service, ipv4).map(|(backend, endpoint)| backend_name(&service.name, &backend.server, endpoint))
        })
        .collect();
    (slots, backends)
}

/// Services with their slots.
pub(super) fn plan(services: &[ServicePlan], slots: &Slots) -> Result<Vec<Planned>> {
    let planned = families(services).map(|(service, ipv4, vips)| planned(service, ipv4, &vips, slots));
    let mut services = planned.collect::<Result<Vec<_>>>()?;
    join(&mut services);
    Ok(services)
}

fn planned(service: &ServicePlan, ipv4: bool, vips: &[SocketAddr], slots: &Slots) -> Result<Planned> {
    let protocol = protocol(service);
    let backends = endpoints(service, ipv4)
        .map(|(backend, endpoint)| {
            let slot = slots.backends.slot(&backend_name(&service.name, &backend.server, endpoint));
            let (server, weight) = (backend.server.clone(), backend.weight);
            Ok(PlannedBackend { server, endpoint, slot: slot.context("a backend has no slot")?, weight })
        })
        .collect::<Result<Vec<_>>>()?;
    ensure!(
        backends.len() <= MAX_MEMBERS as usize,
        "service `{}` has {} backends, but {MAX_MEMBERS} is the limit",
        service.name,
        backends.len()
    );
    Ok(Planned {
        name: service.name.clone(),
        slot: slots.services.slot(&service_name(&service.name, ipv4)).context("a service has no slot")?,
        vips: vips.iter().map(|address| Socket { address: *address, protocol }).collect(),
        flags: match service.scope {
            Scope::Nat | Scope::Direct | Scope::Tunnel => SERVICE_WIRE | SERVICE_LOCAL,
            Scope::Local => SERVICE_LOCAL,
        } | match service.balance.schedule {
            Schedule::RoundRobin => 0,
            Schedule::LeastConnections => SERVICE_LEAST,
            Schedule::Maglev => SERVICE_HASH,
        },
        scope: service.scope,
        balance: service.balance,
        sources: service.sources.iter().copied().filter(|source| source.is_ipv4() == ipv4).collect(),
        backends,
    })
}

const fn protocol(service: &ServicePlan) -> u8 {
    match service.protocol {
        Transport::Tcp => TCP,
        Transport::Udp => UDP,
    }
}

impl Planned {
    /// What the kernel knows of it beside its ring.
    fn kernel(&self) -> Service {
        Service { slot: self.slot, flags: self.flags, affinity_s: self.balance.affinity_s, ..Service::default() }
    }

    /// Every endpoint of a backend with every VIP that it stands behind, for services whose replies pass here.
    fn ways_back(&self) -> impl Iterator<Item = (Socket, WayBack)> {
        let vips = self.vips.iter().filter(|_| self.scope == Scope::Nat);
        vips.flat_map(|vip| {
            self.backends.iter().map(|backend| {
                let endpoint = Socket { address: backend.endpoint, protocol: vip.protocol };
                (endpoint, WayBack { vip: vip.address, backend: backend.slot, seen: !self.sources.is_empty() })
            })
        })
    }
}

/// A VIP that an endpoint stands behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct WayBack {
    vip: SocketAddr,
    backend: u32,
    /// Whether the backend sees an address of the balancer's own.
    seen: bool,
}

/// The ways back of every endpoint.
fn ways_back(services: &[Planned]) -> BTreeMap<Socket, Vec<WayBack>> {
    let mut endpoints: BTreeMap<Socket, Vec<WayBack>> = BTreeMap::new();
    for (endpoint, way) in services.iter().flat_map(Planned::ways_back) {
        endpoints.entry(endpoint).or_default().push(way);
    }
    endpoints
}

/// Whether replies from an endpoint are told apart by entries of their own.
fn needs_replies(ways: &[WayBack]) -> bool {
    ways.len() > 1 || ways.iter().any(|way| way.seen)
}

/// Has each service know whether its flows need entries for their replies: also by services beside it.
fn join(services: &mut [Planned]) {
    let endpoints = ways_back(services);
    for service in services {
        if service.ways_back().any(|(endpoint, _)| endpoints.get(&endpoint).is_some_and(|ways| needs_replies(ways))) {
            service.flags |= SERVICE_REPLIES;
        }
    }
}

/// Writes the way back from each endpoint.
fn add_ways_back(state: &mut State, services: &[Planned]) -> Result<()> {
    for (endpoint, ways) in ways_back(services) {
        // Flows from before there were more of them go on by the one that there was.
        let before = state.find_endpoint(endpoint);
        let unseen = || ways.iter().filter(|way| !way.seen);
        let known = unseen().find(|way| Some(way.vip) == before).or_else(|| unseen().next());
        let Some(way) = known.or(ways.first()) else { continue };
        let flags = if needs_replies(&ways) { ENDPOINT_REPLIES } else { 0 };
        state.set_endpoint(endpoint, way.vip, way.backend, flags)?;
    }
    Ok(())
}

/// Writes what is new beside what is in force: backends, endpoints, and services with the members they had.
pub(super) fn add(state: &mut State, services: &[Planned], fresh_services: &[u32], fresh: &[u32]) -> Result<()> {
    for slot in fresh_services {
        // Servers that all began with the first backend would give it more than its share while connections are few.
        state.clear_service(*slot, RandomState::new().hash_one(slot) >> 32)?;
    }
    for slot in fresh {
        state.clear_backend(*slot)?;
    }
    // Before the first flow that needs them.
    add_ways_back(state, services)?;
    for service in services {
        // With the plan's weights; health says soon what they are now.
        let before = state.members(&service.vips, service.slot)?;
        let stays = |backend: &&PlannedBackend| before.contains(&backend.slot);
        let weights = service.backends.iter().filter(stays).map(|backend| (backend.slot, backend.weight.max(1)));
        write_members(state, service, &weights.collect::<Vec<_>>(), &[])?;
    }
    Ok(())
}

/// Writes backends and ring of a service. Backends first: who is chosen is there, and known to be a member.
///
/// `weights`: of the members, by slot; `disabled`: slots whose flows end.
fn write_members(state: &mut State, service: &Planned, weights: &[(u32, u32)], disabled: &[u32]) -> Result<()> {
    let weight_of = |slot| weights.iter().find(|(member, _)| *member == slot).map(|(_, weight)| *weight);
    for PlannedBackend { slot, endpoint, .. } in &service.backends {
        let weight = weight_of(*slot);
        let reached = match weight {
            Some(_) => BACKEND_MEMBER,
            None if disabled.contains(slot) => BACKEND_ABSENT,
            None => BACKEND_KEPT,
        };
        let backend = Backend {
            state: reached,
            forward: match service.scope {
                Scope::Nat | Scope::Local => FORWARD_NAT,
                Scope::Direct => FORWARD_DIRECT,
                Scope::Tunnel => FORWARD_TUNNEL,
            },
            service: service.slot,
            limit: service.balance.max_connections,
            weight: weight.unwrap_or(1),
            ..Backend::default()
        };
        state.set_backend(*slot, *endpoint, backend)?;
    }
    let shares = service.backends.iter().filter_map(|backend| {
        let (slot, weight) = (u16::try_from(backend.slot).ok()?, weight_of(backend.slot)?);
        Some(Share { slot, weight, name: backend_name(&service.name, &backend.server, backend.endpoint) })
    });
    let ring = ring::build(service.balance.schedule, &shares.collect::<Vec<_>>());
    state.set_ring(&service.vips, service.kernel(), &ring, &service.sources)?;
    state.forget_ways();
    Ok(())
}

/// Removes what the plan does not have any more; the way back of backends that are leaving stays.
pub(super) fn remove_others(
    state: &mut State,
    services: &[Planned],
    leaving: &BTreeMap<String, u32>,
    free: &[u32],
) -> Result<()> {
    let vips: Vec<Socket> = services.iter().flat_map(|service| service.vips.iter().copied()).collect();
    state.retain_services(&vips)?;
    let planned = services.iter().flat_map(Planned::ways_back).map(|(endpoint, _)| endpoint);
    let left = leaving
        .keys()
        .filter_map(|name| Place::named(name))
        .flat_map(|place| [TCP, UDP].map(|protocol| Socket { address: place.endpoint, protocol }));
    state.retain_endpoints(&planned.chain(left).collect::<Vec<_>>())?;
    free.iter().try_for_each(|slot| state.remove_backend(*slot))?;
    state.forget_ways();
    Ok(())
}

/// Makes exactly these backends the members of a service; flows to servers that are disabled end.
pub(super) fn set_members(state: &mut State, service: &Planned, members: &[Member], disabled: &[String]) -> Result<()> {
    let weight = |backend: &PlannedBackend| {
        let same = |member: &&Member| member.server == backend.server && member.address == backend.endpoint;
        members.iter().find(same).map(|member| (backend.slot, member.weight))
    };
    let weights: Vec<(u32, u32)> = service.backends.iter().filter_map(weight).collect();
    let out = service.backends.iter().filter(|backend| disabled.contains(&backend.server));
    write_members(state, service, &weights, &out.map(|backend| backend.slot).collect::<Vec<_>>())
}
