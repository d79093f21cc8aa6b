//! A fixture: packets one after the other, and for each the verdict, the bytes and every counter that changes.

use foobar_common::abi::{ConnectFailures, Flow, FlowTable};
use foobar_common::fence;
use foobar_common::verdict::Reason;

use super::frame::Frame;
use super::hosts::Wire;
use super::world::{MEMBERS, RuleSet, service_slot};

/// Generation of the programs that the tables run on.
pub const GENERATION: u32 = 7;

/// A case.
#[derive(Clone, Debug)]
pub struct Case {
    /// Name, unique.
    pub name: String,
    /// The rules.
    pub rules: RuleSet,
    /// Flows that are there before.
    pub flows: Vec<Seed>,
    /// The packets.
    pub steps: Vec<Step>,
    /// In which table a client's flow is at the end.
    pub ends: Option<(Frame, FlowTable)>,
    /// How many entries for replies there are at the end.
    pub replies: Option<usize>,
}

/// A flow that is there before.
#[derive(Clone, Debug)]
pub struct Seed {
    /// A packet of the client to the VIP.
    pub packet: Frame,
    /// Slot of its backend.
    pub backend: u32,
    /// Generation of rules that allowed it.
    pub generation: u32,
    /// Counter slot of the rule.
    pub rule: u16,
    /// Time since its last packet.
    pub age_ns: u64,
}

impl Seed {
    /// Its entry, which was last written at that time.
    pub fn entry<const W: usize>(&self, last_seen_ns: u64) -> Flow<W> {
        let Self { backend, generation, rule, .. } = *self;
        Flow { backend, generation, rule, last_seen_ns, ..Flow::default() }
    }
}

/// One packet.
#[derive(Clone, Debug)]
pub struct Step {
    /// The frame.
    pub frame: Vec<u8>,
    /// The interface by which it comes.
    pub ingress: Wire,
    /// When the server's lease ends.
    pub lease: Lease,
    /// Time since the step before, on the host's clock: a case that waits does not run in the kernel.
    pub later_ns: u64,
    /// What becomes of it.
    pub action: Action,
    /// Why.
    pub reason: Reason,
    /// The frame after.
    pub after: Vec<u8>,
    /// Rules that count it.
    pub rules: Vec<&'static str>,
    /// Service and backend that count it.
    pub traffic: Option<Given>,
    /// By how much the failures of this backend change.
    pub failures: ConnectFailures,
    /// Whether it is put into a tunnel, or taken out of one.
    pub tunnel: Option<Tunnel>,
}

/// When a server's lease ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lease {
    /// Nobody has given it one.
    None,
    /// At this moment.
    Now,
    /// Soon.
    Soon,
    /// Never.
    Endless,
}

impl Lease {
    /// Its end, at this moment of the boot-time clock.
    pub const fn end(self, now_ns: u64) -> u64 {
        match self {
            Self::None => fence::CLOSED,
            Self::Now => now_ns,
            Self::Soon => now_ns + 3_600_000_000_000,
            Self::Endless => fence::OPEN,
        }
    }
}

/// What a tunnel does with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tunnel {
    /// It is put into one.
    In,
    /// It is taken out, and so many bytes begin their way anew: all rules but the first count these.
    Out(usize),
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It ends.
    Drop,
    /// It goes to the stack.
    Pass,
    /// It leaves by this interface.
    Forward(Wire),
}

/// What a service and its backend count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Given {
    /// Slot of the service.
    pub service: u32,
    /// Slot of the backend.
    pub backend: u32,
    /// Connections.
    pub connections: u64,
    /// Packets.
    pub packets: u64,
}

/// A case without flows.
pub fn case(name: &str, steps: Vec<Step>) -> Case {
    Case { name: name.to_owned(), rules: RuleSet::Site, flows: Vec::new(), steps, ends: None, replies: None }
}

impl Case {
    /// On other rules.
    #[must_use]
    pub const fn rules(mut self, rules: RuleSet) -> Self {
        self.rules = rules;
        self
    }

    /// At whose end the flow of a client's packet is in this table, and in no other.
    #[must_use]
    pub fn ends_in(mut self, packet: &Frame, table: FlowTable) -> Self {
        self.ends = Some((packet.clone(), table));
        self
    }

