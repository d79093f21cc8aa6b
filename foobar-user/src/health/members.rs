//! Which healthy backends are members of a service, and with what weight.

use std::time::Instant;

use super::DatabaseRole;
use super::order::Duty;
use super::state::BackendHealth;
use super::verdict::Status;
use crate::plan::Select;

/// A whole weight, in the hundredths in which slow starts count.
const WHOLE: u32 = 100;

/// Chooses the members; see [`super::ServiceHealth::members`].
pub(super) fn choose(select: Select, backends: &[BackendHealth]) -> Vec<&BackendHealth> {
    standing(select, backends, |backend| !is_replaced(backend, backends))
}

/// Those among whom a backend would be, if nobody were taken out for failed connections: of its address family.
pub(super) fn peers<'b>(
    select: Select,
    backends: &'b [BackendHealth],
    backend: &BackendHealth,
) -> Vec<&'b BackendHealth> {
    let mut peers = standing(select, backends, |_| true);
    peers.retain(|peer| peer.address.is_ipv4() == backend.address.is_ipv4());
    peers
}

fn standing(select: Select, backends: &[BackendHealth], stays: impl Fn(&BackendHealth) -> bool) -> Vec<&BackendHealth> {
    let of = |fallback: bool| {
        let fit = backends.iter().filter(|backend| backend.fallback == fallback && is_fit(backend) && stays(backend));
        selected(select, &fit.collect::<Vec<_>>())
    };
    let first = of(false);
    if first.is_empty() { of(true) } else { first }
}

/// Taken out for failed connections, and there is another one: who may fail is better than nobody.
fn is_replaced(backend: &BackendHealth, backends: &[BackendHealth]) -> bool {
    let replaces = |other: &BackendHealth| {
        let alike = other.fallback == backend.fallback && other.address.is_ipv4() == backend.address.is_ipv4();
        alike && is_fit(other) && !other.ejection.is_out()
    };
    backend.ejection.is_out() && backends.iter().any(replaces)
}

/// Healthy, and meant to take part.
fn is_fit(backend: &BackendHealth) -> bool {
    backend.status == Status::Up && backend.order.duty == Duty::Enabled && backend.weight() > 0
}

fn selected<'b>(select: Select, fit: &[&'b BackendHealth]) -> Vec<&'b BackendHealth> {
    let primary = || fit.iter().copied().filter(|backend| backend.role == Some(DatabaseRole::Primary)).collect();
    match select {
        Select::Any => fit.to_vec(),
        Select::Primary => primary(),
        Select::Replica(reads) => {
            let fresh =
                |backend: &&BackendHealth| matches!(backend.role, Some(DatabaseRole::Replica { .. })) && !backend.late;
            let replicas: Vec<_> = fit.iter().copied().filter(fresh).collect();
            if replicas.is_empty() && reads.fallback_to_primary { primary() } else { replicas }
        }
    }
}

/// What a member is given, in hundredths of a weight: one that has just recovered less, so that it can warm up.
pub(super) fn share(backend: &BackendHealth, slow_start_s: u32, now: Instant) -> u32 {
    let whole = backend.weight().saturating_mul(WHOLE);
    let Some(recovered) = backend.recovered.filter(|_| is_starting(backend, slow_start_s, now)) else { return whole };
    let part = now.saturating_duration_since(recovered).as_secs_f64() / f64::from(slow_start_s);
    ((f64::from(whole) * part) as u32).clamp(1, whole)
}

/// Whether it is not given its whole weight yet.
pub(super) fn is_starting(backend: &BackendHealth, slow_start_s: u32, now: Instant) -> bool {
    let since = backend.recovered.map(|recovered| now.saturating_duration_since(recovered));
    since.is_some_and(|since| since.as_secs() < u64::from(slow_start_s))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::plan::Reads;

    const READS: Select = Select::Replica(Reads { max_lag_s: None, max_lag_bytes: None, fallback_to_primary: true });
    const REPLICA: DatabaseRole = DatabaseRole::Replica { lag_bytes: 0, lag_seconds: 0.0 };

    fn backend(server: &str, status: Status, role: DatabaseRole) -> BackendHealth {
        let new = BackendHealth::new(server.into(), ([127, 0, 0, 1], 5432).into());
        BackendHealth { status, role: Some(role), ..new }
    }

    fn names(select: Select, backends: &[BackendHealth]) -> Vec<&str> {
        choose(select, backends).into_iter().map(|backend| backend.server.as_str()).collect()
    }

    #[test]
    fn members_follow_role_and_health() {
        let mut all = [
            backend("db1", Status::Up, DatabaseRole::Primary),
            backend("db2", Status::Up, REPLICA),
            backend("db3", Status::Down, REPLICA),
        ];
        assert_eq!(names(Select::Any, &all), ["db1", "db2"]);
        assert_eq!(names(Select::Primary, &all), ["db1"]);
        assert_eq!(names(READS, &all), ["db2"]);
        all[1].late = true;
        assert_eq!(names(READS, &all), ["db1"], "reads fall back to the primary while the replica is behind");
        let reads = Reads { fallback_to_primary: false, ..Reads::default() };
        assert!(names(Select::Replica(reads), &all).is_empty(), "the primary is not to take reads");
        all[1].late = false;
        all[1].status = Status::Down;
        assert_eq!(names(READS, &all), ["db1"], "reads fall back to the primary");
        all[0].status = Status::Unknown;
        assert!(names(READS, &all).is_empty());
        assert!(names(Select::Primary, &all).is_empty());
    }

    #[test]
    fn who_steps_in_waits_for_the_others_to_fail() {
        let mut all = [
            backend("web1", Status::Up, REPLICA),
            backend("web2", Status::Up, REPLICA),
            backend("spare", Status::Up, REPLICA),
        ];
        all[2].fallback = true;
        assert_eq!(names(Select::Any, &all), ["web1", "web2"]);
        all[0].order.duty = Duty::Draining;
        assert_eq!(names(Select::Any, &all), ["web2"]);
        all[1].order.weight = Some(0);
        assert_eq!(names(Select::Any, &all), ["spare"], "drained and weightless are as good as down");
        all[2].order.duty = Duty::Disabled;
        assert!(names(Select::Any, &all).is_empty());
    }

    #[test]
    fn a_slow_start_rises_to_the_whole_weight() {
        let (mut one, now) = (backend("web1", Status::Up, REPLICA), Instant::now());
        assert_eq!(share(&one, 10, now), 100, "from the beginning up");
        one.recovered = Some(now);
        one.order.weight = Some(3);
        let after = |seconds| share(&one, 10, now + Duration::from_secs(seconds));
        assert_eq!([0, 1, 5, 9, 10, 11].map(after), [1, 30, 150, 270, 300, 300]);
        assert_eq!(share(&one, 0, now), 300, "no slow start");
    }
}
