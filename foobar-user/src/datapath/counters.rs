//! What the data path has counted, by the names of the plan.

use anyhow::{Context, Result};
use foobar_common::abi::{Counter, TUNNEL_WAYS, Traffic};
use foobar_common::verdict::Reason;

use super::load::Load;
use super::{Datapath, InForce};

/// All counters at one time.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// By verdict and reason.
    pub verdicts: Vec<(Reason, Counter)>,
    /// By rule, in no particular order.
    pub rules: Vec<(String, Counter)>,
    /// By service, both address families together.
    pub services: Vec<(String, Traffic)>,
    /// By service and backend, both address families together.
    pub backends: Vec<(String, String, Load)>,
    /// Packets that were put into tunnels, and that were taken out of them.
    pub tunnels: [Counter; TUNNEL_WAYS as usize],
    /// Events for which the ring had no room.
    pub events_lost: u64,
}

impl Datapath {
    /// Reads all counters.
    ///
    /// # Errors
    /// No plan is in force, or a map cannot be read.
    pub fn counters(&self) -> Result<Counters> {
        let InForce { instance, services, .. } = self.in_force.as_ref().context("no plan is in force yet")?;
        let state = instance.state();
        let mut counters = Counters {
            verdicts: state.verdicts()?,
            tunnels: state.tunnels()?,
            events_lost: state.events_lost()?,
            ..Counters::default()
        };
        for (name, slot) in self.slots.rules.iter() {
            counters.rules.push((name.to_owned(), state.rule(slot)?));
        }
        for service in services {
            let traffic = state.service(service.slot)?;
            let known = counters.services.iter_mut().find(|(name, _)| *name == service.name);
            match known {
                Some((_, sum)) => add(sum, traffic),
                None => counters.services.push((service.name.clone(), traffic)),
            }
            for backend in &service.backends {
                let load = Load::of(state, backend.slot)?;
                let known = counters
                    .backends
                    .iter_mut()
                    .find(|(name, server, _)| *name == service.name && *server == backend.server);
                match known {
                    Some((.., sum)) => {
                        add(&mut sum.traffic, load.traffic);
                        sum.flows += load.flows;
                        sum.connect_failures += load.connect_failures;
                    }
                    None => counters.backends.push((service.name.clone(), backend.server.clone(), load)),
                }
            }
        }
        Ok(counters)
    }
}

const fn add(sum: &mut Traffic, more: Traffic) {
    sum.connections += more.connections;
    sum.packets += more.packets;
    sum.bytes += more.bytes;
}
