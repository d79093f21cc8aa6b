//! Where the state is kept: the one small trait behind which the embedded witness and etcd stand.

use std::fmt::Debug;
use std::future::Future;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::state::{Member, Members, State};

/// Everything that is kept, as it was at one instant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Changes with every swap, also with one that puts in what was there, and never comes back: two numbers that a store
    /// compares for equality alone.
    pub version: (u64, u64),
    /// The state; `None`: nobody has made one yet.
    pub state: Option<State>,
    /// What each server has said last.
    pub members: Members,
}

/// A store. It knows nothing of leases or time: a lease is a state that is swapped again and again, and it is over when
/// somebody has seen the same version for longer than it lasts.
pub trait Store: Debug + Send + Sync + 'static {
    /// Reads everything.
    fn read(&self) -> impl Future<Output = Result<Snapshot>> + Send;

    /// Puts a state in place of the one of this version, durably; returns the new version, or `None` when the version is
    /// another. An error leaves open whether it was done.
    fn swap(&self, version: (u64, u64), state: &State) -> impl Future<Output = Result<Option<(u64, u64)>>> + Send;

    /// Keeps a server's word about itself; it need not survive anything.
    fn tell(&self, server: &str, member: &Member) -> impl Future<Output = Result<()>> + Send;
}
