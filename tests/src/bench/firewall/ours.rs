//! Our packet path as a web server has it, without an agent: rules, a named set, no services.

use std::net::IpAddr;
use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use aya::programs::XdpMode;
use foobar_common::generation::Tunnels;
use foobar_common::rules::{Action, Places, Protocol, Rule};
use foobar_user::datapath::instance::{Instance, Place};
use foobar_user::datapath::sets::{Entry, Set};
use ipnet::IpNet;

use super::addresses::Who;
use super::frame::{CLOSED_PORT, SERVER, SERVICE_PORT};

/// A loaded packet path; what it attached is detached when it is dropped.
#[derive(Debug)]
pub(super) struct Ours {
    instance: Instance,
}

impl Ours {
    /// Loads it with these rules.
    pub(super) fn load(rules: &[Rule]) -> Result<Self> {
        Self::load_with(rules, &[])
    }

    /// Loads it with a set of the first `count` prefixes, from which a first rule denies, and `rule` behind that.
    pub(super) fn with_set(count: u32, rule: Rule) -> Result<Self> {
        let entry = |number| Entry { prefix: IpNet::from(IpAddr::V4(Who::Members.address(number))), expires_ns: None };
        let set = Set { name: SET.to_owned(), entries: (0..count).map(entry).collect() };
        let sources = Places { prefixes: Vec::new(), sets: vec![SET.to_owned()] };
        let deny = Rule { sources, ..Rule::any("members", Action::Deny) };
        Self::load_with(&[deny, rule], &[set])
    }

    fn load_with(rules: &[Rule], sets: &[Set]) -> Result<Self> {
        let place = Place { state: None, own: None, jumbo: false, flows: 0, log_drops: false };
        let mut instance = Instance::load(&place, sets)?;
        instance.write(rules, &[], 1, 0, &[], Tunnels::NONE)?;
        instance.flip(None)?;
        Ok(Self { instance })
    }

    /// The program.
    pub(super) fn program(&mut self) -> Result<OwnedFd> {
        let program = self.instance.programs().xdp("foobar")?.fd()?.try_clone()?;
        Ok(std::os::fd::AsFd::as_fd(&program).try_clone_to_owned()?)
    }

    /// Attaches it to an interface of the calling thread's namespace.
    pub(super) fn attach(&mut self, interface: &str) -> Result<()> {
        let program = self.instance.programs().xdp("foobar")?;
        program.attach(interface, XdpMode::Driver).with_context(|| format!("cannot attach ours to {interface}"))?;
        Ok(())
    }
}

/// Name of the set.
const SET: &str = "members";

/// `count` five-tuple rules, each with a source of its own: the first members.
pub(super) fn tuples(count: u32, action: Action, protocol: &Protocol) -> Vec<Rule> {
    let rule = |number: u32| Rule {
        sources: vec![IpNet::from(IpAddr::V4(Who::Members.address(number)))].into(),
        destinations: vec![IpNet::from(IpAddr::V4(SERVER))].into(),
        protocol: protocol.clone(),
        source_ports: vec![1024..=65535],
        ..Rule::any(&format!("tuple-{number}"), action)
    };
    (0..count).map(rule).collect()
}

/// Lets everybody connect to the service.
pub(super) fn service() -> Rule {
    Rule { protocol: tcp(), ..Rule::any("service", Action::Allow) }
}

/// Connections to the service.
pub(super) fn tcp() -> Protocol {
    Protocol::Tcp(vec![SERVICE_PORT..=SERVICE_PORT])
}

/// Datagrams to the closed port.
pub(super) fn udp() -> Protocol {
    Protocol::Udp(vec![CLOSED_PORT..=CLOSED_PORT])
}
