//! Services of a plan on their way into the state maps.

use std::hash::{BuildHasher as _, RandomState};
use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use foobar_common::abi::{MAX_MEMBERS, SERVICE_LOCAL, SERVICE_WIRE};
use foobar_common::parse::{TCP, UDP};

use super::slots::{Slots, backend_name, service_name};
use super::state::{Socket, State};
use crate::plan::{Scope, ServicePlan, Transport};

/// One service in one address family.
#[derive(Clone, Debug)]
pub(super) struct Planned {
    pub(super) name: String,
    pub(super) slot: u32,
    pub(super) vips: Vec<Socket>,
    flags: u32,
    pub(super) backends: Vec<PlannedBackend>,
}

/// One backend of it.
#[derive(Clone, Debug)]
pub(super) struct PlannedBackend {
    pub(super) server: String,
    pub(super) endpoint: SocketAddr,
    pub(super) slot: u32,
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
fn endpoints(service: &ServicePlan, ipv4: bool) -> impl Iterator<Item = (&str, SocketAddr)> {
    service.backends.iter().flat_map(move |backend| {
        let addresses = backend.addresses.iter().copied().filter(move |address| address.is_ipv4() == ipv4);
        addresses.map(|address| (backend.server.as_str(), address))
    })
}

/// Names of all slots that services need: services, and backends.
pub(super) fn names(services: &[ServicePlan]) -> (Vec<String>, Vec<String>) {
    let slots = families(services).map(|(service, ipv4, _)| service_name(&service.name, ipv4)).collect();
    let backends = families(services)
        .flat_map(|(service, ipv4, _)| {
            endpoints(service, ipv4).map(|(server, endpoint)| backend_name(&service.name, server, endpoint))
        })
        .collect();
    (slots, backends)
}

/// Services with their slots.
pub(super) fn plan(services: &[ServicePlan], slots: &Slots) -> Result<Vec<Planned>> {
    families(services).map(|(service, ipv4, vips)| planned(service, ipv4, &vips, slots)).collect()
}

fn planned(service: &ServicePlan, ipv4: bool, vips: &[SocketAddr], slots: &Slots) -> Result<Planned> {
    let protocol = protocol(service);
    ensure!(
        service.scope != Scope::Nat || vips.len() == 1,
        "service `{}` has {} VIPs of one address family, but replies of a nat service find back to one",
        service.name,
        vips.len()
    );
    let backends = endpoints(service, ipv4)
        .map(|(server, endpoint)| {
            let slot = slots.backends.slot(&backend_name(&service.name, server, endpoint));
            Ok(PlannedBackend { server: server.to_owned(), endpoint, slot: slot.context("a backend has no slot")? })
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
            Scope::Nat => SERVICE_WIRE | SERVICE_LOCAL,
            Scope::Local => SERVICE_LOCAL,
        },
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
    /// The way back from each backend to the VIP, for services on the wire.
    fn endpoints(&self) -> impl Iterator<Item = (Socket, SocketAddr, u32)> {
        let wire = self.vips.first().filter(|_| self.flags & SERVICE_WIRE != 0);
        wire.into_iter().flat_map(|vip| {
            self.backends.iter().map(|backend| {
                (Socket { address: backend.endpoint, protocol: vip.protocol }, vip.address, backend.slot)
            })
        })
    }
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
    for service in services {
        for (endpoint, vip, backend) in service.endpoints() {
            state.set_endpoint(endpoint, vip, backend)?;
        }
        let members: Vec<u32> = state
            .members(&service.vips, service.slot)?
            .into_iter()
            .filter(|member| service.backends.iter().any(|backend| backend.slot == *member))
            .collect();
        write_members(state, service, &members)?;
    }
    Ok(())
}

/// Writes backends and ring of a service. Backends first: who is chosen is there, and known to be a member.
fn write_members(state: &mut State, service: &Planned, members: &[u32]) -> Result<()> {
    for backend in &service.backends {
        state.set_backend(backend.slot, service.slot, backend.endpoint, members.contains(&backend.slot))?;
    }
    state.set_members(&service.vips, service.slot, service.flags, members)
}

/// Removes what the plan does not have any more.
pub(super) fn remove_others(state: &mut State, services: &[Planned], retired: &[u32]) -> Result<()> {
    let vips: Vec<Socket> = services.iter().flat_map(|service| service.vips.iter().copied()).collect();
    state.retain_services(&vips)?;
    let endpoints: Vec<Socket> = services.iter().flat_map(Planned::endpoints).map(|(socket, ..)| socket).collect();
    state.retain_endpoints(&endpoints)?;
    retired.iter().try_for_each(|slot| state.remove_backend(*slot))
}

/// Makes exactly these backends the members of a service.
pub(super) fn set_members(state: &mut State, service: &Planned, members: &[(String, SocketAddr)]) -> Result<()> {
    let slots: Vec<u32> = service
        .backends
        .iter()
        .filter(|backend| members.iter().any(|(server, at)| *server == backend.server && *at == backend.endpoint))
        .map(|backend| backend.slot)
        .collect();
    write_members(state, service, &slots)
}
