//! What each backend has been given, and what it has now.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::{Context, Result};
use foobar_common::abi::Traffic;

use super::state::State;
use super::{Datapath, InForce};

/// One backend's address of one service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The service.
    pub service: String,
    /// The backend's server.
    pub server: String,
    /// Its endpoint.
    pub endpoint: SocketAddr,
}

impl Place {
    /// From the name of its slot, see [`super::slots::backend_name`].
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let mut parts = name.splitn(3, '/');
        let (service, server) = (parts.next()?.to_owned(), parts.next()?.to_owned());
        Some(Self { service, server, endpoint: parts.next()?.parse().ok()? })
    }
}

/// What it has to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Since its counters began.
    pub traffic: Traffic,
    /// Flows from the wire and connections of local sockets that it has now.
    pub flows: u64,
    /// Connections that it has not taken, since its counters began.
    pub connect_failures: u64,
}

impl Load {
    /// Of a backend's slot.
    pub(super) fn of(state: &State, slot: u32) -> Result<Self> {
        let connect_failures = state.connect_failures(slot)?.total;
        Ok(Self { traffic: state.backend(slot)?, flows: state.active(slot)?, connect_failures })
    }
}

impl Datapath {
    /// The load of every backend.
    ///
    /// # Errors
    /// No plan is in force, or a map cannot be read.
    pub fn loads(&self) -> Result<BTreeMap<Place, Load>> {
        let InForce { instance, .. } = self.in_force.as_ref().context("no plan is in force yet")?;
        let state = instance.state();
        let load = |(slot, place)| Ok((place, Load::of(state, slot)?));
        self.places().into_iter().map(load).collect()
    }

    /// Every backend by its slot, those that are leaving among them.
    #[must_use]
    pub fn places(&self) -> BTreeMap<u32, Place> {
        let leaving = self.slots.leaving.iter().filter_map(|(name, slot)| Some((*slot, Place::named(name)?)));
        let services = self.in_force.iter().flat_map(|in_force| &in_force.services);
        let places = services.flat_map(|service| {
            service.backends.iter().map(|backend| {
                let (service, server) = (service.name.clone(), backend.server.clone());
                (backend.slot, Place { service, server, endpoint: backend.endpoint })
            })
        });
        places.chain(leaving).collect()
    }
}
