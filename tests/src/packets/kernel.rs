//! The packet path in the kernel: the loaded program by `BPF_PROG_TEST_RUN`, on an interface of the namespace.

use anyhow::{Context, Result};
use aya::maps::{Array, HashMap, RingBuf};
use aya::programs::{TestRun as _, TestRunOptions, XdpMode};
use foobar_common::abi::{BucketKey, DEFAULT_FLOWS, Event, Fenced, Trace};
use foobar_common::generation::{Tunnels, USES_BALANCER};
use foobar_common::rules::Rule;
use foobar_user::datapath::clock;
use foobar_user::datapath::fence::boot_now;
use foobar_user::datapath::instance::{Instance, Place, context};
use foobar_user::datapath::programs::Programs;
use foobar_user::datapath::state::{Socket, State};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use zerocopy::FromBytes as _;

use super::case::{GENERATION, Lease, Seed};
use super::core::{named, told_apart};
use super::counters::Counters;
use super::hosts::{VIP, Wire};
use super::members;
use super::network::Network;
use super::shell::{Done, Key, Shell};
use super::world::{BACKEND_SLOTS, MEMBERS, RuleSet, SERVICE_SLOTS, SERVICES, Served};

/// The kernel's shell.
#[derive(Debug)]
pub struct Kernel {
    instance: Instance,
    network: Network,
    rules: u32,
    /// Folder of pins, by which the dry twin finds the maps.
    pins: Option<PathBuf>,
}

impl Kernel {
    /// Loads the programs, for frames of one buffer or of more; with a folder for pins they can explain.
    pub fn load(network: Network, jumbo: bool, pins: Option<&Path>) -> Result<Self> {
        let place = Place { state: pins, own: pins, jumbo, flows: DEFAULT_FLOWS, log_drops: false };
        let mut instance = Instance::load(&place, &members::sets(clock::now_ns()?))?;
        for (slot, service) in (0..).zip(&SERVICES) {
            add(instance.state_mut(), 2 * slot, service, false)?;
            add(instance.state_mut(), 2 * slot + 1, service, true)?;
        }
        instance.state_mut().set_vlans(&network.vlans())?;
        Ok(Self { instance, network, rules: 0, pins: pins.map(Path::to_owned) })
    }

    /// Puts rules in force, with the services or without.
    pub fn judge_by(&mut self, set: RuleSet, balances: bool) -> Result<()> {
        let rules = set.rules();
        let counters: Vec<u32> = (0..rules.len() as u32).collect();
        let uses = if balances { set.uses() } else { set.uses() & !USES_BALANCER };
        self.instance.write(&rules, &counters, GENERATION, uses, &self.network.interfaces(), set.tunnels())?;
        self.rules = counters.len() as u32;
        self.instance.flip(None)
    }

    /// Puts these rules in force, for a server without services.
    pub fn judge_with(&mut self, rules: &[Rule]) -> Result<()> {
        let counters: Vec<u32> = (0..rules.len() as u32).collect();
        self.instance.write(rules, &counters, GENERATION, 0, &self.network.interfaces(), Tunnels::NONE)?;
        self.rules = counters.len() as u32;
        self.instance.flip(None)
    }

    /// What the dry twin says of a frame; `None`: these programs were loaded without pins.
    pub fn explain(&mut self, ingress: Wire, frame: &[u8]) -> Result<Option<Trace>> {
        let Some(pins) = &self.pins else { return Ok(None) };
        let place = Place { state: Some(pins), own: Some(pins), jumbo: true, flows: DEFAULT_FLOWS, log_drops: false };
        self.instance.explain(&place, frame, self.network.index(ingress)).map(Some)
    }

    /// Has the server's fence hold these answers back.
    pub fn set_fenced(&mut self, fenced: &Fenced) -> Result<()> {
        self.instance.state_mut().set_fenced(fenced)
    }

    /// The programs.
    pub const fn programs(&mut self) -> &mut Programs {
        self.instance.programs()
    }

    /// All entries for replies, of IPv4 and of IPv6.
    pub fn replies(&self) -> Result<[Vec<String>; 2]> {
        let state = self.instance.state();
        Ok([told_apart(state.replies4()?), told_apart(state.replies6()?)])
    }

    /// All flows, sorted, without their times.
    pub fn flows(&self) -> Result<Vec<(String, String)>> {
        let four = self
            .instance
            .state()
            .flows4()?
            .iter()
            .map(|(table, key, flow)| named(&(table, key), *flow))
            .collect::<Vec<_>>();
        let six = self
            .instance
            .state()
            .flows6()?
            .iter()
            .map(|(table, key, flow)| named(&(table, key), *flow))
            .collect::<Vec<_>>();
        let mut all = [four, six].concat();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(all)
    }

    /// Runs a frame many times over; the time of one.
    pub fn time(&mut self, program: &str, ingress: Wire, frame: &[u8], repeat: u32) -> Result<Duration> {
        let context = context(self.network.index(ingress), frame.len());
        let options =
            TestRunOptions { data_in: Some(frame), ctx_in: Some(&context), repeat, ..TestRunOptions::default() };
        Ok(self.instance.programs().xdp(program)?.test_run(options)?.duration)
    }
}

