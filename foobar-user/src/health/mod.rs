//! Health of backends: checked from here at their own addresses, and by their VIP where they answer for it themselves.
//!
//! Decides which backends are members of each service; what the kernel tables hold follows from that.

mod eject;
mod http;
mod lag;
mod members;
mod monitor;
mod order;
mod postgres;
mod probe;
mod script;
mod state;
mod syn;
mod tls;
mod verdict;
mod way;
mod wire;

pub use eject::{Ejection, Failures};
pub use lag::PrimaryLog;
pub use monitor::{Health, Orders};
pub use order::{Duty, Order};
pub use state::{BackendHealth, CheckCounts, HealthState, Member, ServiceHealth};
pub use verdict::{Status, Verdict};

/// What a database server said about itself.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase", tag = "role")]
pub enum DatabaseRole {
    /// Takes writes.
    Primary,
    /// In recovery.
    Replica {
        /// Its primary's log that it has not yet replayed, in bytes.
        lag_bytes: i64,
        /// For how long the oldest byte of that has been there, in seconds.
        lag_seconds: f64,
    },
}
