//! One task for each address of each backend: checks, judges, publishes.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use super::eject::{self, Failures};
use super::order::Order;
use super::probe::{Outcome, Probe};
use super::state::{BackendHealth, HealthState, Member, ServiceHealth};
use super::verdict::{Status, Verdict};
use super::way::Way;
use super::wire::Wire;
use super::{DatabaseRole, lag};
use crate::plan::{Check, CheckKind, Reads, Scope, Select, ServicePlan};

/// Checks the backends of one server's services until it is dropped.
#[derive(Debug)]
pub struct Health {
    state: watch::Sender<HealthState>,
    watches: Vec<Watch>,
    orders: Orders,
    wire: Arc<Wire>,
}

/// Operators' words by service and server.
pub type Orders = BTreeMap<(String, String), Order>;

/// What is checked by one task.
#[derive(Clone, Debug, PartialEq)]
struct Target {
    service: String,
    server: String,
    address: SocketAddr,
    /// VIPs of its address family for which it answers itself.
    vips: Vec<SocketAddr>,
    check: Check,
}

#[derive(Debug)]
struct Watch {
    target: Target,
    task: JoinHandle<()>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Health {
    /// Starts checking. The receiver wakes when a verdict or a role changes, not for every check.
    #[must_use]
    pub fn start(services: &[ServicePlan], orders: Orders) -> (Self, watch::Receiver<HealthState>) {
        let (state, receiver) = watch::channel(HealthState::default());
        let mut health = Self { state, watches: Vec::new(), orders, wire: Arc::default() };
        health.apply(services);
        (health, receiver)
    }

    /// Changes what is checked; backends whose check is the same keep their state and are not asked anew.
    pub fn apply(&mut self, services: &[ServicePlan]) {
        let targets: Vec<Target> = services.iter().flat_map(targets).collect();
        self.watches.retain(|watch| targets.contains(&watch.target));
        let kept: Vec<Target> = self.watches.iter().map(|watch| watch.target.clone()).collect();
        self.state.send_modify(|state| *state = rebuilt(state, services, &kept, &self.orders));
        for target in targets {
            if !kept.contains(&target) {
                let task = tokio::spawn(watch_backend(target.clone(), self.state.clone(), Arc::clone(&self.wire)));
                self.watches.push(Watch { target, task });
            }
        }
    }

    /// What operators want, by service and server.
    #[must_use]
    pub const fn orders(&self) -> &Orders {
        &self.orders
    }

    /// Does what operators want.
    pub fn order(&mut self, orders: Orders) {
        self.orders = orders;
        self.state.send_modify(|state| {
            for service in &mut state.services {
                for backend in &mut service.backends {
                    backend.order = ordered(&self.orders, &service.name, &backend.server);
                }
            }
        });
    }

    /// Takes what the kernel has counted of connections that backends have not taken.
    pub fn look_at_failures(&self, failures: &[Failures<'_>], now: std::time::Instant) {
        self.state.send_if_modified(|state| {
            state.services.iter_mut().fold(false, |changed, service| {
                let of: Vec<Failures<'_>> =
                    failures.iter().filter(|found| found.service == service.name).copied().collect();
                eject::look(service, &of, now) || changed
            })
        });
    }

    /// What is known now, with counters.
    #[must_use]
    pub fn snapshot(&self) -> HealthState {
        self.state.borrow().clone()
    }

    /// Members of a service now.
    #[must_use]
    pub fn members(&self, service: &str) -> Vec<Member> {
        self.state.borrow().members(service)
    }
}

fn targets(service: &ServicePlan) -> impl Iterator<Item = Target> + '_ {
    service.backends.iter().flat_map(|backend| {
        backend.addresses.iter().map(|address| Target {
            service: service.name.clone(),
            server: backend.server.clone(),
            address: *address,
            vips: own_vips(service, *address),
            check: service.check.clone(),
        })
    })
}

/// VIPs for which a backend answers by itself.
fn own_vips(service: &ServicePlan, backend: SocketAddr) -> Vec<SocketAddr> {
    let same_family = service.vips.iter().filter(|vip| vip.is_ipv4() == backend.is_ipv4());
    match service.scope {
        Scope::Direct => same_family.copied().collect(),
        // Those of tunnels are asked at their own addresses: a check does not travel in one.
        Scope::Nat | Scope::Tunnel | Scope::Local => Vec::new(),
    }
}

/// The state for new services, with what is known about the backends that stay.
fn rebuilt(old: &HealthState, services: &[ServicePlan], kept: &[Target], orders: &Orders) -> HealthState {
    let backend = |plan: &ServicePlan, target: Target| {
        let known = find(old, &target).filter(|_| kept.contains(&target)).cloned();
        let planned = plan.backends.iter().find(|backend| backend.server == target.server);
        let order = ordered(orders, &plan.name, &target.server);
        let known =
            known.unwrap_or_else(|| BackendHealth { order, ..BackendHealth::new(target.server, target.address) });
        let (weight, fallback) = planned.map_or((1, false), |backend| (backend.weight, backend.fallback));
        BackendHealth { weight, fallback, ..known }
    };
    let service = |plan: &ServicePlan| ServiceHealth {
        name: plan.name.clone(),
        select: plan.select,
        slow_start_s: plan.balance.slow_start_s,
        eject: plan.balance.eject,
        log: old
            .services
            .iter()
            .find(|known| known.name == plan.name)
            .map_or_else(Default::default, |known| known.log.clone()),
        backends: targets(plan).map(|target| backend(plan, target)).collect(),
    };
    HealthState { services: services.iter().map(service).collect() }
}

fn ordered(orders: &Orders, service: &str, server: &str) -> Order {
    orders.get(&(service.to_owned(), server.to_owned())).copied().unwrap_or_default()
}

fn find<'a>(state: &'a HealthState, target: &Target) -> Option<&'a BackendHealth> {
    let service = state.services.iter().find(|service| service.name == target.service)?;
    service.backends.iter().find(|backend| backend.server == target.server && backend.address == target.address)
}

