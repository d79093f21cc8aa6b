//! The state maps: services, rings, backends, counters, flows.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};
use aya::maps::{Array, HashMap, MapData, MapError, PerCpuArray, PerCpuValues};
use aya::util::nr_cpus;
use foobar_common::abi::{
    BACKEND_KEPT, Backend, ConnectFailures, Counter, Endpoint, Fenced, MAX_SOURCES, RING_PLACES, Ring, Service,
    TUNNEL_RECEIVED, TUNNEL_SENT, TUNNEL_WAYS, Traffic,
};
use foobar_common::address::{Address, Be16, Family as _, SocketKey, words};
use foobar_common::verdict::Reason;

use super::epoch::Epoch;
use super::flows::Flows;
use super::programs::Programs;
use super::replies::Replies;
use super::vlans::{Vlan, Vlans};
use super::wire::Wire;

/// Handles on the state maps; the maps live on in their pins.
pub struct State {
    verdicts: PerCpuArray<MapData, Wire<Counter>>,
    tunnels: PerCpuArray<MapData, Wire<Counter>>,
    rules: PerCpuArray<MapData, Wire<Counter>>,
    services: PerCpuArray<MapData, Wire<Traffic>>,
    backends: PerCpuArray<MapData, Wire<Traffic>>,
    events_lost: PerCpuArray<MapData, u64>,
    cursors: Array<MapData, u64>,
    vips4: HashMap<MapData, Wire<SocketKey<1>>, Wire<Service>>,
    vips6: HashMap<MapData, Wire<SocketKey<4>>, Wire<Service>>,
    endpoints4: HashMap<MapData, Wire<SocketKey<1>>, Wire<Endpoint>>,
    endpoints6: HashMap<MapData, Wire<SocketKey<4>>, Wire<Endpoint>>,
    rings: Array<MapData, Wire<Ring>>,
    sources: Array<MapData, [[u32; 4]; MAX_SOURCES as usize]>,
    active: Array<MapData, u64>,
    local_active: Array<MapData, u64>,
    connect_failures: Array<MapData, Wire<ConnectFailures>>,
    epoch: Epoch,
    table: Array<MapData, Wire<Backend>>,
    fenced: Array<MapData, Wire<Fenced>>,
    vlans: Vlans,
    pub(super) flows: Flows,
    pub(super) replies: Replies,
}

/// A VIP or an endpoint: address, port, IANA protocol number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Socket {
    /// Address and port.
    pub address: SocketAddr,
    /// IANA protocol number.
    pub protocol: u8,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").finish_non_exhaustive()
    }
}

impl State {
    /// Takes the state maps out of loaded programs.
    ///
    /// # Errors
    /// A map is missing or of another type.
    pub fn of(programs: &mut Programs) -> Result<Self> {
        let seed = programs.seed()?;
        let mut take = |name| programs.take_map(name);
        Ok(Self {
            verdicts: take("VERDICTS")?.try_into()?,
            tunnels: take("TUNNELS")?.try_into()?,
            rules: take("RULE_COUNTS")?.try_into()?,
            services: take("SERVICE_COUNTS")?.try_into()?,
            backends: take("BACKEND_COUNTS")?.try_into()?,
            events_lost: take("EVENTS_LOST")?.try_into()?,
            cursors: take("CURSORS")?.try_into()?,
            vips4: take("SERVICES4")?.try_into()?,
            vips6: take("SERVICES6")?.try_into()?,
            endpoints4: take("ENDPOINTS4")?.try_into()?,
            endpoints6: take("ENDPOINTS6")?.try_into()?,
            rings: take("RINGS")?.try_into()?,
            sources: take("SOURCES")?.try_into()?,
            active: take("ACTIVE")?.try_into()?,
            local_active: take("LOCAL_ACTIVE")?.try_into()?,
            connect_failures: take("CONNECT_FAILURES")?.try_into()?,
            epoch: Epoch::of(take("EPOCH")?)?,
            table: take("BACKENDS")?.try_into()?,
            fenced: take("FENCED")?.try_into()?,
            vlans: Vlans::of(&mut take)?,
            flows: Flows::of(&mut take, seed)?,
            replies: Replies::of(&mut take)?,
        })
    }

