//! The packet path as a balancer has it, without an agent: 1,000 rules, one service with two backends, empty flow tables.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context, Result};
use foobar_common::abi::{
    BACKEND_MEMBER, Backend, FORWARD_DIRECT, FORWARD_NAT, Flow, FlowTable, SERVICE_WIRE, Service,
};
use foobar_common::address::{Address, Be16, Tuple};
use foobar_common::generation::{Tunnels, USES_BALANCER};
use foobar_common::parse::TCP;
use foobar_common::rules::{Action, Protocol, Rule};
use foobar_common::verdict::Reason;
use foobar_user::datapath::clock;
use foobar_user::datapath::instance::{Instance, Place};
use foobar_user::datapath::programs::Programs;
use foobar_user::datapath::state::{Socket, State};
use ipnet::IpNet;

use super::frame::{
    ALLOWED_PORT, BACKEND, BACKEND6, CLIENT, CLIENT_PORT, CLIENT6, DENIED_PORT, DIRECT_PORT, VIP, VIP_PORT, VIP6,
};

/// A loaded packet path with its tables filled.
#[derive(Debug)]
pub(super) struct Datapath {
    instance: Instance,
}

impl Datapath {
    /// Loads it, with tables for so many established flows.
    pub(super) fn load(flows: u32) -> Result<Self> {
        let place = Place { state: None, own: None, jumbo: false, flows, log_drops: false };
        let mut instance = Instance::load(&place, &[])?;
        instance.write(&rules()?, &[], GENERATION, USES_BALANCER, &[], Tunnels::NONE)?;
        instance.flip(None)?;
        instance.programs().verify("baseline")?;
        for (slot, (port, v6)) in (0..).zip(SERVICES) {
            serve(instance.state_mut(), slot, port, v6)?;
        }
        Ok(Self { instance })
    }

    /// The programs.
    pub(super) const fn programs(&mut self) -> &mut Programs {
        self.instance.programs()
    }

    /// Writes an established flow for each source port of the client, as completed handshakes leave them.
    pub(super) fn establish(&mut self, port: u16, v6: bool) -> Result<()> {
        let slot = SERVICES.iter().position(|service| *service == (port, v6)).context("no such service")?;
        for source in 0..=u16::MAX {
            // The bench's replies come from the first backend, to one port.
            let member = if source == CLIENT_PORT { 0 } else { u32::from(source) % MEMBERS };
            self.put(v6, (CLIENT, CLIENT6), (source, port), MEMBERS * slot as u32 + member)?;
        }
        Ok(())
    }

    /// Writes so many flows of other clients.
    pub(super) fn fill(&mut self, v6: bool, flows: u32) -> Result<()> {
        (0..flows).try_for_each(|number| {
            let [_, high, low, _] = number.to_be_bytes();
            let client =
                (Ipv4Addr::new(198, 19, high, low), Ipv6Addr::new(0x2001, 2, 1, 0, 0, 0, 0, (number >> 8) as u16));
            self.put(v6, client, (number as u16 & 0xff, VIP_PORT), 0)
        })
    }

    fn put(&mut self, v6: bool, client: (Ipv4Addr, Ipv6Addr), ports: (u16, u16), backend: u32) -> Result<()> {
        let last_seen_ns = clock::now_ns()?;
        let (ports, state) = ((Be16::new(ports.0), Be16::new(ports.1)), self.instance.state_mut());
        if v6 {
            let key = Tuple::new((Address::from(client.1), Address::from(VIP6)), ports, TCP);
            return state.set_flow6(FlowTable::Established, key, entry(backend, last_seen_ns));
        }
        let key = Tuple::new((Address::from(client.0), Address::from(VIP)), ports, TCP);
        state.set_flow4(FlowTable::Established, key, entry(backend, last_seen_ns))
    }

    /// Packets that have met each reason until now.
    pub(super) fn counts(&self) -> Result<Vec<(Reason, u64)>> {
        let verdicts = self.instance.state().verdicts()?;
        Ok(verdicts.into_iter().map(|(reason, counter)| (reason, counter.packets)).collect())
    }
}

/// An established flow as its handshake has left it.
fn entry<const W: usize>(backend: u32, last_seen_ns: u64) -> Flow<W> {
    Flow { backend, generation: GENERATION, rule: RULES as u16 - 1, last_seen_ns, ..Flow::default() }
}

/// A service at the VIP, and its backends at the same port.
fn serve(state: &mut State, slot: u32, port: u16, v6: bool) -> Result<()> {
    let at = |v4: Ipv4Addr, six: Ipv6Addr| {
        let ip = if v6 { IpAddr::V6(six) } else { IpAddr::V4(v4) };
        Socket { address: SocketAddr::new(ip, port), protocol: TCP }
    };
    let vip = at(VIP, VIP6);
    let forward = if port == DIRECT_PORT { FORWARD_DIRECT } else { FORWARD_NAT };
    let first = MEMBERS * slot;
    for (backend, (v4, v6)) in (first..).zip([(BACKEND, BACKEND6), BACKEND_TOO]) {
        let endpoint = at(v4, v6);
        let member = Backend { state: BACKEND_MEMBER, service: slot, weight: 1, forward, ..Backend::default() };
        state.set_backend(backend, endpoint.address, member)?;
        if forward == FORWARD_NAT {
            state.set_endpoint(endpoint, vip.address, backend, 0)?;
        }
    }
    let service = Service { slot, flags: SERVICE_WIRE, ..Service::default() };
    state.set_ring(&[vip], service, &[first as u16, first as u16 + 1], &[])
}

/// 997 rules for others, each with an address and a port of its own, before the three that matter.
fn rules() -> Result<Vec<Rule>> {
    let mut rules = Vec::with_capacity(RULES);
    for number in 0..RULES - 3 {
        let [high, low] = u16::try_from(number)?.to_be_bytes();
        let source = IpAddr::V4(Ipv4Addr::new(198, 19, high, low));
        rules.push(rule(&format!("other-{number}"), Some(source), 1000 + u16::try_from(number)?, Action::Deny));
    }
    rules.push(rule("deny", Some(IpAddr::V4(CLIENT)), DENIED_PORT, Action::Deny));
    rules.push(rule("allow", Some(IpAddr::V4(CLIENT)), ALLOWED_PORT, Action::Allow));
    rules.push(Rule {
        protocol: Protocol::Tcp(vec![VIP_PORT..=DIRECT_PORT]),
        destinations: vec![IpNet::from(IpAddr::V4(VIP)), IpNet::from(IpAddr::V6(VIP6))].into(),
        ..Rule::any("service", Action::Allow)
    });
    Ok(rules)
}

fn rule(name: &str, source: Option<IpAddr>, port: u16, action: Action) -> Rule {
    Rule {
        sources: source.into_iter().map(IpNet::from).collect::<Vec<_>>().into(),
        destinations: vec![IpNet::from(IpAddr::V4(VIP))].into(),
        protocol: Protocol::Tcp(vec![port..=port]),
        ..Rule::any(name, action)
    }
}

const RULES: usize = 1000;
const GENERATION: u32 = 1;
/// Port and family of the services, by slot.
const SERVICES: [(u16, bool); 4] = [(VIP_PORT, false), (VIP_PORT, true), (DIRECT_PORT, false), (DIRECT_PORT, true)];
/// Backends of each.
const MEMBERS: u32 = 2;
/// The second one.
const BACKEND_TOO: (Ipv4Addr, Ipv6Addr) = (Ipv4Addr::new(10, 0, 1, 12), Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 12));
