//! The connection by which an admin is here: a plan that would cut it is refused.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, bail};
use foobar_common::parse::TCP;
use foobar_common::rules::Rule;
use foobar_common::rules::linear::{End, Fields, Members, walk};
use ipnet::IpNet;
use nix::ifaddrs::getifaddrs;
use serde::{Deserialize, Serialize};

use super::origin::Origins;
use crate::frame::build::{ACK, SYN};
use crate::plan::Plan;

/// A TCP connection to this server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// The admin's end.
    pub client: SocketAddr,
    /// This server's end.
    pub server: SocketAddr,
}

impl Connection {
    /// Reads `SSH_CONNECTION` as sshd writes it: client, its port, server, its port.
    #[must_use]
    pub fn from_ssh(text: &str) -> Option<Self> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let [client, client_port, server, server_port] = words[..] else { return None };
        let end = |address: &str, port: &str| {
            // Link-local addresses come with their interface behind a percent sign.
            let address: IpAddr = address.split('%').next()?.parse().ok()?;
            Some(SocketAddr::new(address.to_canonical(), port.parse().ok()?))
        };
        Some(Self { client: end(client, client_port)?, server: end(server, server_port)? })
    }
}

/// What rules would be in force: a plan, and what its sets hold around the connection's addresses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Firewall<'a> {
    pub(super) plan: &'a Plan,
    pub(super) sets: &'a BTreeMap<String, Vec<IpNet>>,
}

/// Refuses a change after which packets of the connection, or a new one like it, would be dropped that pass now.
///
/// Limits are taken as not exceeded: whether they are is not a matter of the plan.
///
/// # Errors
/// The rule that would drop it.
pub(super) fn refuse_to_cut(
    connection: &Connection,
    before: Firewall<'_>,
    after: Firewall<'_>,
    origins: &Origins,
) -> Result<()> {
    let interfaces = interfaces(connection.server.ip(), &after.plan.interfaces);
    for interface in &interfaces {
        for flags in [ACK, SYN] {
            let packet = Packet { connection, interface, flags };
            let (old, new) = (packet.judged(before), packet.judged(after));
            if let (End::Allow(allowed), End::Deny(_) | End::NoRule) = (old, new) {
                bail!(cut(connection, before.plan, allowed, after.plan, new, origins));
            }
        }
    }
    Ok(())
}

struct Packet<'a> {
    connection: &'a Connection,
    interface: &'a str,
    flags: u8,
}

impl Packet<'_> {
    fn judged(&self, firewall: Firewall<'_>) -> End {
        let Connection { client, server } = self.connection;
        let members = Members(firewall.sets.clone());
        let fields = Fields {
            source: client.ip(),
            destination: server.ip(),
            protocol: TCP,
            source_port: client.port(),
            port: server.port(),
            icmp_type: 0,
            flags: self.flags,
            interface: self.interface,
            sets: &members,
        };
        let rules: Vec<Rule> = firewall.plan.rules.iter().map(|planned| planned.rule.clone()).collect();
        walk(&rules, &fields, |_, _| false).end
    }
}

fn cut(connection: &Connection, before: &Plan, allowed: usize, after: &Plan, end: End, origins: &Origins) -> String {
    let Connection { client, server } = connection;
    let here = format!("this would cut the ssh connection by which you are here ({client} → {server})");
    let told = |plan: &Plan, index: usize| {
        let rule = &plan.rules[index];
        format!("rule `{}` ({})", rule.rule.name, origins.of(&rule.origin))
    };
    let why = match end {
        End::Deny(index) => format!("{} would deny it", told(after, index)),
        _ => format!("no rule would allow it any more, as {} does now", told(before, allowed)),
    };
    format!("{here}: {why}. Nothing was changed. If you have another way in, say --force")
}

/// The interface that has the address; where none of the plan has it (a VIP on the loopback interface), all of the plan.
fn interfaces(address: IpAddr, planned: &[String]) -> Vec<String> {
    let has = |interface: &nix::ifaddrs::InterfaceAddress| {
        let storage = interface.address.as_ref();
        let v4 = storage.and_then(|address| address.as_sockaddr_in()).map(|address| IpAddr::V4(address.ip()));
        let v6 = storage.and_then(|address| address.as_sockaddr_in6()).map(|address| IpAddr::V6(address.ip()));
        v4.or(v6) == Some(address) && planned.contains(&interface.interface_name)
    };
    let found = getifaddrs().ok().and_then(|mut all| all.find(has));
    found.map_or_else(|| planned.to_vec(), |interface| vec![interface.interface_name])
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::test_site::{SITE, planned, rule};
    use super::*;

    fn refusal(connection: &str, before: &str, after: &str) -> Option<String> {
        let connection = Connection::from_ssh(connection).unwrap();
        let (before, after, sets) = (planned(before), planned(after), BTreeMap::new());
        let of = |plan| Firewall { plan, sets: &sets };
        let origins = Origins::of_file(Path::new("site.toml"));
        refuse_to_cut(&connection, of(&before), of(&after), &origins).err().map(|error| error.to_string())
    }

    #[test]
    fn connections_are_read_as_sshd_writes_them() {
        let read = |text| Connection::from_ssh(text).map(|it| format!("{} {}", it.client, it.server));
        assert_eq!(read("192.0.2.7 50123 10.0.1.41 22").as_deref(), Some("192.0.2.7:50123 10.0.1.41:22"));
        assert_eq!(read("fe80::1%eth0 1 fe80::2%eth0 22").as_deref(), Some("[fe80::1]:1 [fe80::2]:22"));
        assert_eq!(read("::ffff:192.0.2.7 1 ::ffff:10.0.1.41 22").as_deref(), Some("192.0.2.7:1 10.0.1.41:22"));
        for text in ["", "192.0.2.7 50123 10.0.1.41", "a b c d", "192.0.2.7 70000 10.0.1.41 22"] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn a_plan_that_leaves_the_admin_out_is_refused() {
        let other = SITE.replace("192.0.2.0/24", "198.51.100.0/24");
        let told = refusal("192.0.2.7 50123 10.0.1.41 22", SITE, &other).unwrap();
        assert!(told.contains("192.0.2.7:50123 → 10.0.1.41:22"), "{told}");
        assert!(told.contains("no rule would allow it any more, as rule `failsafe-ssh` ([site] admin) does"), "{told}");
    }

    #[test]
    fn a_rule_that_denies_another_way_in_is_named_with_its_line() {
        let with = |action: &str| format!("{SITE}{}", rule("bastion", "203.0.113.9", 2222, action));
        let told = refusal("203.0.113.9 50123 10.0.1.41 2222", &with("allow"), &with("deny")).unwrap();
        assert!(told.contains("rule `bastion` (site.toml:11) would deny it"), "{told}");
    }

    #[test]
    fn what_does_not_cut_or_was_not_open_is_let_by() {
        assert_eq!(refusal("192.0.2.7 50123 10.0.1.41 22", SITE, SITE), None);
        let other = SITE.replace("192.0.2.0/24", "198.51.100.0/24");
        assert_eq!(refusal("203.0.113.9 50123 10.0.1.41 22", SITE, &other), None);
    }
}