    /// Has every CPU forget the ways of flows: services, backends or flows have changed.
    pub fn forget_ways(&self) {
        self.epoch.begin();
    }

    /// Has the packet path know these devices of VLANs and no others.
    ///
    /// # Errors
    /// There are too many, or a map cannot be changed.
    pub fn set_vlans(&mut self, vlans: &[Vlan]) -> Result<()> {
        self.vlans.set(vlans)
    }

    /// What is held back where it leaves, once the lease is over.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn set_fenced(&mut self, fenced: &Fenced) -> Result<()> {
        Ok(self.fenced.set(0, Wire(*fenced), 0)?)
    }

    /// Packets and bytes of every reason, over all CPUs.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn verdicts(&self) -> Result<Vec<(Reason, Counter)>> {
        Reason::ALL.iter().map(|reason| Ok((*reason, sum(&self.verdicts, *reason as u32)?))).collect()
    }

    /// Packets and bytes that were put into tunnels, and that were taken out of them.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn tunnels(&self) -> Result<[Counter; TUNNEL_WAYS as usize]> {
        Ok([sum(&self.tunnels, TUNNEL_SENT)?, sum(&self.tunnels, TUNNEL_RECEIVED)?])
    }

    /// Events for which the ring had no room, since the maps were made.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn events_lost(&self) -> Result<u64> {
        Ok(self.events_lost.get(&0, 0)?.iter().sum())
    }

    /// Packets and bytes of a rule's counter slot.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn rule(&self, slot: u32) -> Result<Counter> {
        sum(&self.rules, slot)
    }

    /// Traffic of a service slot.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn service(&self, slot: u32) -> Result<Traffic> {
        sum_traffic(&self.services, slot)
    }

    /// Traffic of a backend slot.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn backend(&self, slot: u32) -> Result<Traffic> {
        sum_traffic(&self.backends, slot)
    }

    /// Sets a rule's counter to zero.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn clear_rule(&mut self, slot: u32) -> Result<()> {
        Ok(self.rules.set(slot, everywhere(Wire(Counter::default()))?, 0)?)
    }

    /// Sets a service's counters to zero, and its cursor to a start.
    ///
    /// # Errors
    /// A map cannot be written.
    pub fn clear_service(&mut self, slot: u32, cursor: u64) -> Result<()> {
        self.cursors.set(slot, cursor, 0)?;
        Ok(self.services.set(slot, everywhere(Wire(Traffic::default()))?, 0)?)
    }

    /// Sets a backend's counters to zero. Those of local sockets go there by themselves: a slot is given to nobody else before.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn clear_backend(&mut self, slot: u32) -> Result<()> {
        self.active.set(slot, 0, 0)?;
        self.connect_failures.set(slot, Wire(ConnectFailures::default()), 0)?;
        Ok(self.backends.set(slot, everywhere(Wire(Traffic::default()))?, 0)?)
    }

    /// Flows from the wire and connections of local sockets that a backend slot has now.
    ///
    /// # Errors
    /// A map cannot be read.
    pub fn active(&self, slot: u32) -> Result<u64> {
        let flows = u64::try_from(self.active.get(&slot, 0)?.cast_signed()).unwrap_or(0);
        Ok(flows + self.local_active(slot)?)
    }

    /// Connections of local sockets that a backend slot has now.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn local_active(&self, slot: u32) -> Result<u64> {
        Ok(self.local_active.get(&slot, 0)?)
    }

    /// Connections that a backend slot has not taken.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn connect_failures(&self, slot: u32) -> Result<ConnectFailures> {
        Ok(self.connect_failures.get(&slot, 0)?.0)
    }

    /// Writes a backend at this endpoint: new connections go to members only, established ones stay with any.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn set_backend(&mut self, slot: u32, endpoint: SocketAddr, backend: Backend) -> Result<()> {
        let (address, port) = (words(endpoint.ip()), Be16::new(endpoint.port()));
        Ok(self.table.set(slot, Wire(Backend { address, port, ..backend }), 0)?)
    }

    /// Gives a backend nothing new, and lets it end the flows that it has.
    ///
    /// # Errors
    /// The map cannot be read or written.
    pub fn keep_backend(&mut self, slot: u32) -> Result<()> {
        let backend = self.table.get(&slot, 0)?.0;
        Ok(self.table.set(slot, Wire(Backend { state: BACKEND_KEPT, ..backend }), 0)?)
    }

    /// Frees a backend's slot: flows to it end.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn remove_backend(&mut self, slot: u32) -> Result<()> {
        Ok(self.table.set(slot, Wire(Backend::default()), 0)?)
    }

    /// Replaces the ring of a service at one instant: it is written whole beside the one in force.
    ///
    /// `service` says how one of the places is chosen; its ring, its numbers of places and of source addresses are filled in.
    ///
    /// # Errors
    /// A map cannot be written.
    pub fn set_ring(&mut self, vips: &[Socket], service: Service, places: &[u16], sources: &[IpAddr]) -> Result<()> {
        let halves = [service.slot * 2, service.slot * 2 + 1];
        let in_force = vips.iter().find_map(|vip| self.find_service(*vip)).map(|service| service.ring);
        let ring = if in_force == Some(halves[0]) { halves[1] } else { halves[0] };
        ensure!(places.len() <= RING_PLACES, "{} places do not fit into a ring", places.len());
        let mut whole = Ring { places: [0; RING_PLACES] };
        whole.places[..places.len()].copy_from_slice(places);
        self.rings.set(ring, Wire(whole), 0)?;
        ensure!(
            sources.len() <= MAX_SOURCES as usize,
            "{} source addresses, {MAX_SOURCES} are the limit",
            sources.len()
        );
        let mut addresses = [[0; 4]; MAX_SOURCES as usize];
        addresses.iter_mut().zip(sources).for_each(|(place, source)| *place = words(*source));
        self.sources.set(ring, addresses, 0)?;
        let (places, sources) = (u32::try_from(places.len())?, u32::try_from(sources.len())?);
        for vip in vips {
            self.set_service(*vip, Service { ring, places, sources, ..service })?;
        }
        Ok(())
    }

    /// Backend slots of the ring in force, each once.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn members(&self, vips: &[Socket], slot: u32) -> Result<BTreeSet<u32>> {
        let service = vips.iter().find_map(|vip| self.find_service(*vip)).filter(|service| service.slot == slot);
        let Some(service) = service else { return Ok(BTreeSet::new()) };
        let ring = self.rings.get(&service.ring, 0)?.0;
        Ok(ring.places.iter().take(service.places as usize).map(|slot| u32::from(*slot)).collect())
    }

    fn set_service(&mut self, vip: Socket, service: Service) -> Result<()> {
        match vip.address.ip() {
            IpAddr::V4(ip) => self.vips4.insert(key(ip.into(), vip), Wire(service), 0),
            IpAddr::V6(ip) => self.vips6.insert(key(ip.into(), vip), Wire(service), 0),
        }
        .with_context(|| format!("cannot write the service at {}", vip.address))
    }

    /// The service at a VIP.
    #[must_use]
    pub fn find_service(&self, vip: Socket) -> Option<Service> {
        match vip.address.ip() {
            IpAddr::V4(ip) => self.vips4.get(&key(ip.into(), vip), 0).ok(),
            IpAddr::V6(ip) => self.vips6.get(&key(ip.into(), vip), 0).ok(),
        }
        .map(|service| service.0)
    }

    /// Removes the services at VIPs that are not in `keep`.
    ///
    /// # Errors
    /// A map cannot be changed.
    pub fn retain_services(&mut self, keep: &[Socket]) -> Result<()> {
        retain(&mut self.vips4, keep, Address::<1>::socket)?;
        retain(&mut self.vips6, keep, Address::<4>::socket)
    }

    /// Writes the way back from a backend's endpoint to its VIP; `flags`: `ENDPOINT_*`.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn set_endpoint(&mut self, endpoint: Socket, vip: SocketAddr, backend: u32, flags: u16) -> Result<()> {
        let value = Wire(Endpoint { vip: words(vip.ip()), port: Be16::new(vip.port()), flags, backend });
        match endpoint.address.ip() {
            IpAddr::V4(ip) => self.endpoints4.insert(key(ip.into(), endpoint), value, 0),
            IpAddr::V6(ip) => self.endpoints6.insert(key(ip.into(), endpoint), value, 0),
        }
        .with_context(|| format!("cannot write the endpoint {}", endpoint.address))
    }

    /// The VIP that is the way back from a backend's endpoint, as far as one alone is.
    #[must_use]
    pub fn find_endpoint(&self, endpoint: Socket) -> Option<SocketAddr> {
        match endpoint.address.ip() {
            IpAddr::V4(ip) => {
                let found = self.endpoints4.get(&key(ip.into(), endpoint), 0).ok()?.0;
                Some(SocketAddr::new(Address::<1>::from_words(found.vip).into(), found.port.host()))
            }
            IpAddr::V6(ip) => {
                let found = self.endpoints6.get(&key(ip.into(), endpoint), 0).ok()?.0;
                Some(SocketAddr::new(Address::<4>::from_words(found.vip).into(), found.port.host()))
            }
        }
    }

    /// Removes the endpoints that are not in `keep`.
    ///
    /// # Errors
    /// A map cannot be changed.
    pub fn retain_endpoints(&mut self, keep: &[Socket]) -> Result<()> {
        retain(&mut self.endpoints4, keep, Address::<1>::socket)?;
        retain(&mut self.endpoints6, keep, Address::<4>::socket)
    }
}

