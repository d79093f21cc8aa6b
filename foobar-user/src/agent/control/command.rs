//! What can be asked of an agent, and what it answers with.

use std::time::Duration;

use anyhow::Result;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::oneshot;

use crate::agent::admin::Connection;
use crate::agent::events::Subscription;
use crate::health::Duty;
use crate::process::ProcessChange;
use crate::sets::{Listing, Now};

/// What can be asked of an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "command")]
pub enum Command {
    /// What it is doing.
    Status,
    /// To read the site file again, and put it in force.
    Apply(Apply),
    /// To keep what was applied for a time.
    Confirm,
    /// To go back at once to what was in force before that.
    Revert,
    /// The rules in force, with their counters.
    Rules,
    /// Events as they come.
    Watch {
        /// Only those of this rule.
        rule: Option<String>,
    },
    /// What the packet path would do with a frame.
    Explain {
        /// The frame's bytes, hexadecimal.
        frame: String,
        /// Interface by which it comes; `None`: the first one of the plan.
        interface: Option<String>,
    },
    /// Its services, with their backends.
    Services,
    /// The cluster of the database.
    Database,
    /// To have another server lead the database.
    HandOver {
        /// Which one; `None`: the best.
        to: Option<String>,
    },
    /// To lead the database although acknowledged commits are missing here, once the leader's lease is over.
    Promote,
    /// To take a backend out, or in, or to give it another weight.
    Backend(BackendOrder),
    /// Its processes, with what they use.
    Processes,
    /// To start, stop or restart a process; answers with the processes as they were before.
    Process(ProcessOrder),
    /// The flows that pass it.
    Flows(FlowQuery),
    /// To put entries into a set, or take them out.
    SetChange(SetChange),
    /// The entries of a set.
    SetList {
        /// The set; `None`: how much is in each.
        set: Option<String>,
        /// Entries at the most.
        limit: Option<usize>,
    },
}

/// How a site file is put in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Apply {
    /// Milliseconds after which it is taken back unless it is confirmed.
    pub confirm_ms: Option<u64>,
    /// By what, and whatever, the admin is here.
    #[serde(flatten)]
    pub admin: Admin,
}

/// The connection of who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admin {
    /// Their ssh connection, if they came by one.
    pub connection: Option<Connection>,
    /// Whether it may be cut.
    pub force: bool,
}

/// A change of a set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetChange {
    /// The set.
    pub set: String,
    /// Whether the entries are taken out.
    pub delete: bool,
    /// The entries.
    pub prefixes: Vec<IpNet>,
    /// Milliseconds that new ones live; `None`: until they are deleted.
    pub ttl_ms: Option<u64>,
    /// Who asks.
    #[serde(flatten)]
    pub admin: Admin,
}

/// What an operator wants of a backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendOrder {
    /// The backend's server.
    pub backend: String,
    /// Of which service; `None`: of every one.
    pub service: Option<String>,
    /// What.
    pub change: OrderChange,
}

/// What an operator wants of a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessOrder {
    /// Its name.
    pub process: String,
    /// What.
    pub change: ProcessChange,
}

/// A change of an [`crate::health::Order`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderChange {
    /// Whether it takes part.
    Duty(Duty),
    /// Its weight; `None`: the site file's.
    Weight(Option<u32>),
}

/// Which flows are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowQuery {
    /// Of this service.
    pub service: Option<String>,
    /// To this backend's server.
    pub backend: Option<String>,
    /// Of clients with these addresses.
    pub client: Option<IpNet>,
    /// And of this port.
    pub client_port: Option<u16>,
    /// Flows, and clients, that are listed at the most.
    pub limit: usize,
    /// Whether they are ended.
    pub end: bool,
}

/// What an applied site file came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// Generation of rules in force.
    pub generation: u32,
    /// Milliseconds left to confirm it; `None`: it is in force for good.
    pub left_ms: Option<u64>,
}

impl Applied {
    /// Time left to confirm it.
    #[must_use]
    pub fn left(&self) -> Option<Duration> {
        self.left_ms.map(Duration::from_millis)
    }
}

/// A command on its way to the agent's loop.
#[derive(Debug)]
pub struct Request {
    /// What is asked.
    pub command: Command,
    /// Where the answer goes; who asked may have gone away.
    pub reply: oneshot::Sender<Result<Reply>>,
}

/// An answer of the agent's loop.
#[derive(Debug)]
pub enum Reply {
    /// One value.
    Value(Value),
    /// A set, entry by entry.
    Listing(Listing, Now, Option<usize>),
    /// Events, until either side goes.
    Events(Subscription),
}

impl Reply {
    /// One value.
    ///
    /// # Errors
    /// It is no JSON.
    pub fn value(value: &impl Serialize) -> Result<Self> {
        Ok(Self::Value(serde_json::to_value(value)?))
    }
}
