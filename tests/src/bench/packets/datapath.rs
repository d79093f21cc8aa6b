//! The packet path as a balancer has it, without an agent: 1,000 rules, one service with two backends, empty flow tables.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Context, Result};
use foobar_common::abi::{BACKEND_MEMBER, Backend, Flow, FlowTable, SERVICE_WIRE, Service};
use foobar_common::address::{Address, Be16, Tuple};
use foobar_common::generation::USES_BALANCER;
use foobar_common::parse::TCP;
use foobar_common::rules::{Action, Protocol, Rule};
use foobar_common::verdict::Reason;
use foobar_user::datapath::clock;
use foobar_user::datapath::instance::{Instance, Place};
use foobar_user::datapath::programs::Programs;
use foobar_user::datapath::state::Socket;
use ipnet::IpNet;

use super::frame::{ALLOWED_PORT, CLIENT, DENIED_PORT, VIP, VIP_PORT};

/// A loaded packet path with its tables filled.
#[derive(Debug)]
pub(super) struct Datapath {
    instance: Instance,
}

impl Datapath {
    /// Loads it.
    pub(super) fn load() -> Result<Self> {
        let place = Place { state: None, own: None, jumbo: false, log_drops: false };
        let mut instance = Instance::load(&place, &[])?;
        instance.write(&rules()?, &[], GENERATION, USES_BALANCER, &[])?;
        instance.flip(None)?;
        instance.programs().verify("baseline")?;
        let state = instance.state_mut();
        let vip = Socket { address: SocketAddr::from((VIP, VIP_PORT)), protocol: TCP };
        for (slot, backend) in (0..).zip(BACKENDS) {
            let backend = SocketAddr::from((backend, VIP_PORT));
            let member = Backend { state: BACKEND_MEMBER, service: SLOT, weight: 1, ..Backend::default() };
            state.set_backend(slot, backend, member)?;
            state.set_endpoint(Socket { address: backend, protocol: TCP }, vip.address, slot)?;
        }
        let service = Service { slot: SLOT, flags: SERVICE_WIRE, ..Service::default() };
        state.set_ring(&[vip], service, &[0, 1])?;
        Ok(Self { instance })
    }

    /// The programs.
    pub(super) const fn programs(&mut self) -> &mut Programs {
        self.instance.programs()
    }

    /// Writes an established flow for each source port of the client, as completed handshakes leave them.
    pub(super) fn establish(&mut self) -> Result<()> {
        let last_seen_ns = clock::now_ns()?;
        let (source, destination) = (Address::from(CLIENT), Address::from(VIP));
        for port in 0..=u16::MAX {
            let key = Tuple::new((source, destination), (Be16::new(port), Be16::new(VIP_PORT)), TCP);
            let backend = u32::from(port) % BACKENDS.len() as u32;
            let rule = RULES as u16 - 1;
            let flow = Flow { backend, generation: GENERATION, rule, last_seen_ns, ..Flow::default() };
            self.instance.state_mut().set_flow4(FlowTable::Established, key, flow)?;
        }
        Ok(())
    }

    /// Packets that met `reason` until now.
    pub(super) fn count(&self, reason: Reason) -> Result<u64> {
        let verdicts = self.instance.state().verdicts()?;
        let found = verdicts.iter().find(|(other, _)| *other == reason);
        Ok(found.context("the counters lack a reason")?.1.packets)
    }
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
    rules.push(rule("service", None, VIP_PORT, Action::Allow));
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
const SLOT: u32 = 0;
const BACKENDS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 0, 1, 11), Ipv4Addr::new(10, 0, 1, 12)];