    /// At whose end there are so many entries for replies.
    #[must_use]
    pub const fn leaves_replies(mut self, entries: usize) -> Self {
        self.replies = Some(entries);
        self
    }

    /// With a flow to a member of a service.
    #[must_use]
    pub fn flow(mut self, packet: &Frame, service: &str, member: u32, generation: u32, age_ns: u64) -> Self {
        let backend = MEMBERS * service_slot(service, packet.source.is_ipv6()) + member;
        // Counted by `vip`; by the first rule where it has to be judged again.
        let vip = || self.rules.rules().iter().position(|rule| rule.name == "vip").expect("a rule of the world");
        let rule = if generation == GENERATION { vip() as u16 } else { 0 };
        self.flows.push(Seed { packet: packet.clone(), backend, generation, rule, age_ns });
        self
    }
}

fn raw(ingress: Wire, frame: Vec<u8>, action: Action, reason: Reason) -> Step {
    let failures = ConnectFailures::default();
    Step {
        after: frame.clone(),
        frame,
        ingress,
        lease: Lease::Endless,
        later_ns: 0,
        action,
        reason,
        rules: Vec::new(),
        traffic: None,
        failures,
        tunnel: None,
    }
}

/// A frame of any bytes that is dropped.
pub fn dropped(ingress: Wire, frame: Vec<u8>, reason: Reason) -> Step {
    raw(ingress, frame, Action::Drop, reason)
}

/// A frame of any bytes that goes to the stack.
pub fn passed(ingress: Wire, frame: Vec<u8>, reason: Reason) -> Step {
    raw(ingress, frame, Action::Pass, reason)
}

impl Frame {
    /// It is dropped.
    pub fn drops(&self, reason: Reason) -> Step {
        dropped(self.ingress, self.bytes(), reason)
    }

    /// It goes to the stack as part of a connection of the host.
    pub fn is_own(&self) -> Step {
        passed(self.ingress, self.bytes(), Reason::OwnConnection)
    }

    /// A rule allows it.
    pub fn allowed(&self, rule: &'static str) -> Step {
        passed(self.ingress, self.bytes(), Reason::RuleAllow).counts(rule)
    }

    /// A rule denies it.
    pub fn denied(&self, rule: &'static str) -> Step {
        self.drops(Reason::RuleDeny).counts(rule)
    }

    /// It leaves as `after` by an interface.
    pub fn leaves(&self, after: &Self, egress: Wire, reason: Reason) -> Step {
        Step { after: after.bytes(), ..raw(self.ingress, self.bytes(), Action::Forward(egress), reason) }
    }

    /// It is left to the stack as `after`.
    pub fn handed_up(&self, after: &Self) -> Step {
        Step { after: after.bytes(), ..passed(self.ingress, self.bytes(), Reason::Neighbour) }
    }
}

impl Step {
    /// It comes when the server's lease ends then.
    #[must_use]
    pub const fn under(mut self, lease: Lease) -> Self {
        self.lease = lease;
        self
    }

    /// It comes so long after the step before.
    #[must_use]
    pub const fn later(mut self, ns: u64) -> Self {
        self.later_ns = ns;
        self
    }

    /// After which it is these bytes.
    #[must_use]
    pub fn becomes(mut self, after: Vec<u8>) -> Self {
        self.after = after;
        self
    }

    /// A tunnel counts it.
    #[must_use]
    pub const fn by_tunnel(mut self, tunnel: Tunnel) -> Self {
        self.tunnel = Some(tunnel);
        self
    }

    /// A rule counts it.
    #[must_use]
    pub fn counts(mut self, rule: &'static str) -> Self {
        self.rules.push(rule);
        self
    }

    /// The member of a service counts it, as a new connection or not.
    #[must_use]
    pub fn given(mut self, service: &str, v6: bool, member: u32, connections: u64) -> Self {
        let service = service_slot(service, v6);
        self.traffic = Some(Given { service, backend: MEMBERS * service + member, connections, packets: 1 });
        self
    }

    /// The backend that counts it has not taken the connection.
    #[must_use]
    pub const fn refused(mut self) -> Self {
        self.failures = ConnectFailures { total: 1, row: 1 };
        self
    }

    /// The backend that counts it has taken a connection, after so many in a row that it had not.
    #[must_use]
    pub const fn ends_row(mut self, row: u64) -> Self {
        self.failures.row = row.wrapping_neg();
        self
    }
}
