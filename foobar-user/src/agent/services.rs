//! A server's services with their backends, for `foobar services`.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::server::{Server, lock};
use crate::datapath::load::{Load, Place};
use crate::health::{DatabaseRole, Duty, ServiceHealth, Status};
use crate::plan::{Scope, ServicePlan, Transport};
use crate::table::{Column, table};

/// [`BackendReport::health`] of who has left.
const LEFT: &str = "left";

/// The services of a server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServicesReport {
    /// The server.
    pub server: String,
    /// In the order of the site file.
    pub services: Vec<ServiceReport>,
}

/// One service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceReport {
    /// Its name.
    pub name: String,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// Where it is reached.
    pub vips: Vec<SocketAddr>,
    /// `nat`, `direct` or `tunnel` on the wire, `socket` for local processes alone.
    pub forward: String,
    /// Addresses from which backends see its connections; empty: they see the clients'.
    pub sources: Vec<IpAddr>,
    /// Which backend is next.
    pub schedule: String,
    /// Seconds for which a client stays with its backend; 0: it does not.
    pub affinity_s: u32,
    /// Flows of one backend at the most; 0: as many as come.
    pub max_connections: u32,
    /// One for each address of each backend.
    pub backends: Vec<BackendReport>,
}

/// One address of one backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackendReport {
    /// Its server.
    pub server: String,
    /// Its endpoint.
    pub address: SocketAddr,
    /// `up`, `down` or `unknown`; `ejected`: its checks find it up, but it takes no connections; `left`: the site file has it no
    /// more, and its flows go on to their end.
    pub health: String,
    /// What operators want of it.
    pub duty: Duty,
    /// Whether it is given new connections.
    pub member: bool,
    /// Its weight.
    pub weight: u32,
    /// Its share of new connections now, from 0 to 1, by the weights of all members of its address family.
    pub share: f64,
    /// Flows from the wire and connections of local sockets that it has now.
    pub flows: u64,
    /// Connections since its counters began.
    pub connections: u64,
    /// Packets, both ways.
    pub packets: u64,
    /// Bytes of whole frames, both ways.
    pub bytes: u64,
    /// Of a database server: what it said last, and how far it is behind.
    pub database: Option<DatabaseRole>,
    /// Whether it is too far behind to take reads.
    pub late: bool,
    /// Why its last check failed.
    pub failure: Option<String>,
}

impl Server {
    /// Services as they are now.
    ///
    /// # Errors
    /// A map cannot be read.
    pub(super) fn services(&self) -> Result<ServicesReport> {
        let loads = lock(&self.datapath).loads()?;
        let health = self.health_changes.borrow().clone();
        let report = |plan: &ServicePlan| {
            let known = health.services.iter().find(|service| service.name == plan.name)?;
            let mut report = described(plan);
            report.backends = backends(plan, known, |place| loads.get(place).copied().unwrap_or_default());
            let known =
                |place: &Place| known.backends.iter().any(|b| b.server == place.server && b.address == place.endpoint);
            let left = loads.iter().filter(|(place, _)| place.service == plan.name && !known(place));
            report.backends.extend(left.map(|(place, load)| leaving(place, *load)));
            Some(report)
        };
        let plan = &self.loaded.plan;
        Ok(ServicesReport { server: plan.server.clone(), services: plan.services.iter().filter_map(report).collect() })
    }
}

fn described(plan: &ServicePlan) -> ServiceReport {
    ServiceReport {
        name: plan.name.clone(),
        protocol: match plan.protocol {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
        }
        .to_owned(),
        vips: plan.vips.clone(),
        forward: match plan.scope {
            Scope::Nat => "nat",
            Scope::Direct => "direct",
            Scope::Tunnel => "tunnel",
            Scope::Local => "socket",
        }
        .to_owned(),
        sources: plan.sources.clone(),
        schedule: plan.balance.schedule.as_str().to_owned(),
        affinity_s: plan.balance.affinity_s,
        max_connections: plan.balance.max_connections,
        backends: Vec::new(),
    }
}

fn backends(plan: &ServicePlan, health: &ServiceHealth, load: impl Fn(&Place) -> Load) -> Vec<BackendReport> {
    let members = health.members();
    let total = |v6: bool| {
        let family = members.iter().filter(|member| member.address.is_ipv6() == v6);
        family.map(|member| f64::from(member.weight)).sum::<f64>()
    };
    let report = |backend: &crate::health::BackendHealth| {
        let (service, server, endpoint) = (plan.name.clone(), backend.server.clone(), backend.address);
        let load = load(&Place { service, server, endpoint });
        let member = members.iter().find(|member| member.address == endpoint && member.server == backend.server);
        BackendReport {
            server: backend.server.clone(),
            address: endpoint,
            health: match backend.status {
                Status::Up if backend.ejection.is_out() => "ejected",
                Status::Up => "up",
                Status::Down => "down",
                Status::Unknown => "unknown",
            }
            .to_owned(),
            duty: backend.order.duty,
            member: member.is_some(),
            weight: backend.weight(),
            share: member.map_or(0.0, |member| f64::from(member.weight) / total(endpoint.is_ipv6())),
            flows: load.flows,
            connections: load.traffic.connections,
            packets: load.traffic.packets,
            bytes: load.traffic.bytes,
            database: backend.role,
            late: backend.late,
            failure: backend.failure.clone(),
        }
    };
    health.backends.iter().map(report).collect()
}

