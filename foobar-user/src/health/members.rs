//! Which healthy backends are members of a service.

use super::DatabaseRole;
use super::state::BackendHealth;
use super::verdict::Status;
use crate::plan::Select;

/// Chooses the members; see [`super::ServiceHealth::members`].
pub(super) fn choose(select: Select, backends: &[BackendHealth]) -> Vec<&BackendHealth> {
    let healthy = || backends.iter().filter(|backend| backend.status == Status::Up);
    let primary = || healthy().filter(|backend| backend.role == Some(DatabaseRole::Primary));
    match select {
        Select::Any => healthy().collect(),
        Select::Primary => primary().collect(),
        Select::Replica => {
            let replicas: Vec<_> =
                healthy().filter(|backend| matches!(backend.role, Some(DatabaseRole::Replica { .. }))).collect();
            if replicas.is_empty() { primary().collect() } else { replicas }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::CheckCounts;

    const REPLICA: DatabaseRole = DatabaseRole::Replica { lag_bytes: 0, lag_seconds: 0.0 };

    fn backend(server: &str, status: Status, role: DatabaseRole) -> BackendHealth {
        let address = ([127, 0, 0, 1], 5432).into();
        let checks = CheckCounts::default();
        BackendHealth { server: server.into(), address, status, role: Some(role), failure: None, checks }
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
        assert_eq!(names(Select::Replica, &all), ["db2"]);
        all[1].status = Status::Down;
        assert_eq!(names(Select::Replica, &all), ["db1"], "reads fall back to the primary");
        all[0].status = Status::Unknown;
        assert!(names(Select::Replica, &all).is_empty());
        assert!(names(Select::Primary, &all).is_empty());
    }
}