/// An address family's way from a map key back to a socket.
trait FamilyKey<const W: usize> {
    fn socket(key: SocketKey<W>) -> Socket;
}

impl FamilyKey<1> for Address<1> {
    fn socket(key: SocketKey<1>) -> Socket {
        let ip = IpAddr::from(key.address.bytes());
        Socket { address: SocketAddr::new(ip, key.port.host()), protocol: key.protocol }
    }
}

impl FamilyKey<4> for Address<4> {
    fn socket(key: SocketKey<4>) -> Socket {
        let ip = IpAddr::from(key.address.bytes());
        Socket { address: SocketAddr::new(ip, key.port.host()), protocol: key.protocol }
    }
}

fn key<const W: usize>(address: Address<W>, socket: Socket) -> Wire<SocketKey<W>> {
    Wire(SocketKey::new(address, Be16::new(socket.address.port()), socket.protocol))
}

fn retain<const W: usize, V: aya::Pod>(
    map: &mut HashMap<MapData, Wire<SocketKey<W>>, V>,
    keep: &[Socket],
    socket: impl Fn(SocketKey<W>) -> Socket,
) -> Result<()>
where
    Wire<SocketKey<W>>: aya::Pod,
{
    let gone: Vec<_> = map.keys().filter_map(Result::ok).filter(|key| !keep.contains(&socket(key.0))).collect();
    for key in gone {
        match map.remove(&key) {
            Ok(()) | Err(MapError::KeyNotFound) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The same value on every CPU.
fn everywhere<T: aya::Pod>(value: T) -> Result<PerCpuValues<T>> {
    let cpus = nr_cpus().map_err(|(path, error)| anyhow::anyhow!("cannot read {path}: {error}"))?;
    Ok(PerCpuValues::try_from(vec![value; cpus])?)
}

pub(super) fn sum(map: &PerCpuArray<MapData, Wire<Counter>>, slot: u32) -> Result<Counter> {
    let values = map.get(&slot, 0)?;
    Ok(values.iter().fold(Counter::default(), |sum, Wire(value)| Counter {
        packets: sum.packets + value.packets,
        bytes: sum.bytes + value.bytes,
    }))
}

fn sum_traffic(map: &PerCpuArray<MapData, Wire<Traffic>>, slot: u32) -> Result<Traffic> {
    let values = map.get(&slot, 0)?;
    Ok(values.iter().fold(Traffic::default(), |sum, Wire(value)| Traffic {
        connections: sum.connections + value.connections,
        packets: sum.packets + value.packets,
        bytes: sum.bytes + value.bytes,
    }))
}
