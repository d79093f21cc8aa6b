//! Settings of the network stack that balancers and backends of tunnels need; what was there before is restored at `foobar detach`.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::plan::{Plan, Role, Scope};

/// Root of the settings of this network namespace.
pub(crate) const ROOT: &str = "/proc/sys/net";

/// Settings and their values for a plan; `vlans`: devices of VLANs on its interfaces.
fn wanted(plan: &Plan, vlans: &[String]) -> Vec<(String, &'static str)> {
    let mut settings = Vec::new();
    if !plan.edge.is_empty() {
        // Connections in the queue of an edge that stops move to the one that starts.
        settings.push(("ipv4/tcp_migrate_req".to_owned(), "1"));
    }
    let forwards = |ipv4: bool| {
        let on_the_wire = plan.services.iter().filter(|service| service.scope != Scope::Local);
        on_the_wire.flat_map(|service| &service.vips).any(|vip| vip.is_ipv4() == ipv4)
    };
    if plan.tunnels.vips.iter().any(IpAddr::is_ipv4) {
        settings.extend(plan.interfaces.iter().chain(vlans).filter(|interface| is_strict(interface)).map(loose));
    }
    // The route look-up of the packet path answers only on a router.
    if forwards(false) {
        settings.push(("ipv6/conf/all/forwarding".to_owned(), "1"));
    }
    if !forwards(true) {
        return settings;
    }
    settings.push(("ipv4/ip_forward".to_owned(), "1"));
    // The kernel takes the stricter of this and the interface's own.
    settings.push(("ipv4/conf/all/rp_filter".to_owned(), "0"));
    for interface in plan.interfaces.iter().chain(vlans) {
        // Replies that bear a VIP as source go up to the stack while the client's neighbour entry is resolved.
        settings.push((format!("ipv4/conf/{interface}/accept_local"), "1"));
        settings.push((format!("ipv4/conf/{interface}/rp_filter"), "0"));
    }
    settings
}

/// Whether a packet of IPv4 is dropped unless it is answered by the interface on which it came. A backend's answers need not go
/// the way that the balancer's tunnel has come.
fn is_strict(interface: &str) -> bool {
    let value = |of: &str| {
        let text = fs::read_to_string(Path::new(ROOT).join(format!("ipv4/conf/{of}/rp_filter"))).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    };
    // The kernel takes the larger of the two.
    value("all").max(value(interface)) == 1
}

/// It is dropped only when nobody answers it.
fn loose(interface: &String) -> (String, &'static str) {
    (format!("ipv4/conf/{interface}/rp_filter"), "2")
}

/// Sets what has to be in force before the server holds its VIPs: a backend that has the balancer's must not answer for them.
///
/// # Errors
/// A setting cannot be written.
pub fn before_vips(plan: &Plan, memory: &Path) -> Result<()> {
    let silent = plan.role != Role::Balancer && plan.vips.iter().any(IpAddr::is_ipv4);
    // Answers ARP only for addresses of the interface itself, and names no other as its own. IPv6 does so by itself.
    let settings = [("ipv4/conf/all/arp_ignore", "1"), ("ipv4/conf/all/arp_announce", "2")];
    let wanted = settings.iter().filter(|_| silent).map(|(name, value)| ((*name).to_owned(), *value));
    hold(wanted.collect(), memory)
}

/// Sets what a plan needs, and remembers in `memory` what was there before. The stack knows packets under a tag by the device of
/// their VLAN, so that `vlans`, those on the plan's interfaces, need what these need.
///
/// # Errors
/// A setting cannot be written.
pub fn apply(plan: &Plan, vlans: &[String], memory: &Path) -> Result<()> {
    hold(wanted(plan, vlans), memory)
}

/// Sets `wanted`, and remembers in `memory` what was there before.
///
/// # Errors
/// A setting cannot be written.
pub(crate) fn hold(wanted: Vec<(String, &'static str)>, memory: &Path) -> Result<()> {
    let mut before = remembered(memory)?;
    for (name, value) in wanted {
        let path = Path::new(ROOT).join(&name);
        let now = match fs::read_to_string(&path) {
            Ok(now) => now.trim().to_owned(),
            // A kernel without IPv6, or without the setting, does without.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        if now != value {
            before.entry(name).or_insert(now);
            fs::write(memory, serde_json::to_vec(&before)?)
                .with_context(|| format!("cannot write {}", memory.display()))?;
            fs::write(&path, value).with_context(|| format!("cannot set {} to {value}", path.display()))?;
        }
    }
    Ok(())
}

/// Restores what was there before.
///
/// # Errors
/// The memory cannot be read.
pub fn restore(memory: &Path) -> Result<()> {
    for (name, value) in remembered(memory)? {
        // An interface that is gone has no settings any more.
        fs::write(Path::new(ROOT).join(name), value).ok();
    }
    fs::remove_file(memory).ok();
    Ok(())
}

fn remembered(memory: &Path) -> Result<BTreeMap<String, String>> {
    match fs::read(memory) {
        Ok(bytes) => serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged", memory.display())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", memory.display())),
    }
}

/// The file in which a server's earlier settings are remembered.
#[must_use]
pub fn memory(run: &Path) -> PathBuf {
    run.join("settings.json")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan;
    use crate::site::Site;

    /// The names of what is set on a balancer with one service of this kind, its values behind them.
    fn set(vip: &str, vlans: &[&str]) -> Vec<String> {
        let server = |name: &str, role: &str, number: u8| {
            format!(
                "[[server]]\nname = \"{name}\"\nrole = \"{role}\"\naddress = \"10.0.1.{number}\"\naddress6 = \
                 \"fd00:1::{number}\"\ninterfaces = [\"eth0\"]\n"
            )
        };
        let text = format!(
            "[site]\ndomain = \"www.foobar.com\"\nadmin = [\"192.0.2.0/24\"]\n{}{}[service.www]\nlisten = [\"{vip}:80\"]\nto = \
             \"web:80\"\nforward = \"nat\"\nfrom = [\"any\"]\n",
            server("lb1", "balancer", 1),
            server("web1", "web", 11)
        );
        let plan = plan::plan(&Site::parse(Path::new("site.toml"), &text).unwrap(), "lb1").unwrap();
        let vlans: Vec<String> = vlans.iter().map(ToString::to_string).collect();
        let mut names: Vec<String> =
            wanted(&plan, &vlans).iter().map(|(name, value)| format!("{name} {value}")).collect();
        names.sort();
        names
    }

    #[test]
    fn devices_of_vlans_are_set_as_the_interfaces_beneath() {
        let alone = ["ipv4/conf/all/rp_filter 0", "ipv4/conf/eth0/accept_local 1", "ipv4/conf/eth0/rp_filter 0"];
        assert_eq!(set("203.0.113.10", &[])[..3], alone);
        let with = [&alone[..], &["ipv4/conf/eth0.5/accept_local 1", "ipv4/conf/eth0.5/rp_filter 0"]].concat();
        let mut found = set("203.0.113.10", &["eth0.5"]);
        found.retain(|setting| with.contains(&setting.as_str()));
        assert_eq!(found.len(), with.len(), "{found:?}");
        // Only IPv4 knows such settings.
        assert_eq!(set("[2001:db8::10]", &["eth0.5"]), ["ipv6/conf/all/forwarding 1"]);
    }
}
