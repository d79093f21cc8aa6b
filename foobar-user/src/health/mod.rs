//! Health of backends: checked from here at their own addresses, never at a VIP.
//!
//! Decides which backends are members of each service; what the kernel tables hold follows from that.

mod http;
mod members;
mod monitor;
mod order;
mod postgres;
mod probe;
mod script;
mod state;
mod tls;
mod verdict;

pub use monitor::{Health, Orders};
pub use order::{Duty, Order};
pub use state::{BackendHealth, CheckCounts, HealthState, Member, ServiceHealth};
pub use verdict::{Status, Verdict};

/// What a database server said about itself.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
#[serde(rename_all = "lowercase", tag = "role")]
pub enum DatabaseRole {
    /// Takes writes.
    Primary,
    /// In recovery.
    Replica {
        /// WAL received and not yet replayed, in bytes.
        lag_bytes: i64,
        /// Age of the last replayed transaction while anything is left to replay, in seconds.
        lag_seconds: f64,
    },
}
