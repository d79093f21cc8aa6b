//! What `foobar db status` and the metrics tell.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::state::{Event, Role};

/// The cluster as one server's agent sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DatabaseReport {
    /// Epoch of the lease, or the last that this server remembers; 0: there is none yet.
    pub epoch: u64,
    /// Who leads, or led last.
    pub leader: String,
    /// Whether the leader holds the lease, as far as this server knows.
    pub held: bool,
    /// Milliseconds left of this server's own lease; `None`: it holds none.
    pub lease_left_ms: Option<u64>,
    /// Milliseconds since the store was last read; `None`: it never was.
    pub store_age_ms: Option<u64>,
    /// Why the store cannot be asked.
    pub store_fault: Option<String>,
    /// Whether clients reach this server's PostgreSQL.
    pub open: bool,
    /// Promotions on this server since its agent started.
    pub promotions: u64,
    /// Milliseconds from the lease to the end of the last promotion here.
    pub promotion_ms: Option<u64>,
    /// Settings of this server's PostgreSQL that were changed and take effect at its next start.
    #[serde(default)]
    pub pending_restart: Vec<String>,
    /// Transactions that only this server had committed, and that its data no longer has; kept in these files.
    #[serde(default)]
    pub diverged_transactions: u64,
    /// Files with their rows, and data folders of before a copy; whoever has seen to them removes them.
    #[serde(default)]
    pub diverged_files: Vec<PathBuf>,
    /// What this server waits for, or what is wrong.
    pub note: String,
    /// Every database server.
    pub members: Vec<MemberReport>,
    /// What has happened.
    pub events: Vec<Event>,
}

/// One database server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MemberReport {
    /// Its name.
    pub server: String,
    /// What its PostgreSQL is.
    pub role: Role,
    /// Whether it has said something lately.
    pub heard: bool,
    /// Whether it leads.
    pub leads: bool,
    /// Whether it has every acknowledged commit.
    pub in_sync: bool,
    /// Timeline of its last checkpoint.
    pub timeline: u32,
    /// Where its log ends, as it said last; in bytes. 0: it has not said.
    pub position: u64,
    /// Bytes of log that it lacks; `None`: nobody knows.
    pub lag_bytes: Option<u64>,
    /// Whether it receives its leader's log.
    pub receiving: bool,
    /// The server that it receives it from; empty: none.
    pub source: String,
    /// What it says.
    pub note: String,
}
