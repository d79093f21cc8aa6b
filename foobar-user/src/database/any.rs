//! The store that a site has chosen.

use anyhow::Result;

use super::state::{Member, State};
use super::store::{Snapshot, Store};
use super::{etcd, witness};
use crate::plan::{FailoverPlan, StorePlan};

/// One of the stores.
#[derive(Debug)]
pub enum AnyStore {
    /// The witness in a balancer's agent.
    Witness(Box<witness::Client>),
    /// An etcd cluster.
    Etcd(Box<etcd::Client>),
}

impl AnyStore {
    /// The way to a plan's store, which is not gone yet.
    #[must_use]
    pub fn new(plan: &FailoverPlan) -> Self {
        let files = plan.tls.clone();
        match &plan.store {
            StorePlan::Witness { server, addresses } => {
                Self::Witness(Box::new(witness::Client::new(server.clone(), addresses.clone(), files)))
            }
            StorePlan::Etcd { endpoints, prefix } => {
                Self::Etcd(Box::new(etcd::Client::new(endpoints.clone(), prefix.clone(), files)))
            }
        }
    }
}

impl Store for AnyStore {
    async fn read(&self) -> Result<Snapshot> {
        match self {
            Self::Witness(client) => client.read().await,
            Self::Etcd(client) => client.read().await,
        }
    }

    async fn swap(&self, version: (u64, u64), state: &State) -> Result<Option<(u64, u64)>> {
        match self {
            Self::Witness(client) => client.swap(version, state).await,
            Self::Etcd(client) => client.swap(version, state).await,
        }
    }

    async fn tell(&self, server: &str, member: &Member) -> Result<()> {
        match self {
            Self::Witness(client) => client.tell(server, member).await,
            Self::Etcd(client) => client.tell(server, member).await,
        }
    }
}
