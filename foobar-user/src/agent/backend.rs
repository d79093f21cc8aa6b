//! Orders of operators: backends are drained, disabled, enabled, and given other weights.

use std::collections::BTreeSet;

use anyhow::{Result, bail, ensure};
use serde::{Deserialize, Serialize};
use tracing::info;

use super::control::{BackendOrder, OrderChange};
use super::orders;
use super::server::{Server, lock};
use crate::datapath::load::Place;
use crate::health::{Duty, Order};

/// What an order came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ordered {
    /// Services whose backend it is.
    pub services: Vec<String>,
    /// Those of them that give connections to nobody now.
    pub without_members: Vec<String>,
}

impl Server {
    /// Takes an order, and remembers it before anything follows it.
    ///
    /// # Errors
    /// No such backend; it cannot be remembered.
    pub(super) fn order(&mut self, order: &BackendOrder) -> Result<Ordered> {
        let services = match (self.services_of(order), order.change) {
            (Ok(services), _) => services,
            // Who has left the site file drains already.
            (Err(unknown), OrderChange::Duty(Duty::Draining)) => {
                let services = self.left_by(order);
                ensure!(!services.is_empty(), unknown);
                return Ok(Ordered { services, without_members: Vec::new() });
            }
            (Err(unknown), _) => return Err(unknown),
        };
        {
            let mut health = lock(&self.health);
            let mut all = health.orders().clone();
            for service in &services {
                let key = (service.clone(), order.backend.clone());
                let changed = changed(all.get(&key).copied().unwrap_or_default(), order.change);
                if changed == Order::default() {
                    all.remove(&key);
                } else {
                    all.insert(key, changed);
                }
            }
            orders::write(self.folders.state(), &all)?;
            health.order(all);
        }
        self.follow_health();
        info!(backend = order.backend, ?services, change = ?order.change, "ordered");
        let health = self.health_changes.borrow();
        let without_members = services.iter().filter(|service| health.members(service).is_empty()).cloned().collect();
        Ok(Ordered { services, without_members })
    }

    /// Services that a backend has left by the site file, while it has flows of theirs.
    fn left_by(&self, order: &BackendOrder) -> Vec<String> {
        let places = lock(&self.datapath).places();
        let asked = |place: &Place| order.service.as_ref().is_none_or(|name| *name == place.service);
        let left = places.into_values().filter(|place| place.server == order.backend && asked(place));
        left.map(|place| place.service).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// The services that an order concerns.
    fn services_of(&self, order: &BackendOrder) -> Result<Vec<String>> {
        let plan = &self.loaded.plan;
        if let Some(name) = &order.service {
            let known = plan.services.iter().any(|service| service.name == *name);
            ensure!(known, "{} has no service `{name}`: `foobar services` lists them", plan.server);
        }
        let asked =
            plan.services.iter().filter(|service| order.service.as_ref().is_none_or(|name| *name == service.name));
        let has = |service: &&crate::plan::ServicePlan| {
            service.backends.iter().any(|backend| backend.server == order.backend)
        };
        let services: Vec<String> = asked.filter(has).map(|service| service.name.clone()).collect();
        if services.is_empty() {
            let of =
                order.service.as_ref().map_or_else(|| "any service".to_owned(), |name| format!("service `{name}`"));
            bail!("`{}` is no backend of {of} of {}: `foobar services` lists them", order.backend, plan.server);
        }
        Ok(services)
    }
}

const fn changed(order: Order, change: OrderChange) -> Order {
    match change {
        OrderChange::Duty(duty) => Order { duty, ..order },
        OrderChange::Weight(weight) => Order { weight, ..order },
    }
}