/// A backend that has left the site file, while it has flows.
fn leaving(place: &Place, load: Load) -> BackendReport {
    BackendReport {
        server: place.server.clone(),
        address: place.endpoint,
        health: LEFT.to_owned(),
        duty: Duty::Draining,
        member: false,
        weight: 0,
        share: 0.0,
        flows: load.flows,
        connections: load.traffic.connections,
        packets: load.traffic.packets,
        bytes: load.traffic.bytes,
        database: None,
        late: false,
        failure: None,
    }
}

impl BackendReport {
    /// What there is to say of it beside the numbers.
    fn note(&self) -> String {
        if let Some(failure) = &self.failure {
            return failure.clone();
        }
        match self.database {
            _ if self.health == LEFT => "not in the site file any more: goes when its flows have ended".to_owned(),
            Some(DatabaseRole::Primary) => "primary".to_owned(),
            Some(DatabaseRole::Replica { lag_bytes, lag_seconds }) => {
                let late = if self.late { "too far behind: " } else { "" };
                format!("replica, {late}{lag_seconds:.1} s, {lag_bytes} bytes")
            }
            None => String::new(),
        }
    }
}

impl ServiceReport {
    fn head(&self) -> String {
        let vips: Vec<String> = self.vips.iter().map(ToString::to_string).collect();
        let mut head =
            format!("{}: {} {}, {}, {}", self.name, self.protocol, vips.join(", "), self.forward, self.schedule);
        if !self.sources.is_empty() {
            let sources: Vec<String> = self.sources.iter().map(ToString::to_string).collect();
            head += &format!(", from {}", sources.join(" and "));
        }
        if self.affinity_s > 0 {
            let time = std::time::Duration::from_secs(self.affinity_s.into());
            head += &format!(", affinity {}", crate::sets::ttl::format(time));
        }
        if self.max_connections > 0 {
            head += &format!(", at most {} connections each", self.max_connections);
        }
        head
    }
}

impl fmt::Display for ServicesReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const COLUMNS: [Column<'_>; 11] = [
            Column::Text("  backend"),
            Column::Text("address"),
            Column::Text("health"),
            Column::Text("order"),
            Column::Number("weight"),
            Column::Number("share"),
            Column::Number("flows"),
            Column::Number("connections"),
            Column::Number("packets"),
            Column::Number("bytes"),
            Column::Text("note"),
        ];
        if self.services.is_empty() {
            return writeln!(f, "{} has no services", self.server);
        }
        for (index, service) in self.services.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            writeln!(f, "{}", service.head())?;
            let row = |backend: &BackendReport| {
                vec![
                    format!("  {}", backend.server),
                    backend.address.to_string(),
                    backend.health.clone(),
                    backend.duty.to_string(),
                    backend.weight.to_string(),
                    format!("{:.0} %", backend.share * 100.0),
                    backend.flows.to_string(),
                    backend.connections.to_string(),
                    backend.packets.to_string(),
                    backend.bytes.to_string(),
                    backend.note(),
                ]
            };
            write!(f, "{}", table(&COLUMNS, &service.backends.iter().map(row).collect::<Vec<_>>()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(server: &str, share: f64) -> BackendReport {
        BackendReport {
            server: server.to_owned(),
            address: ([10, 0, 1, 11], 8443).into(),
            health: "up".to_owned(),
            duty: Duty::Enabled,
            member: true,
            weight: 3,
            share,
            flows: 12,
            connections: 100,
            packets: 5000,
            bytes: 4_000_000,
            database: None,
            late: false,
            failure: None,
        }
    }

    #[test]
    fn a_note_tells_how_far_a_replica_is_behind() {
        let role = DatabaseRole::Replica { lag_bytes: 4096, lag_seconds: 12.34 };
        let mut replica = BackendReport { database: Some(role), late: true, ..backend("db2", 0.0) };
        assert_eq!(replica.note(), "replica, too far behind: 12.3 s, 4096 bytes");
        replica.late = false;
        assert_eq!(replica.note(), "replica, 12.3 s, 4096 bytes");
        replica.failure = Some("cannot connect".to_owned());
        assert_eq!(replica.note(), "cannot connect", "what it said last is old");
    }

    #[test]
    fn services_are_aligned() {
        let service = ServiceReport {
            name: "www".to_owned(),
            protocol: "tcp".to_owned(),
            vips: vec![([203, 0, 113, 10], 8080).into()],
            forward: "nat".to_owned(),
            sources: vec![[10, 0, 1, 100].into()],
            schedule: "round-robin".to_owned(),
            affinity_s: 600,
            max_connections: 1000,
            backends: vec![backend("web1", 0.75), backend("web2", 0.25)],
        };
        let text = ServicesReport { server: "lb1".to_owned(), services: vec![service] }.to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0],
            "www: tcp 203.0.113.10:8080, nat, round-robin, from 10.0.1.100, affinity 10m, at most 1000 connections each"
        );
        assert_eq!(
            lines[1],
            "  backend  address         health  order    weight  share  flows  connections  packets    bytes"
        );
        assert_eq!(
            lines[3],
            "  web2     10.0.1.11:8443  up      enabled       3   25 %     12          100     5000  4000000"
        );
    }
}