fn find_mut<'a>(state: &'a mut HealthState, target: &Target) -> Option<&'a mut BackendHealth> {
    let service = state.services.iter_mut().find(|service| service.name == target.service)?;
    service.backends.iter_mut().find(|backend| backend.server == target.server && backend.address == target.address)
}

async fn watch_backend(target: Target, state: watch::Sender<HealthState>, wire: Arc<Wire>) {
    let patience = Duration::from_millis(target.check.timeout_ms.max(1));
    let mut probe = Probe::new(&target.check.kind, &target.server, target.address);
    let mut way = Way::new(wire, target.address, target.vips.clone());
    let mut verdict = Verdict::default();
    let mut round: u64 = 0;
    loop {
        let began = Instant::now();
        let both = async { tokio::try_join!(probe.ask(), way.ask()) };
        let outcome = match timeout(patience, both).await {
            Ok(Ok((said, ()))) => Outcome::Success(said),
            Ok(Err(error)) => Outcome::Failure(format!("{error:#}")),
            Err(_) => Outcome::Timeout(format!("no answer within {} ms{}", patience.as_millis(), way.silence())),
        };
        if !matches!(outcome, Outcome::Success(_)) {
            probe.forget();
        }
        publish(&state, &target, &mut verdict, &outcome);
        round += 1;
        // From start to start: a check that used up its time is followed by the next at once.
        sleep_until(began + jittered(target.check.interval_ms, round)).await;
    }
}

/// Puts a result into the snapshot; wakes readers only when members may change.
fn publish(state: &watch::Sender<HealthState>, target: &Target, verdict: &mut Verdict, outcome: &Outcome) {
    let said = outcome.said().map(|said| (said.position, said.role));
    let success = matches!(outcome, Outcome::Success(_));
    // A primary is the only one: to wait whether it stays helps nobody.
    let changed = if matches!(said, Some((_, DatabaseRole::Primary))) {
        verdict.rise()
    } else {
        verdict.take(success, target.check.rise, target.check.fall, std::time::Instant::now())
    };
    if changed {
        tracing::info!(
            service = target.service,
            server = target.server,
            address = %target.address,
            status = ?verdict.status(),
            reason = outcome.failure().unwrap_or_default(),
            "health"
        );
    }
    state.send_if_modified(|state| {
        let measured = said.map(|(position, role)| measured(state, target, position, role));
        let Some(backend) = find_mut(state, target) else { return false };
        let now = std::time::Instant::now();
        let rises = changed && verdict.status() == Status::Up && backend.status == Status::Down;
        if rises {
            // Its checks have seen it fall, too.
            backend.ejection.end(now);
        }
        let connects = !matches!(target.check.kind, CheckKind::Script(_));
        let returns = connects && backend.ejection.checked(success, target.check.rise, now);
        if rises || returns {
            backend.recovered = Some(now);
        }
        let changed = changed || returns;
        backend.status = verdict.status();
        backend.failure = outcome.failure().map(str::to_owned);
        match outcome {
            Outcome::Success(_) => {
                backend.checks.success += 1;
                let kind = |role: Option<DatabaseRole>| role.map(|role| std::mem::discriminant(&role));
                let before = (kind(backend.role), backend.late);
                (backend.role, backend.late) = (measured.map(|(role, _)| role), measured.is_some_and(|(_, late)| late));
                changed || before != (kind(backend.role), backend.late)
            }
            Outcome::Failure(_) => {
                backend.checks.failure += 1;
                changed
            }
            Outcome::Timeout(_) => {
                backend.checks.timeout += 1;
                changed
            }
        }
    });
}

/// A database server's role with its lag, and whether that is too much; a primary's position is remembered.
fn measured(state: &mut HealthState, target: &Target, position: i64, role: DatabaseRole) -> (DatabaseRole, bool) {
    let now = std::time::Instant::now();
    let was_late = find(state, target).is_some_and(|backend| backend.late);
    let Some(service) = state.services.iter_mut().find(|service| service.name == target.service) else {
        return (role, false);
    };
    let reads = match service.select {
        Select::Replica(reads) => reads,
        Select::Any | Select::Primary => Reads::default(),
    };
    let role = match role {
        DatabaseRole::Primary => {
            service.log.note(&target.server, position, reads, now);
            role
        }
        DatabaseRole::Replica { .. } => service
            .log
            .behind(position, now)
            .map_or(role, |(lag_bytes, lag_seconds)| DatabaseRole::Replica { lag_bytes, lag_seconds }),
    };
    let late = lag::is_late(role, was_late, reads);
    if late != was_late {
        tracing::info!(service = target.service, server = target.server, ?role, late, "replica");
    }
    (role, late)
}

/// The interval, up to a tenth shorter or longer, so that the checks of many servers spread.
fn jittered(interval_ms: u64, round: u64) -> Duration {
    let interval_us = interval_ms.max(1).saturating_mul(1000);
    let tenth_us = interval_us / 10;
    let chance = RandomState::new().hash_one(round) % (2 * tenth_us + 1);
    Duration::from_micros(interval_us - tenth_us + chance)
}

#[cfg(test)]
mod tests {
    use super::jittered;

    #[test]
    fn jitter_stays_within_a_tenth() {
        for round in 0..1000 {
            let interval_us = jittered(250, round).as_micros();
            assert!((225_000..=275_000).contains(&interval_us), "{interval_us}");
        }
    }
}