/// Gives the interfaces of the namespace receive queues that know XDP: a test run on one without is refused.
pub fn prepare(programs: &mut Programs) -> Result<()> {
    programs.verify("baseline")?;
    for wire in [Wire::Front, Wire::Back] {
        let program = programs.xdp("baseline")?;
        program.attach(wire.name(), XdpMode::Driver).with_context(|| format!("cannot attach to {}", wire.name()))?;
    }
    Ok(())
}

fn add(state: &mut State, slot: u32, service: &Served, v6: bool) -> Result<()> {
    let vip = |port| Socket { address: SocketAddr::new(VIP.address(v6), port), protocol: service.protocol };
    let vips: Vec<Socket> = service.ports().map(vip).collect();
    let sources: Vec<_> = service.sources.iter().map(|source| source.address(v6)).collect();
    for (member, host) in (0..).zip(service.members) {
        let backend = MEMBERS * slot + member;
        let endpoint = SocketAddr::new(host.address(v6), service.backend_port);
        state.set_backend(backend, endpoint, service.backend(slot))?;
        if service.has_way_back() {
            let (endpoint, vip) = (Socket { address: endpoint, protocol: service.protocol }, vips[0].address);
            state.set_endpoint(endpoint, vip, backend, service.endpoint_flags())?;
        }
    }
    state.set_ring(&vips, service.kernel(slot), &service.ring(slot), &sources)
}

/// Empties the token buckets of limits, and forgets who stays with which backend.
fn clear_sources(programs: &mut Programs) -> Result<()> {
    let mut buckets: HashMap<_, [u8; size_of::<BucketKey>()], u64> = programs.map_mut("BUCKETS")?.try_into()?;
    let keys: Vec<_> = buckets.keys().collect::<Result<_, _>>()?;
    keys.iter().try_for_each(|key| buckets.remove(key))?;
    let mut stuck: HashMap<_, [u8; size_of::<BucketKey>()], [u64; 2]> = programs.map_mut("STUCK")?.try_into()?;
    let keys: Vec<_> = stuck.keys().collect::<Result<_, _>>()?;
    Ok(keys.iter().try_for_each(|key| stuck.remove(key))?)
}

impl Shell for Kernel {
    fn reset(&mut self) -> Result<()> {
        let state = self.instance.state_mut();
        state.clear_flows()?;
        clear_sources(self.instance.programs())?;
        let state = self.instance.state_mut();
        (0..BACKEND_SLOTS).try_for_each(|slot| state.clear_backend(slot))?;
        (0..SERVICE_SLOTS).try_for_each(|slot| state.clear_service(slot, 0))
    }

    fn seed(&mut self, seed: &Seed) -> Result<bool> {
        let Some(seen) = clock::now_ns()?.checked_sub(seed.age_ns) else { return Ok(false) };
        let (key, state) = (Key::of(&seed.packet), self.instance.state_mut());
        match key {
            Key::V4(tuple) => state.set_flow4(key.table(), tuple, seed.entry(seen))?,
            Key::V6(tuple) => state.set_flow6(key.table(), tuple, seed.entry(seen))?,
        }
        Ok(true)
    }

    fn set_lease(&mut self, lease: Lease) -> Result<()> {
        let mut end: Array<_, u64> = self.instance.programs().map_mut("FENCE")?.try_into()?;
        Ok(end.set(0, lease.end(boot_now()), 0)?)
    }

    fn run(&mut self, ingress: Wire, frame: &[u8]) -> Result<Done> {
        let context = context(self.network.index(ingress), frame.len());
        // An answer to a SYN may be longer than it, and so is a tunnel.
        let mut bytes = vec![0; frame.len() + 64];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut bytes),
            ctx_in: Some(&context),
            ..TestRunOptions::default()
        };
        let result =
            self.instance.programs().xdp("foobar")?.test_run(options).context("the kernel refuses a test run")?;
        bytes.truncate(result.data_size_out as usize);
        Ok(Done { action: result.return_value, bytes })
    }

    fn events(&mut self) -> Result<Vec<Event>> {
        let mut ring: RingBuf<_> = self.instance.programs().map_mut("EVENTS")?.try_into()?;
        let mut events = Vec::new();
        while let Some(item) = ring.next() {
            let event = Event::read_from_bytes(&item).ok().context("an event has another size")?;
            events.push(Event { time_ns: 0, ..event });
        }
        Ok(events)
    }

    fn counters(&self) -> Result<Counters> {
        let mut counters = Counters::zero(0, 0, 0);
        for (reason, counter) in self.instance.state().verdicts()? {
            counters.verdicts[reason as usize] = counter;
        }
        counters.tunnels = self.instance.state().tunnels()?.to_vec();
        counters.rules = (0..self.rules).map(|slot| self.instance.state().rule(slot)).collect::<Result<_>>()?;
        counters.services =
            (0..SERVICE_SLOTS).map(|slot| self.instance.state().service(slot)).collect::<Result<_>>()?;
        counters.backends =
            (0..BACKEND_SLOTS).map(|slot| self.instance.state().backend(slot)).collect::<Result<_>>()?;
        counters.failures =
            (0..BACKEND_SLOTS).map(|slot| self.instance.state().connect_failures(slot)).collect::<Result<_>>()?;
        Ok(counters)
    }
}
